"""Does the map stay where the image hardly changes?"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import length, quotient
from jaxcam._src.chunks import check_counts, mapped
from jaxcam._src.metrics.trial import Trial


def max_sensitivity(
    trial: Trial, *, radius: float = 0.02, samples: int = 10, chunk_size: int = 10
) -> Float[Array, ""]:
    """The largest relative change of the heatmap in a small box around the image; lower is better.

    `max |M(x + d) - M(x)| / |M(x)|`, the entries of `d` uniform in [-radius, radius] (Yeh et al.
    2019, https://arxiv.org/abs/1901.09392; divided by the norm as Captum does). 0/0 is 0; of a
    heatmap of zeros that changes, the norm of the change. Give a float32 image: in bfloat16 most
    of so small a change rounds to 0.

    Args:
      trial: whose map.
      radius: in units of the image as the model takes it.
      samples: how many images are drawn.
      chunk_size: images at once.
    """
    return _changes(trial, radius, samples, chunk_size).max()


def average_sensitivity(
    trial: Trial, *, radius: float = 0.02, samples: int = 10, chunk_size: int = 10
) -> Float[Array, ""]:
    """The mean of the changes of which `max_sensitivity` is the largest; arguments as there."""
    return _changes(trial, radius, samples, chunk_size).mean()


def _changes(
    trial: Trial, radius: float, samples: int, chunk_size: int
) -> Float[Array, " samples"]:
    check_counts(samples=samples)
    heatmap, image = trial.heatmap, trial.image
    norm = length(heatmap)

    def change(key: Array) -> Array:
        moved = jax.random.uniform(key, image.shape, image.dtype, -radius, radius)
        changed = length(trial.heatmap_of(image + moved) - heatmap)
        return jnp.where(norm == 0, changed, quotient(changed, norm))

    return mapped(change, jax.random.split(trial.key, samples), chunk_size)
