"""Pools that sum over positions before they multiply by what all positions share.

`sum_p w_p (z_p - m) g` is `(sum_p w_p z_p - m sum_p w_p) g`. A gate, or a norm over positions, has
it the other way round, so that each term sees all positions. Where only piecewise linear steps
lead from there to a pool, sums come first: they and what is shared are then pools side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.cut.programs import made_by
from jaxcam._src.derivatives.structure.colours import Grid
from jaxcam._src.derivatives.structure.pools import (
    Numbers,
    entered,
    laid_out,
    numbers_of,
    slopes_of_groups,
    weighed,
)
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.rewritten import rewritten
from jaxcam._src.derivatives.structure.shared import Alike, Term, Terms, alike, terms_of


def with_shared_last(program: Program) -> Program | None:
    """The same program with such pools; None where there are none, or where it has effects."""
    if program.jaxpr.effects or not program.outcome.reverse:
        return None
    known = alike(program.jaxpr)
    found = {sink: _summing_first(program, known, sink) for sink in _sinks(program)}
    pools = {sink: pool for sink, pool in found.items() if pool}

    def run(*arguments: Any) -> list[Any]:
        values = dict(zip(program.jaxpr.invars, arguments, strict=True))
        for eqn in program.jaxpr.eqns:
            values |= made_by(eqn, values)
            values |= {v: pools[v](values) for v in eqn.outvars if v in pools}
        return [values[v] for v in program.jaxpr.outvars]

    return rewritten(program, run) if pools else None


def _sinks(program: Program) -> list[Any]:
    """The variables without positions of their own that are made of some with, and the result."""
    pools = [
        v
        for eqn in program.jaxpr.eqns
        if not all(map(program.is_pooled, program.moving(eqn.invars)))
        for v in program.moving(eqn.outvars)
        if program.is_pooled(v)
    ]
    return [*dict.fromkeys([*pools, program.result])]


def _summing_first(
    program: Program, known: Alike, sink: Any
) -> Callable[[dict[Any, Any]], Array] | None:
    """Makes `values of a program -> a pool of it`; None where positions share nothing in it."""
    laid = laid_out(program, program.frontier(sink))
    if laid is None:
        return None

    def terms(values: dict[Any, Any]) -> list[Terms]:
        return [terms_of(program, v, grid.rows, known, values) for v, grid in laid.items()]

    at_point = terms(program.values)
    is_shared = any(term.shared is not None for each in at_point for term in each)
    is_shared |= 0 < sum(map(program.is_pooled, laid)) < len(laid)
    numbers = numbers_of(program, laid, sink) if is_shared else None
    if numbers is None:
        return None
    add = _adding(program, laid, numbers, sink)
    value, less = accumulated(program.values[sink]), add(at_point)
    return lambda values: (value + (add(terms(values)) - less)).astype(sink.aval.dtype)


def _adding(
    program: Program, laid: dict[Any, Grid], numbers: dict[Any, Numbers], sink: Any
) -> Callable[[Sequence[Terms]], Array]:
    """Makes `terms of each field -> sum of all that enters each number of a pool`."""
    slopes = slopes_of_groups(program, numbers, sink)
    groups = [
        [*zip(laid.values(), *group, strict=True)]
        for group in zip(slopes, zip(*numbers.values(), strict=True), strict=True)
    ]
    dtype = accumulated(program.values[sink]).dtype

    def add(terms: Sequence[Terms]) -> Array:
        parts = [
            entered(*_weighed(term, slope, grid, entering), sink.aval.size).astype(dtype)
            for group in groups
            for each, (grid, slope, entering) in zip(terms, group, strict=True)
            for term in each
        ]
        return jnp.concatenate(parts).sum(0).reshape(sink.aval.shape)

    return add


def _weighed(
    term: Term, slope: Array, grid: Grid, numbers: Int[np.ndarray, " columns"]
) -> tuple[Array, Int[np.ndarray, " sums"]]:
    """Sums of a term by its weights, over rows and the columns that share all: `[1, sums]`.

    Returns:
      The sums, and which number each of them enters.
    """
    field, shared = (jnp.asarray(1 if x is None else x, slope.dtype) for x in term)
    shared = jnp.broadcast_to(shared, shared.shape or (1,) * slope.ndim)
    numbers = numbers.reshape([1 if a in grid.rows else n for a, n in enumerate(slope.shape)])
    over = [a for a, n in enumerate(shared.shape) if n == 1 and not np.ptp(numbers, a).any()]
    total = accumulated(weighed(field, slope)).sum(over, keepdims=True)
    total = total if term.shared is None else weighed(accumulated(shared), total)
    for axis in over:
        numbers = numbers.take([0], axis)
    return total.reshape(1, -1), numbers.reshape(-1)
