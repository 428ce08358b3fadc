"""Guided Grad-CAM: no map of the layer, but of the image's own numbers."""

import jax
from jaxtyping import Array, Float

from jaxcam._src.base import Tap
from jaxcam._src.cut.guided import guided
from jaxcam._src.maps import combine, unit_range, upsample
from jaxcam._src.methods.gradient import grad_cam


def guided_gradient(tap: Tap) -> Float[Array, "*size C"]:
    """Guided backpropagation: the gradient of the score along the image, by positive paths.

    At every ReLU the backward pass drops what is negative (Springenberg et al. 2015,
    https://arxiv.org/abs/1412.6806). It resembles the image's edges for any class and for random
    weights too (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292).

    Returns:
      `[*size, C]`, as the image; of either sign.

    Raises:
      ValueError: the model has no ReLU, or one inside a loop or a branch.

    >>> jaxcam.guided_gradient(tap).shape
    (64, 64, 1)
    """
    return jax.grad(guided(tap.score_image))(tap.image)


def guided_grad_cam(tap: Tap) -> Float[Array, "*size C"]:
    """Guided Grad-CAM: guided backpropagation, where the heatmap of Grad-CAM is.

    `guided_gradient * heatmap` (Selvaraju et al. 2017, section 3.2,
    https://arxiv.org/abs/1610.02391). For another method multiply its heatmap yourself.

    Returns:
      `[*size, C]`, as the image; of either sign.

    Raises:
      ValueError: as for `guided_gradient`.

    >>> jaxcam.guided_grad_cam(tap).shape
    (64, 64, 1)
    """
    cam = combine(grad_cam(tap), tap.activations)
    heatmap = unit_range(upsample(cam, tap.image.shape[:-1])).astype(tap.image.dtype)
    return guided_gradient(tap) * heatmap[..., None]
