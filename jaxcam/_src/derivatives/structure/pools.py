"""Pools: variables each of whose numbers is a piecewise linear sum over columns of local fields.

How that is proved, and by which weights the fields are summed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.colours import Colours, Grid, at_least, colour, grid
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.walk import walk

Numbers: TypeAlias = Int[np.ndarray, "groups columns"]  # that the columns of a field enter
_MOST_GROUPS = 8  # of pooled numbers; each group is pooled by itself


class LocalPooled(NamedTuple):
    """Smooth steps that see a neighbourhood, then a piecewise linear pool, whatever becomes of it.

    Attributes:
      fields: all variables that enter the pool, as matrices.
      positions: colours of the positions.
      channels: colours of the channels.
      waist: the variable of the pooled numbers.
      numbers: of each field, the pooled numbers that each column enters, one of each group of
        them, `[groups, columns]`; -1 where it enters none.
    """

    fields: dict[Any, Grid]
    positions: Colours
    channels: Colours
    waist: Any
    numbers: dict[Any, Numbers]


def grid_of(program: Program, v: Any) -> Grid | None:
    """Lays out a variable of a program by what it sees of the point; None where it is too large."""
    return grid(v.aval.shape, program.positions[v], program.channels[v])


def laid_out(program: Program, fields: Sequence[Any]) -> dict[Any, Grid] | None:
    """Lays out all of the fields; None where one cannot be, or does not move."""
    if len(program.moving(fields)) < len(fields):
        return None
    laid = {v: g for v in fields if (g := grid_of(program, v)) is not None}
    return laid if len(laid) == len(fields) else None


def numbers_of(program: Program, laid: dict[Any, Grid], waist: Any) -> dict[Any, Numbers] | None:
    """Of each field which numbers of the waist each column enters, as `LocalPooled` holds them.

    None where it takes too many groups that a column enters one number of each at most, or where
    that is too large to prove.
    """
    known = {}
    for field in laid:
        enters = _enters(program, laid, field, waist)
        if enters is None or at_least([enters.T]) > _MOST_GROUPS:
            return None
        known[field] = enters
    groups = colour([enters.T for enters in known.values()])
    if groups.count > _MOST_GROUPS:
        return None
    masks = [groups.colour == group for group in range(groups.count)]
    return {
        field: np.array([_number_of(enters, mask) for mask in masks])
        for field, enters in known.items()
    }


def _number_of(
    enters: Bool[np.ndarray, "numbers columns"], mask: Bool[np.ndarray, " numbers"]
) -> Int[np.ndarray, " columns"]:
    """Which of some numbers each column enters; -1 where none."""
    some = enters & mask[:, None]
    return np.where(some.any(0), some.argmax(0), -1)


def _enters(
    program: Program, laid: dict[Any, Grid], field: Any, waist: Any
) -> Bool[np.ndarray, "numbers columns"] | None:
    """Which numbers of the waist each column of a field enters; None where that is too large."""
    pool, others = program.part([*laid], [waist])
    size = field.aval.shape
    columns = [a for a in range(len(size)) if a not in laid[field].rows]
    start = relations.identity(size, columns)
    inputs = [start if v is field else None for v in laid]
    (seen,) = walk(pool, [*inputs, *(None for _ in others)]).relations
    if seen is None or waist.aval.size * seen.shape[-1] > relations.LARGEST:
        return None
    seen = np.broadcast_to(seen, (*waist.aval.shape, seen.shape[-1]))
    return seen.reshape(waist.aval.size, -1)


def slopes_of_groups(
    program: Program, numbers: dict[Any, Numbers], waist: Any
) -> list[list[Array]]:
    """Of each group of numbers, the weights by which they are summed of the fields."""
    groups = [np.unique(np.concatenate(each)) for each in zip(*numbers.values(), strict=True)]
    return [slopes_of(program, [*numbers], waist, group) for group in groups]


def slopes_of(
    program: Program, fields: Sequence[Any], sink: Any, numbers: Int[np.ndarray, " n"]
) -> list[Array]:
    """The gradient along the fields of the sum of some numbers, but -1; all between is linear."""
    part = program.between(fields, [sink])
    values = [program.values[v] for v in fields]
    chosen = numbers[numbers >= 0]
    return jax.grad(lambda values: part(*values)[0].reshape(-1)[chosen].sum())(values)


def weighed(derivative: Array, slope: Array) -> Array:
    """A field's derivative times its weight; 0 where that is, be the derivative NaN."""
    # What is finite is not replaced, since the weight may itself be differentiated.
    is_lost = (slope == 0) & ~jnp.isfinite(derivative)
    return slope * jnp.where(is_lost, 0, derivative)


def entered(values: Array, numbers: np.ndarray, size: int) -> Array:
    """Sums the columns `[slots, columns]` that enter each of so many numbers; -1 enters none."""
    order = np.argsort(numbers, kind="stable")[np.count_nonzero(numbers < 0) :]
    if not len(order):
        return jnp.zeros((len(values), size), values.dtype)
    reached, entering = np.unique(numbers[order], return_counts=True)
    nth = np.arange(entering.max())
    columns = order.take((entering.cumsum() - entering)[:, None] + nth, mode="clip")
    sums = _taken(values, np.where(nth < entering[:, None], columns, len(numbers))).sum(-1)
    place = np.full(size, len(reached))
    place[reached] = np.arange(len(reached))
    return _taken(sums, place)


def _taken(values: Array, index: np.ndarray) -> Array:
    """Takes columns; 0 where there is none of an index."""
    if np.array_equal(index.reshape(-1), np.arange(values.shape[1])):
        return values.reshape(len(values), *index.shape)  # the common case: a gather is slow
    return values.at[:, index].get(mode="fill", fill_value=0)
