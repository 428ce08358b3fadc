"""Methods that look at the score of changed activations: the part behind the layer, many times."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import quotient
from jaxcam._src.base import Tap
from jaxcam._src.chunks import mapped, mapped_where


def ablation_cam(tap: Tap, *, chunk_size: int = 64) -> Float[Array, "*ones K"]:
    """Ablation-CAM: how much the score falls without a channel, as a share of it.

    `w_k = (S - S_{A_k = 0}) / S`, or 0 where `S` is 0 (Desai and Ramaswamy, WACV 2020,
    https://doi.org/10.1109/WACV45572.2020.9093360).

    Args:
      chunk_size: changed activations in memory at once; the result does not depend on it.

    Cost: K times what is behind the layer
    Avoid: negative scores, such as a log-probability, which turn the sign of the weights

    Returns:
      Weights `[1, ..., 1, K]`.

    Raises:
      ValueError: `chunk_size` is below 1.

    >>> jaxcam.ablation_cam(tap).shape
    (1, 1, 64)
    """
    return drops_without(tap, jnp.zeros(tap.activations.shape[-1:]), chunk_size)


def drops_without(tap: Tap, values: Float[Array, " K"], chunk_size: int) -> Float[Array, "*ones K"]:
    """The share of the score that is lost when channel k has `values[k]` everywhere."""
    channels = jnp.arange(len(values))
    values = values.astype(tap.activations.dtype)

    def ablated_score(channel):
        is_ablated = channels == channel
        return tap.score_activations(jnp.where(is_ablated, values[channel], tap.activations))

    score = tap.score_activations(tap.activations)
    spread = values.reshape((1,) * len(tap.spatial_axes) + (-1,))
    changed = (tap.activations != spread).any(axis=tap.spatial_axes)
    ablated = mapped_where(ablated_score, channels, changed, score, chunk_size)
    weights = quotient(score - ablated, score)
    return weights.reshape((1,) * len(tap.spatial_axes) + (-1,))


def recipro_cam(tap: Tap, *, chunk_size: int = 64) -> Float[Array, "*spatial"]:
    """Recipro-CAM: the score of the activations of one place and its neighbours alone.

    `M_ij = S(A * G_ij)`, with `G_ij` the outer product of (1/4, 1/2, 1/4) along each axis, centred
    at (i, j) and cut off at the edge (Byun and Lee 2022, https://arxiv.org/abs/2209.14074, whose
    score is the probability). A map and no weights.

    Args:
      chunk_size: masked activations in memory at once; the result does not depend on it.

    Cost: h w times what is behind the layer
    Avoid: heads with normalisation, which see far less than they were trained on

    Returns:
      The map, `[*spatial]`, in units of the score.

    Raises:
      ValueError: `chunk_size` is below 1.

    >>> jaxcam.recipro_cam(tap).shape
    (16, 16)
    """
    spatial = tap.activations.shape[:-1]
    windows = [jnp.eye(n) / 2 + jnp.eye(n, k=1) / 4 + jnp.eye(n, k=-1) / 4 for n in spatial]

    def masked_score(place):
        index = jnp.unravel_index(place, spatial)
        rows = [window[i] for window, i in zip(windows, index, strict=True)]
        mask = functools.reduce(jnp.multiply.outer, rows).astype(tap.activations.dtype)
        return tap.score_activations(tap.activations * mask[..., None])

    places = jnp.arange(tap.activations[..., 0].size)
    return mapped(masked_score, places, chunk_size).reshape(spatial)
