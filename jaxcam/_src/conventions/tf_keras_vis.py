"""tf-keras-vis 0.8.7: corners aligned, then the range."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxcam._src.base import Convention, Tap
from jaxcam._src.conventions.resizing import align_corners, near_unit_range
from jaxcam._src.fusions import fuse_max
from jaxcam._src.maps import combine
from jaxcam._src.methods import closed_forms
from jaxcam._src.methods.curvature import grad_cam_plus_plus
from jaxcam._src.methods.gradient import gradient
from jaxcam._src.methods.perturbation import masked_scores, score_cam
from jaxcam._src.scores import probability

_EPS = 1e-7  # keras.backend.epsilon()


def _layer(cam: Array, size: tuple[int, ...]) -> Array:
    return near_unit_range(align_corners(cam, size), eps=_EPS)


def _grad_cam_plus_plus(tap: Tap) -> Array:
    """With the factor exp(score), which matters beside the constant in the range, and overflows."""
    factor = jnp.exp(tap.score_activations(tap.activations))
    return factor * closed_forms.tf_keras_vis(gradient(tap), tap.activations)


def _score_cam(tap: Tap, **knobs: Any) -> Array:
    """A softmax over the classes, whatever the model returns, and none over the channels."""

    def mask(channel: Array) -> Array:
        return _layer(channel, tap.image.shape[:-1])[..., None]

    scores = masked_scores(tap.at_score(probability), mask, **knobs)
    scores = jnp.where(scores == -jnp.inf, 0, scores)  # channels that take no part
    return scores.reshape((1,) * len(tap.spatial_axes) + (-1,))


tf_keras_vis = Convention(
    combine_fn=combine,
    layer_fn=_layer,
    fuse_fn=fuse_max,  # tf-keras-vis has none
    finish_fn=lambda heatmap: heatmap,
    variants={grad_cam_plus_plus: _grad_cam_plus_plus, score_cam: _score_cam},
)
