"""Choosing the cheapest exact way to a function's derivatives that its program proves legal."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Int

from jaxcam._src.cut.programs import has_refs
from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.colours import Colours, Grid, colour, distinct, grid
from jaxcam._src.derivatives.structure.pooled_linear import pooled
from jaxcam._src.derivatives.structure.program import Program, read
from jaxcam._src.derivatives.structure.walk import UNCHAINED, walk


class Linear(NamedTuple):
    """Piecewise linear: the gradient is all there is."""


class Pooled(NamedTuple):
    """A piecewise linear step to fewer numbers, of which each activation reaches one at most.

    Attributes:
      waist: the variable of these numbers.
      reached: the index into them, flat, for each activation; -1 where it reaches none.
    """

    waist: Any
    reached: Int[np.ndarray, "*shape"]


class Local(NamedTuple):
    """Smooth steps that see a neighbourhood only, then piecewise linear ones to the result.

    Attributes:
      fields: the variables after the last smooth step, as matrices.
      positions: colours of the positions.
      channels: colours of the channels.
    """

    fields: dict[Any, Grid]
    positions: Colours
    channels: Colours


class LocalPooled(NamedTuple):
    """Smooth steps that see a neighbourhood, a piecewise linear pool, then anything.

    Attributes:
      fields: all variables that enter the pool, as matrices.
      positions: colours of the positions.
      channels: colours of the channels.
      waist: the variable of the pooled numbers.
      columns: of each field, the one that each pooled number sees; -1 where it sees none.
    """

    fields: dict[Any, Grid]
    positions: Colours
    channels: Colours
    waist: Any
    columns: dict[Any, Int[np.ndarray, " pooled"]]


class Gated(NamedTuple):
    """As `LocalPooled`, but for values that a linear pool of the point feeds back to its positions.

    Attributes:
      rest: the case where these values stay as they are.
      gates: the variables of these values. An activation moves them the same at every position.
    """

    rest: LocalPooled
    gates: list[Any]


class LinearFirst(NamedTuple):
    """Piecewise linear steps to few numbers, then anything: a score after its logits."""

    waist: Any


class Dense(NamedTuple):
    """Nothing proved: a direction for each activation."""


Case: TypeAlias = Linear | Pooled | Local | LocalPooled | Gated | LinearFirst | Dense


@dataclasses.dataclass(frozen=True)
class Plan:
    """A program and the way to its derivatives."""

    program: Program
    case: Case
    directions: int


def plan(f: Callable[[Array], Array], x: Array) -> Plan:
    """Reads a function's program at a point and chooses."""
    program = read(f, x)
    outcome = program.outcome
    if has_refs(program.jaxpr):  # what is written there is not followed
        return Plan(program, Dense(), x.size)
    if not program.moving([program.result]) or not program.smooth:
        return Plan(program, Linear(), 0)
    waists = program.waists()
    smallest = sorted(waists, key=lambda v: v.aval.size)
    firsts = [v for v in smallest if v.aval.size < x.size and not program.is_smooth(v)]
    if outcome.reverse:
        for v in firsts:
            index = _reached(program, v, x)
            if index is not None:
                return Plan(program, Pooled(v, index), v.aval.size)
    plans = [Plan(program, Dense(), x.size)]
    if outcome.reverse and outcome.forward:
        plans += _local(program)
        linear = [Plan(program, LinearFirst(v), v.aval.size) for v in firsts[:1]]
        bounds = [p.directions for p in plans] + [p.directions + 1 for p in linear]
        is_chained = UNCHAINED not in outcome.opaque
        pools = [v for v in smallest if program.is_smooth(v) and is_chained]
        plans += _local_pooled(program, waists, pools, min(bounds)) + linear
        plans += _gated(program, pools, min(p.directions for p in plans))
    return min(plans, key=lambda p: p.directions)


def meeting(program: Program) -> Any:
    """The equation that makes a program dense, or None.

    It is the first smooth one of which an element sees all positions, though it is made of some
    that do not; else the first smooth one that sees all positions.
    """

    def sees_all(v: Any) -> bool:
        return bool(program.positions[v].all(-1).any())

    seeing = [
        eqn
        for i, eqn in enumerate(program.jaxpr.eqns)
        if program.smooth >> i & 1 and any(map(sees_all, program.moving(eqn.outvars)))
    ]
    mixing = [eqn for eqn in seeing if not all(map(sees_all, program.moving(eqn.invars)))]
    return next(iter(mixing + seeing), None)


