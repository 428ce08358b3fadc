"""How much of a heatmap lies on the object."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcam._src.arithmetic import accumulated, quotient


def energy_inside(
    heatmap: Float[Array | np.ndarray, "*spatial"], inside: Bool[Array | np.ndarray, "*spatial"]
) -> Float[Array, ""]:
    """The share of the heatmap's sum that lies inside a region: the energy pointing game.

    Wang et al. 2020, section 4.3, https://arxiv.org/abs/1910.01279. A heatmap of ones scores the
    region's share of the image: print it beside, as the floor.

    Args:
      heatmap: at least 0.
      inside: True inside the region.

    Returns:
      A number in [0, 1]; 0 for a heatmap of zeros.
    """
    heatmap = accumulated(jnp.asarray(heatmap))
    return quotient(jnp.where(inside, heatmap, 0).sum(), heatmap.sum())
