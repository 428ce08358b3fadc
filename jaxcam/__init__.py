"""Class activation maps for JAX and Flax, as pure functions, with exact derivatives.

The examples of this reference begin with these lines:

>>> import functools, jax, jaxcam
>>> import jax.numpy as jnp
>>> model, canvases = jaxcam.digits_relu(), jaxcam.load_canvases()
>>> apply_fn, variables = model.apply_fn, model.variables
>>> image = jnp.asarray(canvases.images[0])
>>> tap = jaxcam.tap(apply_fn, "stage3", variables, image)
"""

# The model
from jaxcam._src import conventions, metrics
from jaxcam._src.adapters.equinox import from_equinox
from jaxcam._src.adapters.functions import from_function
from jaxcam._src.adapters.haiku import from_haiku
from jaxcam._src.adapters.keras import from_keras
from jaxcam._src.adapters.linen import from_linen
from jaxcam._src.adapters.nnx import from_nnx

# The audit of the closed form
from jaxcam._src.audit import Audit, audit
from jaxcam._src.audit.attack import shift_logits
from jaxcam._src.audit.verdict import verdict

# Records
from jaxcam._src.base import (
    Attention,
    Convention,
    Derivatives,
    Explanation,
    Layer,
    Model,
    ModelWarning,
    Tap,
)
from jaxcam._src.blurring import blurred

# How it is compiled
from jaxcam._src.compiling import CPU_COMPILER_OPTIONS, compiler_options

# Where a model is cut
from jaxcam._src.cut import (
    attention_weights,
    batch_of_one,
    depthwise_on_cpu,
    layers,
    name_calls,
    split,
    tag,
    to_logits,
)

# The bundled networks and images
from jaxcam._src.demo.bundle import digits_relu, digits_silu, digits_vit, load_canvases
from jaxcam._src.demo.photographs import efficientnet_lite0

# Derivatives along each coordinate alone
from jaxcam._src.derivatives import Structure, closed_form, derivatives, structure

# The whole path
from jaxcam._src.evaluation import Evaluation, evaluator, statistics
from jaxcam._src.evaluation.cascade import cascade
from jaxcam._src.explain import explainer
from jaxcam._src.explanations import why_flat

# From weights to a heatmap, and to a picture
from jaxcam._src.fusions import fuse_layer_cam, fuse_max, fuse_refine_cam, fuse_winsor
from jaxcam._src.maps import combine, unit_range, upsample

# Methods
from jaxcam._src.methods.ablation import ablation_cam, recipro_cam
from jaxcam._src.methods.activation import eigen_cam, eigen_grad_cam, fem, random_cam, uniform
from jaxcam._src.methods.attention import attention_rollout, generic_attention, legrad, legrad_final
from jaxcam._src.methods.curvature import Alpha, alpha, exponential, grad_cam_plus_plus, identity
from jaxcam._src.methods.floors import centred_gaussian, edge_map
from jaxcam._src.methods.gradient import (
    cam,
    counterfactual_grad_cam,
    elementwise_grad_cam,
    grad_cam,
    hires_cam,
    layer_cam,
    shapley_cam,
    xgrad_cam,
)
from jaxcam._src.methods.grouped import group_cam
from jaxcam._src.methods.guided import guided_grad_cam, guided_gradient
from jaxcam._src.methods.optimised import opti_cam
from jaxcam._src.methods.perturbation import is_cam, score_cam, ss_cam
from jaxcam._src.methods.sampled import rise
from jaxcam._src.methods.smoothed import integrated_grad_cam, smooth, smooth_grad_cam_plus_plus

# Evidence about heatmaps
from jaxcam._src.metrics.localization import energy_inside
from jaxcam._src.metrics.trial import Trial
from jaxcam._src.render import overlay

# What is explained
from jaxcam._src.scores import (
    binary_log_probability,
    binary_logit,
    binary_probability,
    finer,
    label_log_probability,
    label_probability,
    log_odds,
    log_probability,
    logit,
    margin,
    probability,
    rest,
)

# Many devices
from jaxcam._src.sharding import sharded

# The layer to explain at
from jaxcam._src.suggest import suggest_layer
from jaxcam._src.taps import tap

# Tokens as a grid
from jaxcam._src.tokens import token_grid

__version__ = "0.1.0"

__all__ = [
    "CPU_COMPILER_OPTIONS",
    "Alpha",
    "Attention",
    "Audit",
    "Convention",
    "Derivatives",
    "Evaluation",
    "Explanation",
    "Layer",
    "Model",
    "ModelWarning",
    "Structure",
    "Tap",
    "Trial",
    "ablation_cam",
    "alpha",
    "attention_rollout",
    "attention_weights",
    "audit",
    "batch_of_one",
    "binary_log_probability",
    "binary_logit",
    "binary_probability",
    "blurred",
    "cam",
    "cascade",
    "centred_gaussian",
    "closed_form",
    "combine",
    "compiler_options",
    "conventions",
    "counterfactual_grad_cam",
    "depthwise_on_cpu",
    "derivatives",
    "digits_relu",
    "digits_silu",
    "digits_vit",
    "edge_map",
    "efficientnet_lite0",
    "eigen_cam",
    "eigen_grad_cam",
    "elementwise_grad_cam",
    "energy_inside",
    "evaluator",
    "explainer",
    "exponential",
    "fem",
    "finer",
    "from_equinox",
    "from_function",
    "from_haiku",
    "from_keras",
    "from_linen",
    "from_nnx",
    "fuse_layer_cam",
    "fuse_max",
    "fuse_refine_cam",
    "fuse_winsor",
    "generic_attention",
    "grad_cam",
    "grad_cam_plus_plus",
    "group_cam",
    "guided_grad_cam",
    "guided_gradient",
    "hires_cam",
    "identity",
    "integrated_grad_cam",
    "is_cam",
    "label_log_probability",
    "label_probability",
    "layer_cam",
    "layers",
    "legrad",
    "legrad_final",
    "load_canvases",
    "log_odds",
    "log_probability",
    "logit",
    "margin",
    "metrics",
    "name_calls",
    "opti_cam",
    "overlay",
    "probability",
    "random_cam",
    "recipro_cam",
    "rest",
    "rise",
    "score_cam",
    "shapley_cam",
    "sharded",
    "shift_logits",
    "smooth",
    "smooth_grad_cam_plus_plus",
    "split",
    "ss_cam",
    "statistics",
    "structure",
    "suggest_layer",
    "tag",
    "tap",
    "to_logits",
    "token_grid",
    "uniform",
    "unit_range",
    "upsample",
    "verdict",
    "why_flat",
    "xgrad_cam",
]
