"""The convention of the papers, and of this library where they are silent."""

from jaxtyping import Array

from jaxcam._src.base import Convention
from jaxcam._src.fusions import fuse_max
from jaxcam._src.maps import combine, unit_range, upsample


def _layer(cam: Array, size: tuple[int, ...]) -> Array:
    return unit_range(upsample(cam, size))


paper = Convention(
    combine_fn=combine, layer_fn=_layer, fuse_fn=fuse_max, finish_fn=unit_range, variants={}
)
