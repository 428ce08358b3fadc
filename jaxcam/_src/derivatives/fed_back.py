"""Heads with pools that are fed back: what moves these depends on where the activation is."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcam._src.base import Derivatives
from jaxcam._src.derivatives.directions import mixed
from jaxcam._src.derivatives.local import (
    einsum,
    gathered,
    mapped_along,
    pooling,
    result_along,
    rows_seeing,
)
from jaxcam._src.derivatives.structure import FedBack
from jaxcam._src.derivatives.structure.program import Program


def fed_back(
    f: Callable[[Array], Array], program: Program, case: FedBack, x: Array, chunk_size: int
) -> Derivatives:
    """Of each activation the curve of every pool, one after the other, and the result on the last.

    The activations of a channel move the same few numbers of the pools that are fed back, each on
    curves of its own. So the fields are followed for all activations of a colour at once, along the
    activations and those numbers, every three of them mixed; the chain rule joins what a curve asks
    for.
    """
    last = case.pools[-1]
    follow_fns = [_following(program, case, place, x) for place in range(len(case.pools))]
    along_curves = result_along(program, last)

    def along(index):
        curves = []
        for follow_fn in follow_fns:
            curves.append(follow_fn(*jnp.divmod(index, last.channels.count), curves))
        second, third = along_curves(curves[-1])
        return [second[:, None], third[:, None]]

    copies = max(len(_triples(case.moving_by(place))) for place in range(len(case.pools)))
    found = mapped_along(along, program, last, chunk_size, copies=copies)
    return gathered(f, x, last, found)


def _following(program: Program, case: FedBack, place: int, x: Array) -> Callable[..., list]:
    """Makes `(colour, channel, curves of the pools before) -> curve of a pool`.

    A curve is its first, second and third derivative, each `[slots, *waist]`.
    """
    pool, sources, count = case.pools[place], case.sources[place], case.moving_by(place)
    fields_of, pooled = _fields(program, case, place, x), pooling(program, pool)
    rows_of, everywhere = rows_seeing(pool)

    def follow(colour, channel, curves):
        indices = [jnp.asarray(case.moved[source])[channel] for source in sources]
        fields, rows = fields_of(colour, channel, indices), rows_of(colour)

        def derivatives(three):
            basis = jnp.eye(count, dtype=x.dtype)
            jets = mixed(fields, jnp.zeros(count, x.dtype), *basis[three])
            is_own = three[0] == 0  # the activations, of a triple in order, are the first
            return [jnp.where(is_own, pooled(jet, rows), pooled(jet, everywhere)) for jet in jets]

        jets = jax.vmap(derivatives)(jnp.array(_triples(count)))
        jets = [jet[at] for jet, at in zip(jets, _places(count), strict=True)]
        before, slots = [curves[source] for source in sources], pool.positions.members.shape[1]
        return _chained(jets, _steps(before, indices, slots))

    return follow


def _fields(program: Program, case: FedBack, place: int, x: Array) -> Callable[..., Callable]:
    """Makes `(colour, channel, indices that it moves of each source) -> fields of steps [n]`.

    The first step is that of the activations, the others are those of the numbers.
    """
    pool = case.pools[place]
    gates = [case.pools[source].waist for source in case.sources[place]]
    to_fields = program.between([program.point, *gates], [*pool.fields])
    values = [program.values[gate] for gate in gates]
    ends = np.cumsum([1, *(case.moved[source].shape[1] for source in case.sources[place])])

    def fields_of(colour, channel, indices):
        moving = (pool.positions.colour == colour).reshape(x.shape[:-1]).astype(x.dtype)
        direction = jnp.zeros_like(x).at[..., channel].set(moving)

        def fields(steps):
            (step,), *others, _ = jnp.split(steps, ends)
            return to_fields(x + step * direction, *map(_stepped, values, indices, others))

        return fields

    return fields_of


def _stepped(value: Array, indices: Int[Array, " n"], steps: Float[Array, " n"]) -> Array:
    """A value, some of whose numbers take a step."""
    steps = steps.astype(value.dtype)
    return value.reshape(-1).at[indices].add(steps, mode="drop").reshape(value.shape)


def _steps(curves: list, indices: list, slots: int) -> list[Float[Array, "n slots"]]:
    """The derivatives of all that moves with the activation of a slot, itself the first."""
    dtype = np.result_type(np.float32, *(curve[0].dtype for curve in curves))
    own = [jnp.full((1, slots), order == 1, dtype) for order in (1, 2, 3)]
    taken = [
        [_picked(derivative, each).astype(dtype) for derivative in curve]
        for curve, each in zip(curves, indices, strict=True)
    ]
    return [jnp.concatenate(each) for each in zip(own, *taken, strict=True)]


def _picked(values: Float[Array, "slots *waist"], indices: Int[Array, " n"]) -> Array:
    """Some numbers of a pool, `[n, slots]`; 0 where there is none."""
    return values.reshape(len(values), -1).T.at[indices].get(mode="fill", fill_value=0)


def _chained(jets: list[Array], steps: list[Float[Array, "n slots"]]) -> list[Array]:
    """Faa di Bruno's formula: derivatives along a curve, from those by what moves on it.

    Args:
      jets: the first derivatives `[n, slots, *waist]`, the second `[n, n, ..]`, and the third.
      steps: the derivatives of the curve.
    """
    (by_one, by_two, by_three), (first, second, third) = jets, steps

    def along(jet: Array, *each: Array) -> Array:
        letters = "ijk"[: len(each)]
        others = ",".join(f"{letter}s" for letter in letters)
        return einsum(f"{letters}s...,{others}->s...", jet, *each)

    return [
        along(by_one, first),
        along(by_two, first, first) + along(by_one, second),
        along(by_three, first, first, first)
        + 3 * along(by_two, first, second)
        + along(by_one, third),
    ]


def _triples(n: int) -> list[tuple[int, ...]]:
    """All triples of `n` that are in order, with repetition."""
    return [*itertools.combinations_with_replacement(range(n), 3)]


def _places(n: int) -> list[Int[np.ndarray, "..."]]:
    """Of one of `n`, of two, and of three, in any order, a triple that starts with them."""
    number = {triple: place for place, triple in enumerate(_triples(n))}

    def places(order: int) -> Int[np.ndarray, "..."]:
        filled = [(*sorted(some), *(n - 1,) * (3 - order)) for some in np.ndindex(*(n,) * order)]
        return np.reshape([number[triple] for triple in filled], (n,) * order)

    return [places(order) for order in (1, 2, 3)]
