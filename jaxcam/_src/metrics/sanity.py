"""Does the map depend on what it should explain?"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.metrics.agreement import spearman
from jaxcam._src.metrics.trial import Trial


def random_logit(trial: Trial) -> Float[Array, ""]:
    """How alike the maps of the target and of another class are, in [-1, 1]; lower is better.

    Spearman's correlation, the other class drawn from all others (Sixt et al. 2020, section 4,
    https://arxiv.org/abs/1912.09818). A method that is blind to the class has 1.

    Raises:
      ValueError: the model returns no vector of two logits or more.
    """
    shape = jnp.shape(trial.logits)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"random_logit of a model that returns {shape}; wanted logits [classes]")
    other = jax.random.randint(trial.key, (), 0, shape[0] - 1)
    other = jnp.where(other >= jnp.asarray(trial.target, int), other + 1, other)
    return spearman(trial.heatmap, trial.heatmap_for(other))
