"""How alike two maps are. All take maps `[*spatial]` of one shape and are symmetric."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, quotient


def pearson(a: Float[Array, "*size"], b: Float[Array, "*size"]) -> Float[Array, ""]:
    """Pearson's correlation, in [-1, 1]. Two flat maps have 1, a flat one and another 0."""
    flat_a, flat_b = (m.max() == m.min() for m in (a, b))  # the mean of a flat map may be rounded
    a, b = (m - m.mean() for m in map(accumulated, (a, b)))
    norms = jnp.sqrt((a**2).sum()) * jnp.sqrt((b**2).sum())
    correlation = quotient((a * b).sum(), norms).clip(-1, 1)
    return jnp.where(flat_a & flat_b, 1, jnp.where(flat_a | flat_b, 0, correlation))


def spearman(a: Float[Array, "*size"], b: Float[Array, "*size"]) -> Float[Array, ""]:
    """Spearman's rank correlation, in [-1, 1]; equal values share the mean of their ranks."""
    return pearson(_ranks(a), _ranks(b))


def top_overlap(
    a: Float[Array, "*size"], b: Float[Array, "*size"], *, share: float = 0.2
) -> Float[Array, ""]:
    """Intersection over union of the largest values of both maps, in [0, 1].

    Args:
      a: a map.
      b: the other.
      share: of the positions that count as top, in (0, 1]; ties with the last are taken too.
    """
    tops = [m >= jnp.sort(m.reshape(-1))[-_count(share, m.size)] for m in (a, b)]
    return (tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum()


def largest_difference(a: Float[Array, "*size"], b: Float[Array, "*size"]) -> Float[Array, ""]:
    """The largest absolute difference at any position."""
    return abs(accumulated(a) - accumulated(b)).max()


def _count(share: float, size: int) -> int:
    """A share of the positions, rounded up, but not from 3.0000000000000004 to 4."""
    return math.ceil(round(share * size, 6))


def _ranks(values: Float[Array, "*size"]) -> Float[Array, " n"]:
    flat = values.reshape(-1)
    ordered = jnp.sort(flat)
    below, up_to = (jnp.searchsorted(ordered, flat, side=side) for side in ("left", "right"))
    return (below + up_to).astype(accumulated(flat).dtype) / 2
