"""captum 0.9.0, `LayerGradCam` and `LayerAttribution.interpolate`: signed, in no range."""

from jaxcam._src.base import Convention
from jaxcam._src.conventions.resizing import nearest
from jaxcam._src.fusions import fuse_max
from jaxcam._src.maps import weigh

captum = Convention(
    combine_fn=weigh,
    layer_fn=nearest,
    fuse_fn=fuse_max,  # captum has none
    finish_fn=lambda heatmap: heatmap,
    variants={},
)
