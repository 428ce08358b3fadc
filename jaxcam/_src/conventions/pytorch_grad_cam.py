"""pytorch-grad-cam 1.5.7: the range, then the size, then the mean over layers and the range."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Convention, Tap
from jaxcam._src.conventions.resizing import align_corners, near_unit_range
from jaxcam._src.fusions import fuse_refine_cam
from jaxcam._src.maps import upsample, weigh
from jaxcam._src.methods import closed_forms
from jaxcam._src.methods.ablation import ablation_cam, drops_without
from jaxcam._src.methods.activation import eigen_cam, eigen_grad_cam, fem
from jaxcam._src.methods.curvature import grad_cam_plus_plus
from jaxcam._src.methods.gradient import gradient
from jaxcam._src.methods.perturbation import masked_scores, score_cam, softmax
from jaxcam._src.scores import finer, logit

_range = functools.partial(near_unit_range, eps=1e-7)


def _combine(weights: Array, activations: Array) -> Array:
    return jax.nn.relu(weigh(weights, activations))


def _grad_cam_plus_plus(tap: Tap) -> Array:
    return closed_forms.pytorch_grad_cam(gradient(tap), tap.activations)


def _score_cam(tap: Tap, **knobs: Any) -> Array:
    def mask(channel: Array) -> Array:
        return near_unit_range(align_corners(channel, tap.image.shape[:-1]), eps=1e-8)[..., None]

    return softmax(tap, masked_scores(tap, mask, **knobs))


def _ablation_cam(tap: Tap, *, chunk_size: int = 64) -> Array:
    """Where an activation is below 0, channel i of each 32 is set i + 1 times 1e7 lower still."""
    lowest = tap.activations.min()
    times = jnp.arange(tap.activations.shape[-1]) % 32 + 1
    far = lowest - 1e7 * times.astype(tap.activations.dtype)
    return drops_without(tap, jnp.where(lowest == 0, 0, far), chunk_size)


def _eigen_cam(tap: Tap) -> Array:
    return _projected(accumulated(tap.activations))


def _eigen_grad_cam(tap: Tap) -> Array:
    return _projected(gradient(tap) * accumulated(tap.activations))


def _projected(values: Array) -> Array:
    """On the first principal component, of centred channels, with the sign that LAPACK gives it."""
    flat = values.reshape(-1, values.shape[-1])
    centred = flat - flat.mean(axis=0, keepdims=True)
    direction = jnp.linalg.svd(centred, full_matrices=True)[2][0]
    return (centred @ direction).reshape(values.shape[:-1])


def _fem(tap: Tap, *, k: float = 2.0) -> Array:
    """Each channel weighted by how often it is rare, in place of its mean where it is."""
    values = accumulated(tap.activations)
    mean, std = (f(values, tap.spatial_axes, keepdims=True) for f in (jnp.mean, jnp.std))
    rare = values > mean + k * std
    return rare.mean(axis=tap.spatial_axes, keepdims=True, dtype=values.dtype)


def _finer(logits: Array, target: ArrayLike, *, gamma: float = 1.0, references: int = 3) -> Array:
    """Comparisons are weighted by probability."""
    logits = accumulated(logits)
    score = logit(logits, target)
    distance = jnp.where(jnp.arange(len(logits)) == target, -1.0, abs(logits - score))
    nearest = jnp.argsort(distance)[1 : references + 1]
    share = jax.nn.softmax(logits)[nearest]
    leads = score - gamma * logits[nearest]
    return jnp.sum(share * leads) / (jnp.sum(share) + 1e-9)


def _fuse_refine_cam(heatmaps: Array) -> Array:
    return fuse_refine_cam(jax.vmap(_range)(heatmaps))


pytorch_grad_cam = Convention(
    combine_fn=_combine,
    layer_fn=lambda cam, size: upsample(_range(cam), size),
    fuse_fn=lambda heatmaps: jnp.mean(heatmaps, axis=0),
    finish_fn=lambda heatmap: _range(jax.nn.relu(heatmap)),
    variants={
        grad_cam_plus_plus: _grad_cam_plus_plus,
        score_cam: _score_cam,
        ablation_cam: _ablation_cam,
        eigen_cam: _eigen_cam,
        eigen_grad_cam: _eigen_grad_cam,
        fem: _fem,
        finer: _finer,
        fuse_refine_cam: _fuse_refine_cam,
    },
)
