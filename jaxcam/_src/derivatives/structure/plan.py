"""Choosing the cheapest exact way to a function's derivatives that its program proves legal."""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, Int

from jaxcam._src.cut.programs import has_refs
from jaxcam._src.derivatives.structure.colours import Colours, Grid, at_least, colour, distinct
from jaxcam._src.derivatives.structure.fed_back import FedBack, fed_back
from jaxcam._src.derivatives.structure.pooled_linear import pooled
from jaxcam._src.derivatives.structure.pools import LocalPooled, grid_of, laid_out, numbers_of
from jaxcam._src.derivatives.structure.program import Program, read
from jaxcam._src.derivatives.structure.shared_last import with_shared_last
from jaxcam._src.derivatives.structure.side_by_side import with_one_pool
from jaxcam._src.derivatives.structure.walk import UNCHAINED


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


Case: TypeAlias = Linear | Pooled | Local | LocalPooled | Gated | FedBack | LinearFirst | Dense


@dataclasses.dataclass(frozen=True)
class Plan:
    """A program and the way to its derivatives."""

    program: Program
    case: Case
    directions: int


def plan(f: Callable[[Array], Array], x: Array) -> Plan:
    """Reads a function's program at a point and chooses."""
    program = read(f, x)
    if has_refs(program.jaxpr):  # what is written there is not followed
        return Plan(program, Dense(), x.size)
    found = _cheapest(program, x)
    if found.directions > math.prod(x.shape[-1:]):
        # Pools of local fields cost a direction for each channel at least.
        found = _cheaper(found, with_one_pool(program), x)
    if isinstance(found.case, Dense) and (other := with_shared_last(program)):
        # Last, since this is dearer than what is found without: it makes more numbers of a pool.
        found = _cheaper(_cheaper(found, other, x), with_one_pool(other), x)
    return found


def _cheaper(found: Plan, other: Program | None, x: Array) -> Plan:
    """The cheaper of a plan and that of another program, if there is one."""
    return min(found, _cheapest(other, x), key=_cost) if other else found


_cost = operator.attrgetter("directions")


def _cheapest(program: Program, x: Array) -> Plan:
    """The plan that takes the fewest directions through this program."""
    outcome = program.outcome
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
        plans += _gated(program, pools, min(map(_cost, plans)))
        plans += _fed_back(program, pools, min(map(_cost, plans)))
    return min(plans, key=_cost)


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
    laid = grid_of(program, waist)
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


def _local(program: Program) -> list[Plan]:
    fields = [v for v in program.frontier(program.result) if program.is_smooth(v)]
    laid = laid_out(program, fields)
    if laid is None:
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
            laid = laid_out(program, fields)
            seen = [g.positions for g in laid.values()] if laid else []
            if laid is None or at_least(seen) * channels.count >= below:
                continue
            positions = colour(seen)
            if positions.count * channels.count >= below:
                continue
            numbers = numbers_of(program, laid, pool)
            if numbers is not None:
                below = positions.count * channels.count
                case = LocalPooled(laid, positions, channels, pool, numbers)
                found = [Plan(program, case, below)]
                break
    return found


def _gated(program: Program, pools: list[Any], below: int) -> list[Plan]:
    """The cheapest plan in which gates stay as they are, if any takes fewer directions."""
    gates = program.moving(pooled(program.jaxpr, program.point, program.positions))
    held = program.holding(gates)
    channels = distinct(program.channels[program.point].shape[-1])
    found = []
    for pool in pools if gates and held.moving([held.result]) else ():
        laid = laid_out(held, program.frontier(pool))
        if laid is None:
            continue
        positions = colour([g.positions for g in laid.values()])
        directions = (1 + positions.count) * channels.count
        unseen = (positions.colour < 0).any()  # what no field sees would still move the gates
        numbers = None if unseen or directions >= below else numbers_of(program, laid, pool)
        if numbers is not None:
            below = directions
            rest = LocalPooled(laid, positions, channels, pool, numbers)
            found = [Plan(program, Gated(rest, gates), directions)]
    return found


def _fed_back(program: Program, pools: list[Any], below: int) -> list[Plan]:
    case = fed_back(program, pools, below)
    return [Plan(program, case, case.directions)] if case else []
