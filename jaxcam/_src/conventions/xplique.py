"""xplique 2.0.2: bicubic interpolation, which goes below 0, and no range."""

import math

import jax
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Convention, Tap
from jaxcam._src.fusions import fuse_max
from jaxcam._src.maps import combine
from jaxcam._src.methods import closed_forms
from jaxcam._src.methods.curvature import grad_cam_plus_plus
from jaxcam._src.methods.gradient import gradient


def _grad_cam_plus_plus(tap: Tap) -> Array:
    """The mean of the activations for `Sigma_k`, and the mean over positions for the sum."""
    positions = math.prod(tap.activations.shape[:-1])
    return closed_forms.xplique(gradient(tap), tap.activations) / positions


def _bicubic(cam: Array, size: tuple[int, ...]) -> Array:
    return jax.image.resize(accumulated(cam), size, "cubic", antialias=False)


xplique = Convention(
    combine_fn=combine,
    layer_fn=_bicubic,
    fuse_fn=fuse_max,  # xplique has none
    finish_fn=lambda heatmap: heatmap,
    variants={grad_cam_plus_plus: _grad_cam_plus_plus},
)
