"""Derivatives along one direction or one curve, by nested forward derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam._src.base import Derivatives


def directional(f: Callable[[Array], Any], x: Array, direction: Array) -> Derivatives:
    """First, second and third derivative of `t -> f(x + t direction)` at 0."""

    def first(point):
        return jax.jvp(f, (point,), (direction,))[1]

    def first_and_second(point):
        return jax.jvp(first, (point,), (direction,))

    (d1, d2), (_, d3) = jax.jvp(first_and_second, (x,), (direction,))
    return Derivatives(d1, d2, d3)


def along_curve(
    f: Callable[[Array], Array], x: Array, first: Array, second: Array, third: Array
) -> Derivatives:
    """The derivatives of `t -> f(c(t))` at 0, for a curve `c` from `x` with these derivatives."""

    def d1(x, first):
        return jax.jvp(f, (x,), (first,))[1]

    def d2(x, first, second):
        return jax.jvp(d1, (x, first), (first, second))

    (y1, y2), (_, y3) = jax.jvp(d2, (x, first, second), (first, second, third))
    return Derivatives(y1, y2, y3)


def basis(index: Array, like: Array) -> Array:
    """The direction along one coordinate."""
    return jnp.zeros(like.size, like.dtype).at[index].set(1).reshape(like.shape)


def accumulated(values: Array) -> Array:
    """In float32 at least."""
    small = jnp.finfo(values.dtype).bits < 32
    return values.astype(jnp.float32) if small else values
