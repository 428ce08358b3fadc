"""Group-CAM, and the blur that hides an image from it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Tap
from jaxcam._src.blurring import blurred
from jaxcam._src.chunks import check_counts, mapped
from jaxcam._src.maps import unit_range
from jaxcam._src.methods.gradient import grad_cam
from jaxcam._src.methods.perturbation import mask_of


def group_cam(
    tap: Tap,
    *,
    groups: int = 32,
    percentile: float = 70.0,
    baseline_fn: Callable[[Array], Array] | None = None,
    chunk_size: int = 16,
) -> Float[Array, "*spatial"]:
    """Group-CAM: groups of channels, weighted by what they reveal of a blurred image.

    `M_l = relu(sum_{k in l} w_k A_k)` with the weights of Grad-CAM, values up to the `percentile`
    set to 0; the map is `relu(sum_l a_l unit_range(M_l))` with `a_l = S(X * M'_l + B * (1 - M'_l))
    - S(B)`, `M'_l` the group's mask at the size of the image and `B` the blurred image (Zhang et
    al. 2021, https://arxiv.org/abs/2103.13859, whose score is the probability). The paper adds the
    groups at the size of the image, here at that of the layer. A map and no weights.

    Args:
      groups: of consecutive channels; as many as channels where those are fewer.
      percentile: in [0, 100]; which share of a group's map is noise.
      baseline_fn: image -> image `B`; None is `blurred`.
      chunk_size: masked images in memory at once; the result does not depend on it.

    Cost: 1 backward and 33 forward (groups + 1)
    Avoid: layers whose channels have no order to group by

    Returns:
      The map, `[*spatial]`, in units of the score, at least 0.

    Raises:
      ValueError: `groups` or `chunk_size` is below 1.

    >>> jaxcam.group_cam(tap, groups=4).shape
    (16, 16)
    """
    check_counts(groups=groups)
    image, dtype = accumulated(tap.image), tap.image.dtype
    baseline = (baseline_fn or blurred)(image)
    maps = _group_maps(grad_cam(tap) * accumulated(tap.activations), groups, percentile)

    def revealed_score(group):
        mask = mask_of(tap, group)
        return tap.score_image((image * mask + baseline * (1 - mask)).astype(dtype))

    gains = mapped(revealed_score, maps, chunk_size) - tap.score_image(baseline.astype(dtype))
    masks = jax.vmap(unit_range)(maps)
    return jax.nn.relu(jnp.tensordot(gains.astype(maps.dtype), masks, axes=1))


def _group_maps(
    weighted: Float[Array, "*spatial K"], groups: int, percentile: float
) -> Float[Array, "groups *spatial"]:
    channels = weighted.shape[-1]
    group = jnp.arange(channels) * min(groups, channels) // channels
    summed = jax.ops.segment_sum(jnp.moveaxis(weighted, -1, 0), group, min(groups, channels))
    maps = jax.nn.relu(summed)
    threshold = jnp.percentile(maps.reshape(len(maps), -1), percentile, axis=1)
    return jnp.where(maps > threshold.reshape((-1,) + (1,) * (maps.ndim - 1)), maps, 0)
