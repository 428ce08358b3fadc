"""Derivatives along one direction or one curve, by nested forward derivatives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.arithmetic import accumulated
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

    With the gradient `g` and the derivatives `D` along `c1` they are, by the chain rule, `D1`,
    `D2 + g c2` and `D3 + D(c1, c2) + 2 D(c2, c1) + g c3`, where `D(u, v)` is along `u`, then `v`:
    under a rule that is no gradient, such as that of a quantiser, it is not symmetric.
    """

    def along(u, v):
        return accumulated(jax.jvp(lambda point: jax.jvp(f, (point,), (u,))[1], (x,), (v,))[1])

    gradient = accumulated(jax.grad(f)(x))
    linear = [jnp.vdot(gradient, accumulated(curve)) for curve in (second, third)]
    first, second = (curve.astype(x.dtype) for curve in (first, second))
    d1, d2, d3 = map(accumulated, directional(f, x, first))
    linear = [value.astype(d1.dtype) for value in linear]  # f may have another dtype than x
    mixtures = along(first, second) + 2 * along(second, first)
    return Derivatives(d1, d2 + linear[0], d3 + mixtures + linear[1])


def basis(index: Array, like: Array) -> Array:
    """The direction along one coordinate."""
    return jnp.zeros(like.size, like.dtype).at[index].set(1).reshape(like.shape)