def _reached(program: Program, waist: Any, x: Array) -> Int[np.ndarray, "*shape"] | None:
    """Which element of the waist each activation reaches; None where one reaches several."""
    laid = _grid(program, waist)
    if laid is None:
        return None
    sides = laid.positions, laid.channels
    if any(seen.sum(0).max() > 1 for seen in sides):
        return None
    row, column = (np.where(seen.any(0), seen.argmax(0), -1) for seen in sides)
    rows, columns = (len(seen) for seen in sides)
    elements = np.moveaxis(
        np.arange(waist.aval.size).reshape(waist.aval.shape), laid.rows, range(len(laid.rows))
    ).reshape(rows, columns)
    reached = (row[:, None] >= 0) & (column[None, :] >= 0)
    return np.where(reached, elements[row[:, None], column[None, :]], -1).reshape(x.shape)


def _grid(program: Program, v: Any) -> Grid | None:
    return grid(v.aval.shape, program.positions[v], program.channels[v])


def _local(program: Program) -> list[Plan]:
    fields = [v for v in program.frontier(program.result) if program.is_smooth(v)]
    grids = {v: _grid(program, v) for v in fields}
    laid = {v: g for v, g in grids.items() if g is not None}
    if len(laid) < len(grids):
        return []
    positions = colour([g.positions for g in laid.values()])
    channels = colour([g.channels for g in laid.values()])
    directions = positions.count * channels.count
    return [Plan(program, Local(laid, positions, channels), directions)]


def _local_pooled(program: Program, waists: list[Any], pools: list[Any], below: int) -> list[Plan]:
    """The cheapest plan over a pooled waist that takes fewer directions than `below`, if any.

    Its fields are the frontier of the pool, or a waist before it. What they cost is known before
    it is proved that each pooled number sees one column of them, which takes longer.
    """
    # One channel a direction: each then has one curve through the pool for a position.
    channels = distinct(program.channels[program.point].shape[-1])
    found = []
    for pool in pools:
        before = [v for v in waists if program.is_linear_between(v, pool)]
        for fields in (program.frontier(pool), *([v] for v in before)):
            laid = {v: g for v in fields if (g := _grid(program, v)) is not None}
            if len(laid) < len(fields):
                continue
            positions = colour([g.positions for g in laid.values()])
            if positions.count * channels.count >= below:
                continue
            columns = _columns(program, laid, pool)
            if len(columns) == len(fields):
                below = positions.count * channels.count
                case = LocalPooled(laid, positions, channels, pool, columns)
                found = [Plan(program, case, below)]
                break
    return found


def _gated(program: Program, pools: list[Any], below: int) -> list[Plan]:
    """The cheapest plan in which gates stay as they are, if any takes fewer directions."""
    gates = pooled(program.jaxpr, program.point, program.positions)
    held = program.holding(gates)
    channels = distinct(program.channels[program.point].shape[-1])
    found = []
    for pool in pools if gates and held.moving([held.result]) else ():
        fields = program.frontier(pool)
        if len(held.moving(fields)) < len(fields):
            continue  # a gate that no position sees
        laid = {v: g for v in fields if (g := _grid(held, v)) is not None}
        positions = colour([g.positions for g in laid.values()])
        directions = (1 + positions.count) * channels.count
        unseen = (positions.colour < 0).any()  # what no field sees would still move the gates
        if len(laid) < len(fields) or unseen or directions >= below:
            continue
        columns = _columns(program, laid, pool)
        if len(columns) == len(fields):
            below = directions
            rest = LocalPooled(laid, positions, channels, pool, columns)
            found = [Plan(program, Gated(rest, gates), directions)]
    return found


def _columns(
    program: Program, laid: dict[Any, Grid], waist: Any
) -> dict[Any, Int[np.ndarray, " pooled"]]:
    """Of each field which of its columns each element of the waist sees, where they are paired."""
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
            continue
        seen = np.broadcast_to(seen, (*waist.aval.shape, seen.shape[-1]))
        seen = seen.reshape(waist.aval.size, -1)
        if seen.sum(0).max() <= 1 and seen.sum(1).max() <= 1:
            found[field] = np.where(seen.any(1), seen.argmax(1), -1)
    return found
