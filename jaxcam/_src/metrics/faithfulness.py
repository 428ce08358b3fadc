"""Does the score follow the map? The image is multiplied by its heatmap, and the model asked again.

A map of ones with one 0 wins drop and increase, and so does the floor `uniform`: read them beside
complexity and coherency, and beside the floors.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxcam._src.arithmetic import accumulated, quotient
from jaxcam._src.metrics.agreement import pearson
from jaxcam._src.metrics.removal import road
from jaxcam._src.metrics.trial import Trial


def drop(trial: Trial) -> Float[Array, ""]:
    """Average Drop: the share of the score that the masked image loses, in [0, 1]; lower is better.

    `max(0, y - o) / y`, with the score `y` of the image and `o` of the image times its heatmap
    (Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063). 0 where `y` is 0; of
    a score that may be negative, such as a logit, it means nothing.
    """
    lost = jax.nn.relu(trial.score - trial.masked_score)
    return quotient(lost, trial.score)


def increase(trial: Trial) -> Float[Array, ""]:
    """Increase in Confidence: 1 where the masked image has the higher score, else 0.

    Its mean over images is the published share (Chattopadhay et al. 2018,
    https://arxiv.org/abs/1710.11063). NaN where the masked score is.
    """
    found = (trial.masked_score > trial.score).astype(accumulated(trial.score).dtype)
    return jnp.where(jnp.isnan(trial.masked_score), jnp.nan, found)


def gain(trial: Trial) -> Float[Array, ""]:
    """Average Gain: the share of the missing probability that the masked image gains, in [0, 1].

    `max(0, o - y) / (1 - y)` (Zhang et al. 2024, Opti-CAM,
    https://arxiv.org/abs/2301.07002). 0 where the probability `y` is 1.
    """
    won = jax.nn.relu(trial.masked_score - trial.score)
    return quotient(won, 1 - trial.score)


def coherency(trial: Trial) -> Float[Array, ""]:
    """How alike the maps of the image and of the masked image are, in [0, 1]; higher is better.

    `(1 + Pearson's correlation) / 2`, of the same class (Poppi et al. 2021, section 3,
    https://arxiv.org/abs/2104.10252). 0 where the map is flat: it shows nothing that could stay;
    1/2 where only that of the masked image is.
    """
    is_flat = trial.heatmap.max() == trial.heatmap.min()
    return jnp.where(is_flat, 0, (1 + pearson(trial.heatmap, trial.masked_heatmap)) / 2)


def complexity(trial: Trial) -> Float[Array, ""]:
    """The mean of the heatmap, in [0, 1]; lower is better (Poppi et al. 2021, section 3).

    Not the entropy, which is `jaxcam.metrics.entropy`.
    """
    return accumulated(trial.heatmap).mean()


def adcc(trial: Trial) -> Float[Array, ""]:
    """The harmonic mean of coherency, 1 - complexity and 1 - drop, in [0, 1]; higher is better.

    Poppi et al. 2021, https://arxiv.org/abs/2104.10252. 0 where one of the three is.
    Published tables print that of the means over a data set, which is higher: make it by
    `jaxcam.metrics.harmonic_mean` of these.
    """
    return harmonic_mean(coherency(trial), 1 - complexity(trial), 1 - drop(trial))


def arcc(
    trial: Trial, *, shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8), chunk_size: int = 32
) -> Float[Array, ""]:
    """ADCC with twice ROAD, from 0 to 1, in place of 1 - drop; higher is better.

    Of no paper; known from https://github.com/jacobgil/pytorch-grad-cam, whose imputation is
    another.

    Args:
      trial: to judge.
      shares: of the pixels that are removed, as for `jaxcam.metrics.road`.
      chunk_size: images at once.
    """
    removal = (2 * road(trial, shares=shares, chunk_size=chunk_size)).clip(0, 1)
    return harmonic_mean(coherency(trial), 1 - complexity(trial), removal)


def harmonic_mean(*values: ArrayLike) -> Float[Array, "..."]:
    """The harmonic mean of numbers in [0, 1], elementwise; 0 where one of them is 0."""
    stacked = jnp.stack([jnp.asarray(value, jnp.result_type(float)) for value in values])
    mean = quotient(jnp.asarray(float(len(values))), quotient(jnp.ones(()), stacked).sum(0))
    is_zero = (stacked == 0).any(0) & ~jnp.isnan(stacked).any(0)
    return jnp.where(is_zero, 0, mean)
