"""Derivatives of a scalar function along each coordinate alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jaxcam._src.base import Derivatives
from jaxcam._src.derivatives import exact
from jaxcam._src.derivatives.structure import Structure, check, structure

__all__ = ["Structure", "closed_form", "derivatives", "structure"]


def derivatives(
    f: Callable[[Array], Array],
    x: ArrayLike,
    *,
    at: ArrayLike | None = None,
    chunk_size: int = 256,
) -> Derivatives:
    """Exact pure first, second and third derivatives along each coordinate of `x`.

    They are the derivatives that JAX's automatic differentiation defines: zero at the kinks of
    piecewise linear functions, whatever a `custom_jvp` says elsewhere. The program of `f` is read
    for structure, and the cheapest way taken that it proves exact; `jaxcam.structure` tells which:

    - piecewise linear: the gradient, and zeros.
    - pooled first (a global pool, then anything): one direction for each pooled number.
    - local (convolutions and activations), then piecewise linear: positions that no element after
      the last smooth step sees two of share a direction.
    - local, then pooled, then anything: the same directions, and the rest once for each activation.
      Attention whose query does not move, that of a class token or a probe, is such a pool. Several
      pools that together nothing passes are one, and so are products over positions, such as a
      Gram matrix. What all positions share, such as a gate, a context that is added, or the numbers
      of a norm, is taken out of a pool where only piecewise linear steps are between, such as ReLU:
      then the gate is a pool beside it. So are the mean and the mean square of a variance.
    - local but for a gate, then pooled: where a linear pool of `x` is fed back to the positions, as
      squeeze-and-excitation does, the same and one more direction for each channel.
      Attention whose query moves with such a pool counts here.
    - local but for pools fed back, then pooled: where the pools are of local fields, as in gates
      behind an activation function and in norms over positions, and an activation moves four of
      their numbers at most: the derivatives along it and these, mixed. With one such gate that is
      five directions for each channel and colour, with more pools more.
    - piecewise linear first (then a softmax, say): the Jacobian of that part, row by row, then the
      rest once for each activation.
    - dense: one direction for each number of `x`. So is a function with mutable refs, or with a
      `custom_jvp` whose rule computes its value without a call of its function.

    Along a direction the second and third derivative of the result take one sweep forward and one
    back where that is proved, and nested forward derivatives where not. Where the gradient of `f`
    is NaN, as that of `where(x > 0, sqrt(x), 0)` is at 0, those of sweeps may be NaN, too.

    Args:
      f: a scalar function of `x`, three times differentiable by JAX.
      x: the point, `[*positions, channels]`, n numbers. Other layouts give the same result; they
        show less structure.
      at: along which coordinates alone: their flat indices, in `[0, n)`, in any shape, such as
        `numpy.ravel_multi_index((rows, columns, channels), x.shape)`. They cost a direction each,
        or what all cost where that is fewer directions. None is all coordinates.
      chunk_size: directions evaluated at once, or fewer where a sweep holds more. Memory is that of
        so many nested derivatives of `f`, and for "piecewise linear first" the Jacobian. The result
        does not depend on it.

    Returns:
      `Derivatives`, each entry with the shape of `x`, or of `at`, in the dtype of `x` or float32 if
      that is smaller. Inside a trace an index out of range cannot be refused, and gives NaN.

    Raises:
      ValueError: `x` is no floating-point array, `f(x)` is no real scalar, `at` holds anything but
        indices of `x`, or `chunk_size` is below 1; `f` has both a `custom_vjp` and a `while_loop`,
        which no mode of differentiation passes.

    >>> jaxcam.derivatives(lambda x: jnp.sum(x**3), jnp.array([2.0])).second
    Array([12.], dtype=float32)
    """
    x = jnp.asarray(x)
    check(f, x)
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts directions, so choose 1 or more")
    if at is None:
        return exact.cheapest(f, x, chunk_size)
    return exact.chosen(f, x, _indices(at, x.size), chunk_size)


def closed_form(f: Callable[[Array], Array], x: Float[Array, "*shape"]) -> Derivatives:
    """The derivatives of a piecewise linear function: its gradient, and zeros.

    Exact for such a function alone. Under any other it is the assumption by which Grad-CAM++
    arrives at eq. 19 of the paper (Chattopadhay et al. 2018, https://arxiv.org/abs/1710.11063).

    >>> jaxcam.closed_form(lambda x: jnp.sum(x**3), jnp.array([2.0])).second
    Array([0.], dtype=float32)
    """
    return exact.linear(f, x)


def _indices(at: ArrayLike, size: int) -> Int[Array, "*at"]:
    """Refuses what is no index, where its value is known: not inside a trace."""
    dtype, is_empty = jnp.asarray(at).dtype, not np.size(at)  # which NumPy takes for floats
    if not (is_empty or jnp.issubdtype(dtype, jnp.integer)):
        raise ValueError(f"at is of dtype {dtype}; wanted flat indices of x, integers")
    try:
        known = np.ravel(at).tolist()
    except jax.errors.TracerArrayConversionError:
        known = []
    wrong = [index for index in known if not 0 <= index < size]
    if wrong:
        raise ValueError(
            f"at holds {wrong[0]}; x has the flat indices 0 to {size - 1}. For indices along its "
            "axes use numpy.ravel_multi_index(indices, x.shape)"
        )
    return jnp.asarray(at, int)
