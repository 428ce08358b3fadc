"""How alike two maps are. All take two maps `[*spatial]` of one shape, and are symmetric."""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxcam._src.arithmetic import accumulated, as_floats, length, quotient


def pearson(a: ArrayLike, b: ArrayLike) -> Float[Array, ""]:
    """Pearson's correlation, in [-1, 1]. Two flat maps have 1, a flat one and another 0.

    Of maps of any scale; NaN where one of them holds NaN.
    """
    a, b = _alike(a, b)
    flat_a, flat_b = (m.max() == m.min() for m in (a, b))  # the mean of a flat map may be rounded
    a, b = (_unit(m - m.mean()) for m in map(_unit, (a, b)))
    correlation = quotient((a * b).sum(), length(a) * length(b)).clip(-1, 1)
    return jnp.where(flat_a & flat_b, 1, jnp.where(flat_a | flat_b, 0, correlation))


def spearman(a: ArrayLike, b: ArrayLike) -> Float[Array, ""]:
    """Spearman's rank correlation, in [-1, 1]; equal values share the mean of their ranks.

    NaN where one of the maps holds NaN.
    """
    a, b = _alike(a, b)
    return _unless_nan(pearson(_ranks(a), _ranks(b)), a, b)


def top_overlap(a: ArrayLike, b: ArrayLike, *, share: float = 0.2) -> Float[Array, ""]:
    """Intersection over union of the largest values of both maps, in [0, 1].

    Args:
      a: a map.
      b: the other.
      share: of the positions that count as top, in (0, 1]; ties with the last are taken too.

    Returns:
      The overlap; NaN where one of the maps holds NaN.

    Raises:
      ValueError: the share is none, or the maps are not alike.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; wanted one above 0, up to 1")
    a, b = _alike(a, b)
    tops = [m >= jnp.sort(m.reshape(-1))[-_count(share, m.size)] for m in (a, b)]
    return _unless_nan((tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum(), a, b)


def largest_difference(a: ArrayLike, b: ArrayLike) -> Float[Array, ""]:
    """The largest absolute difference at any position."""
    a, b = _alike(a, b)
    return abs(a - b).max()


def _alike(a: Any, b: Any) -> tuple[Array, Array]:
    """Both as floats, of one shape."""
    if jnp.shape(a) != jnp.shape(b):
        raise ValueError(
            f"maps of the shapes {jnp.shape(a)} and {jnp.shape(b)}; wanted two of one shape"
        )
    return as_floats(a), as_floats(b)


def _unit(values: Float[Array, "*size"]) -> Float[Array, "*size"]:
    """Scaled to a largest value of 1, so that no square overflows or vanishes."""
    return quotient(values, abs(values).max())


def _unless_nan(found: Array, *maps: Array) -> Array:
    return jnp.where(jnp.stack([jnp.isnan(m).any() for m in maps]).any(), jnp.nan, found)


def _count(share: float, size: int) -> int:
    """A share of the positions, rounded up, but not from 3.0000000000000004 to 4."""
    return math.ceil(round(share * size, 6))


def _ranks(values: Float[Array, "*size"]) -> Float[Array, " n"]:
    flat = values.reshape(-1)
    ordered = jnp.sort(flat)
    below, up_to = (
        jnp.searchsorted(ordered, flat, side=side, method="sort") for side in ("left", "right")
    )
    return (below + up_to).astype(accumulated(flat).dtype) / 2
