"""Pools that are fed back to the positions: gates and norms, whose numbers move on curves."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.colours import Grid, colour, distinct
from jaxcam._src.derivatives.structure.pools import LocalPooled, Numbers, laid_out, numbers_of
from jaxcam._src.derivatives.structure.program import Program

_MOST = 4  # numbers of fed back pools that one activation moves


class FedBack(NamedTuple):
    """As `LocalPooled`, but for pools of local fields that are fed back to the positions.

    Attributes:
      pools: the fields of each see a neighbourhood where the pools before it stay as they are. The
        last leads to the result, the others are fed back.
      sources: of each pool, which of those before it its fields see.
      moved: of each pool that is fed back, its numbers, flat, that the activations of each channel
        move, `[channels, most]`; padded with its size, which no number has.
    """

    pools: list[LocalPooled]
    sources: list[list[int]]
    moved: list[Int[np.ndarray, "channels most"]]

    def moving_by(self, place: int) -> int:
        """By how many directions the fields of a pool move: the activations, and those numbers."""
        return 1 + sum(self.moved[source].shape[1] for source in self.sources[place])

    @property
    def directions(self) -> int:
        """Along which fields are followed; a mixture of three counts as one."""
        colours = self.pools[-1].positions.count * self.pools[-1].channels.count
        return colours * sum(math.comb(self.moving_by(i) + 2, 3) for i in range(len(self.pools)))


class _Gate(NamedTuple):
    """A pool that is fed back: its variable, and what `LocalPooled` and `FedBack` say of it."""

    waist: Any
    fields: dict[Any, Grid]
    numbers: dict[Any, Numbers]
    moved: Int[np.ndarray, "channels most"]


def fed_back(program: Program, sinks: Sequence[Any], below: int) -> FedBack | None:
    """The case in which pools are fed back, if there is one that takes fewer directions.

    Pools are held as they are one by one, in the order of the program, until the rest is local.
    """
    gates, held = [], program
    while (pool := _first_pool(held)) is not None:
        gate = _gate(program, held, pool)
        if gate is None:
            return None
        gates.append(gate)
        if sum(g.moved.shape[1] for g in gates) > _MOST:
            return None
        held = program.holding([g.waist for g in gates])
        if not held.moving([held.result]):
            return None
        for sink in sinks:
            fields = _fields(held, program.frontier(sink), [g.waist for g in gates])
            if fields and (case := _case(program, gates, sink, fields, below)):
                return case
    return None


def _fields(held: Program, frontier: Sequence[Any], gates: Sequence[Any]) -> dict[Any, Grid] | None:
    """Lays out what enters the last pool: also a gate, which sees nothing where it is held."""
    fields = laid_out(held, [v for v in frontier if v not in gates])
    positions, channels = (seen[held.point].shape[-1] for seen in (held.positions, held.channels))

    def of_gate(v: Any) -> Grid:
        return Grid((), np.zeros((1, positions), bool), np.zeros((v.aval.size, channels), bool))

    return fields and fields | {v: of_gate(v) for v in frontier if v in gates}


def _first_pool(program: Program) -> Any:
    """The first variable without positions of its own that is made of some with positions.

    None where its equation has another result that moves: to hold one would hold the other too.
    """
    for eqn in program.jaxpr.eqns:
        made = program.moving(eqn.outvars)
        taken = program.moving(eqn.invars)
        if any(map(program.is_pooled, made)) and not any(map(program.is_pooled, taken)):
            return made[0] if len(made) == 1 else None
    return None


def _gate(program: Program, held: Program, pool: Any) -> _Gate | None:
    fields, moved = laid_out(held, program.frontier(pool)), _moved(program, pool)
    if fields is None or moved is None:
        return None
    numbers = numbers_of(program, fields, pool)
    return _Gate(pool, fields, numbers, moved) if numbers else None


def _moved(program: Program, pool: Any) -> Int[np.ndarray, "channels most"] | None:
    """The numbers of a pool that each channel of the point moves; None where that is too large."""
    seen = program.channels[pool]
    size, labels = pool.aval.size, seen.shape[-1]
    if size * labels > relations.LARGEST:
        return None
    sees = np.broadcast_to(seen, (*pool.aval.shape, labels)).reshape(size, labels).T
    first = np.argsort(~sees, axis=1, kind="stable")[:, : sees.sum(1).max()]
    return np.where(np.take_along_axis(sees, first, axis=1), first, size)


def _case(
    program: Program, gates: Sequence[_Gate], sink: Any, fields: dict[Any, Grid], below: int
) -> FedBack | None:
    """The case in which what is left when the gates are held leads to a sink, if it is cheaper."""
    laid = [*(gate.fields for gate in gates), fields]
    positions = colour([grid.positions for each in laid for grid in each.values()])
    colours = positions, distinct(program.channels[program.point].shape[-1])
    sources = [
        [i for i, gate in enumerate(gates) if program.leads(gate.waist, [*each])] for each in laid
    ]
    pools = [LocalPooled(gate.fields, *colours, gate.waist, gate.numbers) for gate in gates]
    last = LocalPooled(fields, *colours, sink, {})
    case = FedBack([*pools, last], sources, [gate.moved for gate in gates])
    is_taken = case.directions < below and program.is_symmetric(program.upstream[sink])
    numbers = numbers_of(program, fields, sink) if is_taken else None
    return case._replace(pools=[*pools, last._replace(numbers=numbers)]) if numbers else None
