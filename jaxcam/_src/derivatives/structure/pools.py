"""Pools: variables each of whose numbers is a piecewise linear sum over columns of local fields."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.colours import Colours, Grid, grid
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.walk import walk


class LocalPooled(NamedTuple):
    """Smooth steps that see a neighbourhood, then a piecewise linear pool, whatever becomes of it.

    Attributes:
      fields: all variables that enter the pool, as matrices.
      positions: colours of the positions.
      channels: colours of the channels.
      waist: the variable of the pooled numbers.
      numbers: of each field, the pooled number that each column enters; -1 where it enters none.
    """

    fields: dict[Any, Grid]
    positions: Colours
    channels: Colours
    waist: Any
    numbers: dict[Any, Int[np.ndarray, " columns"]]


def grid_of(program: Program, v: Any) -> Grid | None:
    """Lays out a variable of a program by what it sees of the point; None where it is too large."""
    return grid(v.aval.shape, program.positions[v], program.channels[v])


def laid_out(program: Program, fields: Sequence[Any]) -> dict[Any, Grid] | None:
    """Lays out all of the fields; None where one cannot be, or does not move."""
    if len(program.moving(fields)) < len(fields):
        return None
    laid = {v: g for v in fields if (g := grid_of(program, v)) is not None}
    return laid if len(laid) == len(fields) else None


def numbers_of(
    program: Program, laid: dict[Any, Grid], waist: Any
) -> dict[Any, Int[np.ndarray, " columns"]] | None:
    """Of each field which number of the waist each column enters; None where one enters several."""
    fields = [*laid]
    pool, others = program.part(fields, [waist])
    found = {}
    for field in fields:
        size = field.aval.shape
        columns = [a for a in range(len(size)) if a not in laid[field].rows]
        start = relations.identity(size, columns)
        inputs = [start if v is field else None for v in fields]
        (seen,) = walk(pool, [*inputs, *(None for _ in others)]).relations
        if seen is None or waist.aval.size * seen.shape[-1] > relations.LARGEST:
            return None
        seen = np.broadcast_to(seen, (*waist.aval.shape, seen.shape[-1]))
        seen = seen.reshape(waist.aval.size, -1)
        if seen.sum(0).max() > 1:
            return None
        found[field] = np.where(seen.any(0), seen.argmax(0), -1)
    return found
