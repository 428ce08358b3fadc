"""Derivatives of a scalar function along each coordinate alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxcam._src.base import Derivatives
from jaxcam._src.derivatives import exact


def derivatives(f: Callable[[Array], Array], x: ArrayLike, *, chunk_size: int = 256) -> Derivatives:
    """Exact pure first, second and third derivatives along each coordinate of `x`.

    They are the derivatives that JAX's automatic differentiation defines: zero at the kinks of
    piecewise linear functions, whatever a `custom_jvp` says elsewhere.

    Args:
      f: a scalar function of `x`, forward differentiable three times.
      x: the point, of n numbers.
      chunk_size: directions evaluated at once. Time is n directional evaluations, memory
        O(chunk_size * n); the result does not depend on it.

    Returns:
      `Derivatives`, each entry with the shape and dtype of `x`.

    Raises:
      ValueError: `x` is no floating-point array, `f(x)` is no scalar, or `chunk_size` is below 1.
      TypeError: `f` has a `custom_vjp`, which forward derivatives cannot pass; raised by JAX.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"derivatives at a point of dtype {x.dtype}; wanted floating-point numbers"
        )
    value = jax.eval_shape(f, x)
    if getattr(value, "shape", None) != ():
        raise ValueError(f"derivatives of a function that returned {value}; wanted a scalar")
    return exact.dense(f, x, chunk_size=chunk_size)


def closed_form(f: Callable[[Array], Array], x: Float[Array, "*shape"]) -> Derivatives:
    """The derivatives of a piecewise linear function: its gradient, and zeros.

    Exact for such a function alone. Under any other it is the assumption by which Grad-CAM++
    arrives at eq. 19 of the paper (Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063).
    """
    gradient = jax.grad(f)(x)
    return Derivatives(gradient, jnp.zeros_like(gradient), jnp.zeros_like(gradient))
