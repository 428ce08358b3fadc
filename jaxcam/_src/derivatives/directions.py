"""Derivatives along one direction or one curve, by nested forward derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.base import Derivatives


def directional(f: Callable[[Any], Any], x: PyTree, direction: PyTree) -> Derivatives:
    """First, second and third derivative of `t -> f(x + t direction)` at 0."""
    return mixed(f, x, direction, direction, direction)


def mixed(f: Callable[[Any], Any], x: PyTree, u: PyTree, v: PyTree, w: PyTree) -> Derivatives:
    """The derivatives of a function along `u`, along `u` and `v`, and along all three."""

    def first(point):
        return jax.jvp(f, (point,), (u,))[1]

    def first_and_second(point):
        return jax.jvp(first, (point,), (v,))

    (d1, d2), (_, d3) = jax.jvp(first_and_second, (x,), (w,))
    return Derivatives(d1, d2, d3)


def along_curve(
    f: Callable[[Array], Array], x: Array, first: Array, second: Array, third: Array
) -> Derivatives:
    """The derivatives of `t -> f(c(t))` at 0, for a curve `c` from `x` with these derivatives.

    Nothing is taken for granted of the order of differentiation: under a rule that is no gradient,
    such as that of a quantiser, second derivatives are not symmetric.
    """

    def on_curve(t):
        return f(x + (t * (first + t * second / 2)).astype(x.dtype))

    start = jnp.zeros((), first.dtype)
    d1, d2, d3 = directional(on_curve, start, jnp.ones_like(start))
    _, of_third = jax.jvp(f, (x,), (third.astype(x.dtype),))  # which reaches no other, be it NaN
    return Derivatives(d1, d2, d3 + of_third)


def basis(index: Array, like: Array) -> Array:
    """The direction along one coordinate."""
    return jnp.zeros(like.size, like.dtype).at[index].set(1).reshape(like.shape)
