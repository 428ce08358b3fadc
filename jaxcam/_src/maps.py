"""From weights to a heatmap: combine, upsample, unit_range, and why a map is flat."""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from jaxcam._src.arithmetic import (
    accumulated,
    all_finite,
    all_zero,
    extremes,
    nan_where,
    positive_part,
    replaced,
)


def combine(
    weights: Float[Array, "*weights_shape"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*spatial"]:
    """The class activation map `relu(sum_k w_k A_k)`.

    Args:
      weights: `[1, ..., 1, K]`, one per channel, or `[*spatial, K]`; or `[*spatial]`, the map of
        a method without weights, which stays as it is.
      activations: `[*spatial, K]`.

    Returns:
      The map at the size of the layer, in float32 at least; at least 0, if there are weights.

    Raises:
      ValueError: the weights fit the activations in none of these ways.

    >>> jaxcam.combine(jnp.ones((1, 1, 2)), jnp.array([[[1.0, 2.0], [1.0, -3.0]]]))
    Array([[3., 0.]], dtype=float32)
    """
    weighted = weigh(weights, activations)
    return weighted if is_map(weights, activations) else positive_part(weighted)


def weigh(
    weights: Float[Array, "*weights_shape"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*spatial"]:
    """The same without the ReLU: `sum_k w_k A_k`. Arguments and errors as for `combine`."""
    if is_map(weights, activations):
        return accumulated(weights)
    channelwise = (1,) * (activations.ndim - 1) + activations.shape[-1:]
    if weights.shape not in (channelwise, activations.shape):
        raise ValueError(
            f"a method returned weights of shape {weights.shape}; wanted {channelwise} (one per "
            f"channel), {activations.shape} (one per activation), or a map {activations.shape[:-1]}"
        )
    weighted = accumulated(weights) * accumulated(activations)
    return lax.reduce_sum(weighted, axes=(activations.ndim - 1,))


def is_map(
    weights: Float[Array, "*weights_shape"], activations: Float[Array, "*spatial K"]
) -> bool:
    """Whether a method returned a map in place of weights."""
    return weights.shape == activations.shape[:-1]


def upsample(
    cam: Float[Array | np.ndarray, "*spatial"], shape: tuple[int, ...]
) -> Float[Array, "*size"]:
    """Resizes a map to `shape` by linear interpolation between pixel centres.

    The convention is that of OpenCV and of PyTorch without `align_corners`: no smoothing where
    a map shrinks, edge values repeated outside the outermost centres. No value leaves the range
    of the map, so that a flat one stays flat. In float32 at least. A `shape`
    with another number of axes is a ValueError.

    >>> jaxcam.upsample(jnp.array([0.0, 1.0]), (4,))
    Array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    resized = cam = accumulated(jnp.asarray(cam))
    if cam.ndim != len(shape):
        raise ValueError(f"got a map {list(cam.shape)} to resize to {shape}; wanted as many axes")
    pairs = [*zip(cam.shape, shape, strict=True)]
    lines = {pair: _lines(*pair, cam.dtype) for pair in pairs}  # a square map has one for both axes
    for pair in pairs:  # each turn takes the first axis away and adds its like as the last
        resized = lax.dot_general(resized, lines[pair], (([0], [0]), ([], [])), precision="highest")
    low, high = extremes(cam)
    return lax.min(lax.max(resized, low), high)  # beyond it are rounding errors alone


def _lines(old: int, new: int, dtype: np.dtype) -> Float[Array, "old new"]:
    """The share that each of `old` pixels has in each of `new` ones, of linear interpolation.

    Where the new ones lie is worked out in float64, so that only the sum rounds; and the program,
    which traces faster than that of `jax.image.resize`, holds vectors and no matrix.
    """
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    before = place.astype(np.int32)
    share = (place - before).astype(dtype)  # of the pixel after
    pixel = lax.broadcasted_iota(np.int32, (old, new), 0)

    def for_each_pixel(of_new: np.ndarray) -> Array:
        return lax.broadcast_in_dim(of_new, (old, new), (1,))

    is_after = lax.eq(pixel, for_each_pixel(before + 1))
    after = lax.select(is_after, for_each_pixel(share), lax.full((old, new), 0, dtype))
    return lax.select(lax.eq(pixel, for_each_pixel(before)), for_each_pixel(1 - share), after)


def unit_range(values: Float[Array | np.ndarray, "*size"]) -> Float[Array, "*size"]:
    """Moves and scales an array to [0, 1]: its minimum to 0, its maximum to 1 or just below.

    A flat array has no range (0/0): it becomes all 0; so does one whose values are neighbours
    among the numbers of its dtype, within 2 units in the last place of the largest, since they
    differ by rounding. A NaN or an infinity anywhere makes all of it NaN. In float32 at least.

    >>> jaxcam.unit_range(jnp.array([2.0, 3.0, 4.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    values = accumulated(jnp.asarray(values))
    low, high = extremes(values)
    finite = all_finite(values)
    flat = _are_alike(low, high, finite)
    scaled = lax.div(lax.sub(values, low), replaced(lax.sub(high, low), flat, 1))
    scaled = lax.min(scaled, lax.full_like(scaled, 1))  # on a GPU x / x may be above 1
    return lax.mul(replaced(scaled, flat, 0), nan_where(lax.bitwise_not(finite), values.dtype))


def is_flat(values: Float[Array, "*size"]) -> Bool[Array, ""]:
    """Whether the values differ by no more than rounding."""
    return _are_alike(*extremes(values), all_finite(values))


def _are_alike(low: Array, high: Array, finite: Bool[Array, ""]) -> Bool[Array, ""]:
    """Whether values between these extremes, if all are finite, differ by rounding alone."""
    units = low.dtype.type(2 * jnp.finfo(low.dtype).eps)
    rounding = lax.mul(units, lax.max(lax.abs(low), lax.abs(high)))
    alike = lax.le(lax.sub(high, low), rounding)
    return lax.bitwise_and(alike, finite)  # a NaN can be lost; and inf <= inf


def sound(cam: Float[Array, "*spatial"], *seen: Float[Array, "..."]) -> Float[Array, "*spatial"]:
    """The map, and NaN where there is none: an image, activations or a score are not finite.

    Not every method would show it: some look at no score, a comparison with NaN is false, and a
    ReLU on a CPU may make it 0.
    """
    finite = functools.reduce(lax.bitwise_and, map(all_finite, seen))
    return lax.mul(cam, nan_where(lax.bitwise_not(finite), cam.dtype))


def flatness(
    weights: Float[Array, "*weights_shape"],
    activations: Float[Array, "*spatial K"],
    cam: Float[Array, "*spatial"],
) -> Int32[Array, ""]:
    """Why a map is flat, as an index of `REASONS`; 0 where it is not."""
    low, high = extremes(cam)
    alike = _are_alike(low, high, all_finite(cam))
    reason = np.int32(4)
    for index, holds in (
        (3, lax.eq(high, high.dtype.type(0))),
        (2, all_zero(activations)),
        (1, all_zero(weights)),
        (0, lax.bitwise_not(alike)),
    ):
        reason = lax.select(holds, np.int32(index), reason)
    return reason


REASONS = (
    None,
    "all weights are 0: no gradient passes or is kept, or all they weigh has no share in the score",
    "all activations of the layer are 0",
    "the weighted sum of the activations is nowhere positive, and ReLU takes the rest",
    "it has one value everywhere",
)
