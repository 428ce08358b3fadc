"""What the sums and quotients of the library keep: float32 at least, 0 for 0/0, no NaN slope.

What every map passes is written in `jax.lax`: a function of `jax.numpy` is a program of its own,
and tracing dozens of them takes longer than tracing a small model.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped


def accumulated(values: Array) -> Array:
    """In float32 at least."""
    small = jnp.finfo(values.dtype).bits < 32
    return values.astype(jnp.float32) if small else values


def as_floats(values: ArrayLike) -> Array:
    """The same for values of any dtype: integers as floats."""
    array = jnp.asarray(values)
    is_real = jnp.issubdtype(array.dtype, jnp.floating)
    return accumulated(array if is_real else array.astype(jnp.float32))


def replaced(
    values: Shaped[Array, "*shape"], where: Bool[Array, "..."], by: float | int
) -> Shaped[Array, "*shape"]:
    """The values, and one number where a condition holds, which has their shape or is a scalar."""
    return lax.select(where, lax.full_like(values, by), values)


def positive_part(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The ReLU, whose derivative at 0 is 0; NaN stays NaN."""
    zeros = lax.full_like(values, 0)
    return lax.select(lax.le(values, zeros), zeros, values)


def mean_over_positions(values: Float[Array, "*spatial K"]) -> Float[Array, "*ones K"]:
    """The mean of each channel, in float32 at least."""
    values = accumulated(values)
    positions = range(values.ndim - 1)
    sums = lax.reduce_sum(values, axes=positions)
    count = lax.full_like(sums, math.prod(values.shape[:-1]))
    return lax.expand_dims(lax.div(sums, count), positions)


def nan_where(where: Bool[Array, ""], dtype: Any) -> Float[Array, ""]:
    """NaN where a condition holds, else 1: a factor, so that the gradient is NaN too.

    Nothing is NaN on the way to 1, which `jax_debug_nans` would take for a fault.
    """
    return lax.select(where, np.asarray(np.nan, dtype), np.asarray(1, dtype))


def all_finite(values: Float[Array, "..."]) -> Bool[Array, ""]:
    """Whether there is no NaN and no infinity."""
    return lax.reduce_and(lax.is_finite(values), axes=range(values.ndim))


def all_zero(values: Shaped[Array, "..."]) -> Bool[Array, ""]:
    """Whether every value is 0, or -0."""
    return lax.reduce_and(lax.eq(values, lax.full_like(values, 0)), axes=range(values.ndim))


def extremes(values: Float[Array, "..."]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The least and the largest. On a CPU those of a large array can lose a NaN."""
    axes = range(values.ndim)
    return lax.reduce_min(values, axes=axes), lax.reduce_max(values, axes=axes)


def quotient(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Array:
    """The quotient, broadcast, and 0 where the denominator is 0; in float32 at least."""
    numerator, denominator = accumulated(numerator), accumulated(denominator)
    zero = denominator == 0
    return jnp.where(zero, 0, numerator / jnp.where(zero, 1, denominator))


def length(values: Float[Array, "..."], axis: int | None = None) -> Float[Array, "..."]:
    """The Euclidean norm, whose gradient at 0 is 0: that of the square root is infinite there."""
    squares = jnp.sum(accumulated(values) ** 2, axis=axis)
    return jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
