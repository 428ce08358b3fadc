"""Class activation maps for JAX and Flax, as pure functions, with exact derivatives."""

# The model
from jaxcam._src.adapters.linen import from_linen
from jaxcam._src.adapters.nnx import from_nnx

# The audit of the closed form
from jaxcam._src.audit import Audit, audit
from jaxcam._src.audit.attack import shift_logits
from jaxcam._src.audit.verdict import verdict

# Records
from jaxcam._src.base import Derivatives, Explanation, Layer, Model, Tap
from jaxcam._src.cut import layers, split, tag

# The bundled networks and images
from jaxcam._src.demo.bundle import digits_relu, digits_silu, load_canvases

# Derivatives along each coordinate alone
from jaxcam._src.derivatives import Structure, closed_form, derivatives, structure

# The whole path
from jaxcam._src.explain import explainer, tap

# From weights to a heatmap, and to a picture
from jaxcam._src.maps import combine, fuse_layer_cam, fuse_max, unit_range, upsample

# Evidence about heatmaps
from jaxcam._src.metrics.localization import energy_inside
from jaxcam._src.render import overlay

# What is explained
from jaxcam._src.scores import log_probability, logit, margin, probability

# Methods
from jaxcam._src.weights.curvature import (
    Alpha,
    alpha,
    exponential,
    grad_cam_plus_plus,
    identity,
)
from jaxcam._src.weights.gradient import cam, grad_cam, layer_cam
from jaxcam._src.weights.perturbation import score_cam

__all__ = [
    "Alpha",
    "Audit",
    "Derivatives",
    "Explanation",
    "Layer",
    "Model",
    "Structure",
    "Tap",
    "alpha",
    "audit",
    "cam",
    "closed_form",
    "combine",
    "derivatives",
    "digits_relu",
    "digits_silu",
    "energy_inside",
    "explainer",
    "exponential",
    "from_linen",
    "from_nnx",
    "fuse_layer_cam",
    "fuse_max",
    "grad_cam",
    "grad_cam_plus_plus",
    "identity",
    "layer_cam",
    "layers",
    "load_canvases",
    "log_probability",
    "logit",
    "margin",
    "overlay",
    "probability",
    "score_cam",
    "shift_logits",
    "split",
    "structure",
    "tag",
    "tap",
    "unit_range",
    "upsample",
    "verdict",
]
