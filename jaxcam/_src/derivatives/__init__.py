"""Derivatives of a scalar function along each coordinate alone."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxcam._src.base import Derivatives
from jaxcam._src.derivatives import exact
from jaxcam._src.derivatives.structure import Structure, check, structure

__all__ = ["Structure", "closed_form", "derivatives", "structure"]


def derivatives(f: Callable[[Array], Array], x: ArrayLike, *, chunk_size: int = 256) -> Derivatives:
    """Exact pure first, second and third derivatives along each coordinate of `x`.

    They are the derivatives that JAX's automatic differentiation defines: zero at the kinks of
    piecewise linear functions, whatever a `custom_jvp` says elsewhere. The program of `f` is read
    for structure, and the cheapest way taken that it proves exact; `jaxcam.structure` tells which:

    - piecewise linear: the gradient, and zeros.
    - pooled first (a global pool, then anything): one direction for each pooled number.
    - local (convolutions and activations), then piecewise linear: positions that no element after
      the last smooth step sees two of share a direction.
    - local, then pooled, then anything: the same directions, and the rest once for each activation.
    - piecewise linear first (then a softmax, say): the Jacobian of that part, row by row, then the
      rest once for each activation.
    - dense: one direction for each number of `x`.

    Args:
      f: a scalar function of `x`, three times differentiable by JAX.
      x: the point, `[*positions, channels]`, n numbers. Other layouts give the same result; they
        show less structure.
      chunk_size: directions evaluated at once. Memory is that of so many evaluations of `f`, and
        for "piecewise linear first" the Jacobian. The result does not depend on it.

    Returns:
      `Derivatives`, each entry with the shape of `x`, in its dtype or float32 if that is smaller.

    Raises:
      ValueError: `x` is no floating-point array, `f(x)` is no scalar, or `chunk_size` is below 1;
        `f` has both a `custom_vjp` and a `while_loop`, which no mode of differentiation passes.
    """
    x = jnp.asarray(x)
    check(f, x)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts directions, so choose 1 or more")
    return exact.cheapest(f, x, chunk_size)


def closed_form(f: Callable[[Array], Array], x: Float[Array, "*shape"]) -> Derivatives:
    """The derivatives of a piecewise linear function: its gradient, and zeros.

    Exact for such a function alone. Under any other it is the assumption by which Grad-CAM++
    arrives at eq. 19 of the paper (Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063).
    """
    return exact.linear(f, x)
