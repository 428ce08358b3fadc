"""torchcam 0.5.0: the range at the size of the layer, where the map stays."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Convention, Key, Tap
from jaxcam._src.conventions.resizing import near_unit_range
from jaxcam._src.fusions import fuse_layer_cam, fuse_max, fuse_refine_cam
from jaxcam._src.maps import combine, upsample, weigh
from jaxcam._src.methods import closed_forms
from jaxcam._src.methods.curvature import grad_cam_plus_plus
from jaxcam._src.methods.gradient import cam, gradient
from jaxcam._src.methods.perturbation import is_cam, masked_scores, score_cam, softmax, ss_cam
from jaxcam._src.methods.smoothed import smooth_grad_cam_plus_plus

_EPS = 1e-8


def _range(values: Array) -> Array:
    return near_unit_range(values, eps=_EPS)


def _cam(tap: Tap) -> Array:
    """The map without its ReLU."""
    return weigh(cam(tap), tap.activations)


def _grad_cam_plus_plus(tap: Tap) -> Array:
    return closed_forms.torchcam(gradient(tap), tap.activations)


def _smooth_grad_cam_plus_plus(
    tap: Tap, *, key: Key, samples: int = 4, sigma: float = 0.3
) -> Array:
    """Gradient, and activations of the map, are those of the last noisy image."""

    def noisy(key: Key) -> tuple[Array, Array]:
        noise = jax.random.normal(key, tap.image.shape, tap.image.dtype)
        there = tap.at_image(tap.image + sigma * noise)
        return gradient(there), there.activations

    gradients, activations = jax.lax.map(noisy, jax.random.split(key, samples))
    second, third = (jnp.mean(gradients**n, axis=0) for n in (2, 3))
    total = jnp.sum(third * accumulated(tap.activations), axis=tap.spatial_axes, keepdims=True)
    alpha = second / (2 * second + total + _EPS)
    weights = jnp.sum(alpha * jax.nn.relu(gradients[-1]), axis=tap.spatial_axes, keepdims=True)
    return combine(weights, activations[-1])


def _mask(tap: Tap, channel: Array) -> Array:
    """The range at the size of the layer; after resizing, the largest value may be below 1."""
    return upsample(_range(channel), tap.image.shape[:-1])[..., None]


def _score_cam(tap: Tap, **knobs: Any) -> Array:
    return softmax(tap, masked_scores(tap, lambda a: _mask(tap, a), **knobs))


def _ss_cam(tap: Tap, *, key: Key, samples: int = 35, sigma: float = 2.0, **knobs: Any) -> Array:
    def scores(key: Key) -> Array:
        noise = jax.random.normal(key, (*tap.image.shape[:-1], 1), accumulated(tap.image).dtype)
        return masked_scores(tap, lambda a: _mask(tap, a) + sigma * noise, **knobs)

    return softmax(tap, jax.lax.map(scores, jax.random.split(key, samples)).mean(axis=0))


def _is_cam(tap: Tap, *, samples: int = 10, **knobs: Any) -> Array:
    """Strengths add up: n / N of them is the sum of 1 / N to n / N, 5.5 at the end of ten."""
    strengths = jnp.cumsum((jnp.arange(samples, dtype=accumulated(tap.image).dtype) + 1) / samples)

    def scores(strength: Array) -> Array:
        return masked_scores(tap, lambda a: strength * _mask(tap, a), **knobs)

    return softmax(tap, jax.lax.map(scores, strengths).mean(axis=0))


def _fuse_max(heatmaps: Array | Sequence[Array]) -> Array:
    return fuse_max(_at_largest(heatmaps))


def _fuse_layer_cam(heatmaps: Array | Sequence[Array]) -> Array:
    """Every layer is lifted, the last one too."""
    return _fuse_max([jnp.tanh(2 * heatmap) for heatmap in heatmaps])


def _fuse_refine_cam(heatmaps: Array | Sequence[Array]) -> Array:
    return _range(fuse_refine_cam(_at_largest([_range(heatmap) for heatmap in heatmaps])))


def _at_largest(heatmaps: Array | Sequence[Array]) -> Array:
    sizes = zip(*(heatmap.shape for heatmap in heatmaps), strict=True)
    size = tuple(max(sides) for sides in sizes)
    return jnp.stack([upsample(heatmap, size) for heatmap in heatmaps])


torchcam = Convention(
    combine_fn=combine,
    layer_fn=lambda cam, size: _range(cam),
    fuse_fn=_fuse_max,
    finish_fn=lambda heatmap: heatmap,
    variants={
        cam: _cam,
        grad_cam_plus_plus: _grad_cam_plus_plus,
        smooth_grad_cam_plus_plus: _smooth_grad_cam_plus_plus,
        score_cam: _score_cam,
        ss_cam: _ss_cam,
        is_cam: _is_cam,
        fuse_max: _fuse_max,
        fuse_layer_cam: _fuse_layer_cam,
        fuse_refine_cam: _fuse_refine_cam,
    },
)
