"""Pools side by side, which together nothing passes, as one sum over positions of local fields.

Of a product over positions whose sides both move, such as a Gram matrix, the fields are its terms.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.cut.programs import is_variable, made_by, param
from jaxcam._src.derivatives.structure.attention import factor
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.rewritten import rewritten

_MOST_TERMS = 1 << 24  # of a product, held at once for each direction


def with_one_pool(program: Program) -> Program | None:
    """The same program with its first pools in one vector, and products as sums of their terms.

    None where that changes nothing: there are no products, and pools are one, or passed by. Nor
    for a program with effects, such as prints, which would take place once more.
    """
    if program.jaxpr.effects:
        return None
    pools = _first_pools(program)
    if len(pools) < 2 or (held := program.holding(pools)).moving([held.result]):
        pools = []
    if not any(map(program.is_smooth, pools)):  # then each of their numbers costs a direction
        pools = [_narrowest(program, pool) for pool in pools]
    if not pools and not any(_is_product(eqn, program) for eqn in program.jaxpr.eqns):
        return None
    return rewritten(program, _joining(program, pools))


def _first_pools(program: Program) -> list[Any]:
    """All pools that lie behind no other: without positions of their own, made of some with."""
    found, behind = [], set()
    for eqn in program.jaxpr.eqns:
        made, taken = program.moving(eqn.outvars), program.moving(eqn.invars)
        if not behind.isdisjoint(filter(is_variable, eqn.invars)):
            behind.update(eqn.outvars)
        elif all(map(program.is_pooled, made)) and not all(map(program.is_pooled, taken)):
            found += made
            behind.update(made)
    return found


def _narrowest(program: Program, pool: Any) -> Any:
    """The smallest of the variables that a pool alone leads to, by piecewise linear steps."""
    passed = [pool]
    while True:
        uses = [
            (eqn, program.smooth >> i & 1)
            for i, eqn in enumerate(program.jaxpr.eqns)
            if passed[-1] in filter(is_variable, eqn.invars)
        ]
        if len(uses) != 1:
            break
        ((eqn, is_smooth),) = uses
        moving = program.moving(eqn.outvars)
        if is_smooth or len({*program.moving(eqn.invars)}) > 1 or [*eqn.outvars] != moving[:1]:
            break
        passed += eqn.outvars
    return min(passed, key=lambda v: v.aval.size)


def _is_product(eqn: Any, program: Program) -> bool:
    """Whether an equation sums the product of two sides that move over their positions."""
    if eqn.primitive.name != "dot_general" or len(program.moving(eqn.invars)) < 2:
        return False
    (result,) = eqn.outvars
    if not program.moving([result]):
        return False
    (contracted, _), _ = param(eqn, "dimension_numbers")
    terms = result.aval.size * math.prod(eqn.invars[0].aval.shape[a] for a in contracted)
    is_pool = program.is_pooled(result) and not any(map(program.is_pooled, eqn.invars))
    return is_pool and terms <= _MOST_TERMS


def _joining(program: Program, pools: list[Any]) -> Callable[..., list[Any]]:
    """The program as a function in which what is behind the pools takes them from one vector."""
    before, after = _parted(program.jaxpr.eqns, pools)

    def run(*arguments: Any) -> list[Any]:
        values = dict(zip(program.jaxpr.invars, arguments, strict=True))
        for eqn in before:
            values |= _made(eqn, values, program)
        if pools:
            values |= _through_one([values[v] for v in pools], pools)
        for eqn in after:
            values |= _made(eqn, values, program)
        return [values[v] for v in program.jaxpr.outvars]

    return run


def _parted(eqns: Sequence[Any], pools: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The equations that do not depend on the pools, and those that do."""
    behind, before, after = {*pools}, [], []
    for eqn in eqns:
        if behind.isdisjoint(filter(is_variable, eqn.invars)):
            before.append(eqn)
        else:
            behind.update(eqn.outvars)
            after.append(eqn)
    return before, after


def _made(eqn: Any, values: dict[Any, Any], program: Program) -> dict[Any, Any]:
    """The results of an equation."""
    if _is_product(eqn, program):
        return {eqn.outvars[0]: _summed(eqn, *(values[v] for v in eqn.invars))}
    return made_by(eqn, values)


def _summed(eqn: Any, *sides: Array) -> Array:
    """A product over positions as the sum of its terms."""
    result = eqn.outvars[0].aval
    one, other = (factor(eqn, side, accumulated(x)) for side, x in enumerate(sides))
    return (one * other).sum(range(result.ndim, one.ndim)).astype(result.dtype)


def _through_one(pooled: list[Any], pools: list[Any]) -> dict[Any, Any]:
    """The pools as parts of one vector."""
    dtype = np.result_type(*(x.dtype for x in pooled))
    together = jnp.concatenate([x.astype(dtype).reshape(-1) for x in pooled])
    parts = jnp.split(together, np.cumsum([x.size for x in pooled])[:-1])
    return {
        v: part.reshape(v.aval.shape).astype(v.aval.dtype)
        for v, part in zip(pools, parts, strict=True)
    }
