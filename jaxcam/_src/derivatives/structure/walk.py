"""Following relations through a program, and through the programs inside its equations."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import (
    CALLS,
    UnknownLayoutError,
    alone,
    body_of,
    is_variable,
    param,
    scan_of,
)
from jaxcam._src.derivatives.structure import relations, rules
from jaxcam._src.derivatives.structure.relations import Relation
from jaxcam._src.derivatives.structure.rules import Outcome, Relations

_DEEPEST = 3  # custom rules inside custom rules; one that calls its own function would not end


def walk(jaxpr: Any, inputs: Sequence[Relation | None], depth: int = 0) -> Outcome:
    """Relations of a program's results, from those of its arguments."""
    found, steps = trace(jaxpr, inputs, depth)
    return Outcome([found.get(v) for v in jaxpr.outvars]).after(*steps)


def trace(
    jaxpr: Any, inputs: Sequence[Relation | None], depth: int = 0
) -> tuple[dict[Any, Relation], list[Outcome]]:
    """The relation of every variable that carries a derivative, and what each equation did."""
    arguments = zip(jaxpr.invars, inputs, strict=True)
    found = {v: r for v, r in arguments if r is not None}
    steps = []
    for eqn in jaxpr.eqns:
        step = _step(eqn, [found.get(v) if is_variable(v) else None for v in eqn.invars], depth)
        steps.append(step)
        for v, r in zip(eqn.outvars, step.relations, strict=True):
            if r is not None and r.any() and jnp.issubdtype(v.aval.dtype, jnp.inexact):
                found[v] = r
    return found, steps


def _step(eqn: Any, inputs: Relations, depth: int) -> Outcome:
    if all(r is None for r in inputs):
        return Outcome([None] * len(eqn.outvars))
    try:
        return _known_step(eqn, inputs, depth)
    except UnknownLayoutError:
        return rules.opaque(eqn, inputs)


def _known_step(eqn: Any, inputs: Relations, depth: int) -> Outcome:
    name = eqn.primitive.name
    if name in CALLS:
        return walk(body_of(eqn).jaxpr, inputs, depth)
    if name == "scan":
        return _scan(eqn, inputs, depth)
    if name == "cond":
        branches = [walk(b.jaxpr, inputs[1:], depth) for b in param(eqn, "branches")]
        joined = [_join(*seen) for seen in zip(*(b.relations for b in branches), strict=True)]
        return Outcome(joined).after(*branches)
    if name == "custom_jvp_call":
        return _custom_jvp(eqn, inputs, depth)
    if name == "while":
        return rules.opaque(eqn, inputs)._replace(reverse=False)
    if name in ("custom_vjp_call", "custom_vjp_call_jaxpr"):
        return rules.opaque(eqn, inputs)._replace(forward=False)
    return rules.outcome(eqn, inputs)


def _scan(eqn: Any, inputs: Relations, depth: int) -> Outcome:
    """Walks the body until the carry sees no more: it only ever sees more from step to step."""
    body, fixed, carried, length, _ = scan_of(eqn)
    consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
    xs = [None if r is None else np.logical_or.reduce(r, axis=0) for r in inputs[fixed + carried :]]
    steps, ys = [], [None for _ in eqn.outvars[carried:]]
    for _ in range(length):
        step = walk(body.jaxpr, [*consts, *carry, *xs], depth)
        steps.append(step)
        ys = [_join(*seen) for seen in zip(ys, step.relations[carried:], strict=True)]
        wider = [_join(*seen) for seen in zip(carry, step.relations[:carried], strict=True)]
        if all(_same(*pair) for pair in zip(carry, wider, strict=True)):
            break
        carry = wider
    return Outcome([*carry, *(None if y is None else y[None] for y in ys)]).after(*steps)


def _custom_jvp(eqn: Any, inputs: Relations, depth: int) -> Outcome:
    """Walks the custom rule, not the function: derivatives of every order are those of the rule.

    So a rounding whose rule passes the tangent on is linear, and no constant.
    """
    if depth == _DEEPEST:
        return rules.opaque(eqn, inputs)
    function, variables = _alone(eqn)
    seen = {v: r for v, r in zip(eqn.invars, inputs, strict=True) if r is not None}
    moving = [i for i, v in enumerate(variables) if v in seen]

    def tangents(values: list, directions: list) -> Sequence[Any]:
        def of_moving(*moved):
            return function(*_replaced(values, dict(zip(moving, moved, strict=True))))

        return jax.jvp(of_moving, [values[i] for i in moving], directions)[1]

    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]
    rule = jax.make_jaxpr(tangents)(shapes, [shapes[i] for i in moving]).jaxpr
    # Without what only the value needs: a rule may well compute that by calling its own function.
    rule = rule.replace(eqns=live(rule.eqns, rule.outvars)[0])
    arguments = [*(seen.get(v) for v in variables), *(seen[variables[i]] for i in moving)]
    return walk(rule, arguments, depth + 1)


def _alone(eqn: Any) -> tuple[Callable[..., list], list[Any]]:
    """An equation as a function of its variables, and these."""
    program = alone(eqn)
    return lambda *values: jax.core.eval_jaxpr(program, (), *values), program.invars


def _replaced(values: Sequence[Any], new: dict[int, Any]) -> list[Any]:
    return [new.get(i, value) for i, value in enumerate(values)]


def _join(a: Relation | None, b: Relation | None) -> Relation | None:
    present = [r for r in (a, b) if r is not None]
    return relations.union(present) if present else None


def _same(a: Relation | None, b: Relation | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool((a == b).all())
