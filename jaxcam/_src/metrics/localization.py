"""How much of a heatmap lies on the object."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from jaxcam._src.arithmetic import as_floats, quotient
from jaxcam._src.metrics.removal import ranks
from jaxcam._src.metrics.trial import Trial


def energy_inside(
    heatmap: Real[Array | np.ndarray, "*spatial"], inside: Bool[Array | np.ndarray, "..."]
) -> Float[Array, ""]:
    """The share of the heatmap's sum that lies inside a region: the energy pointing game.

    Wang et al. 2020, https://arxiv.org/abs/1910.01279. A heatmap of ones scores the
    region's share of the image: print it beside, as the floor.

    Args:
      heatmap: at least 0.
      inside: True inside the region.

    Returns:
      A number in [0, 1]; 0 for a heatmap of zeros.

    Raises:
      ValueError: the region is of another size.

    >>> float(jaxcam.energy_inside(jnp.array([[3.0, 1.0]]), jnp.array([[True, False]])))
    0.75
    """
    if jnp.shape(inside) != jnp.shape(heatmap):
        raise ValueError(
            f"a region of the shape {jnp.shape(inside)} of a heatmap {jnp.shape(heatmap)}; wanted "
            "one for each position"
        )
    heatmap = as_floats(heatmap)
    return quotient(jnp.where(inside, heatmap, 0).sum(), heatmap.sum())


def energy(trial: Trial) -> Float[Array, ""]:
    """`jaxcam.energy_inside` of the trial's object; higher is better."""
    return energy_inside(trial.heatmap, trial.object)


def pointing(trial: Trial, *, tolerance: float = 15.0) -> Float[Array, ""]:
    """The pointing game: 1 where the map's largest value lies on or near the object, else 0.

    Zhang et al. 2018, https://arxiv.org/abs/1608.00507. Of several largest values
    that which comes first; a map of zeros points nowhere.

    Args:
      trial: with an object.
      tolerance: nearer than so many pixels is near, as the paper has it for its images.
    """
    values = trial.heatmap
    top = jnp.unravel_index(values.argmax(), values.shape)
    places = jnp.indices(values.shape)
    squares = sum((at - own) ** 2 for at, own in zip(places, top, strict=True))
    distance = jnp.sqrt(jnp.asarray(squares, jnp.float32))
    near = trial.object & ((distance < tolerance) | (distance == 0))
    return (near.any() & (values.max() > 0)).astype(jnp.float32)


def relevance_rank(trial: Trial) -> Float[Array, ""]:
    """The share of the object among as many of the map's largest values as it has pixels.

    Arras et al. 2022, https://arxiv.org/abs/2003.07258. In [0, 1], higher is better;
    0 where there is no object. Equal values come in a random order.
    """
    size = trial.object.sum()
    hits = (trial.object & (ranks(trial.heatmap, trial.key) < size)).sum()
    return quotient(hits.astype(jnp.float32), size.astype(jnp.float32))


def overlap(trial: Trial, *, threshold: float = 0.15) -> Float[Array, ""]:
    """Intersection over union of the object and the map above a share of its largest value.

    In [0, 1], higher is better; 0 for a map of zeros. The share is that of Grad-CAM's boxes
    (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391).
    """
    values = trial.heatmap
    shown = (values >= threshold * values.max()) & (values > 0)
    both, either = (shown & trial.object).sum(), (shown | trial.object).sum()
    return quotient(both.astype(jnp.float32), either.astype(jnp.float32))
