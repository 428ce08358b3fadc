"""Following relations through a program, and through the programs inside its equations."""

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import (
    CALLS,
    UnknownLayoutError,
    alone,
    body_of,
    is_variable,
    param,
    programs_in,
    scan_of,
)
from jaxcam._src.derivatives.structure import relations, rules
from jaxcam._src.derivatives.structure.relations import Relation
from jaxcam._src.derivatives.structure.rules import Outcome, Relations

UNCHAINED = "custom_jvp_call whose rule does not call its function"
_DEEPEST = 3  # custom rules inside custom rules
_Call: TypeAlias = tuple[str, Relations]  # of a custom function: which one, and what it sees
Within: TypeAlias = tuple[_Call, ...]  # the calls whose rules are followed at the moment


def walk(jaxpr: Any, inputs: Sequence[Relation | None], within: Within = ()) -> Outcome:
    """Relations of a program's results, from those of its arguments."""
    found, steps = trace(jaxpr, inputs, within)
    results = [found.get(v) if is_variable(v) else None for v in jaxpr.outvars]
    return Outcome(results).after(*steps)


def trace(
    jaxpr: Any, inputs: Sequence[Relation | None], within: Within = ()
) -> tuple[dict[Any, Relation], list[Outcome]]:
    """The relation of every variable that carries a derivative, and what each equation did."""
    arguments = zip(jaxpr.invars, inputs, strict=True)
    found = {v: r for v, r in arguments if r is not None}
    steps = []
    for eqn in jaxpr.eqns:
        step = _step(eqn, [found.get(v) if is_variable(v) else None for v in eqn.invars], within)
        steps.append(step)
        for v, r in zip(eqn.outvars, step.relations, strict=True):
            carries = jnp.issubdtype(v.aval.dtype, jnp.inexact) and v.aval.size
            if r is not None and r.any() and carries:
                found[v] = r
    return found, steps


def _step(eqn: Any, inputs: Relations, within: Within) -> Outcome:
    if all(r is None for r in inputs):
        return Outcome([None] * len(eqn.outvars))
    try:
        return _known_step(eqn, inputs, within)
    except UnknownLayoutError:
        return rules.opaque(eqn, inputs)


def _known_step(eqn: Any, inputs: Relations, within: Within) -> Outcome:
    name = eqn.primitive.name
    if name in CALLS:
        return walk(body_of(eqn).jaxpr, inputs, within)
    if name == "scan":
        return _scan(eqn, inputs, within)
    if name == "cond":
        branches = [walk(b.jaxpr, inputs[1:], within) for b in param(eqn, "branches")]
        joined = [_join(*seen) for seen in zip(*(b.relations for b in branches), strict=True)]
        return Outcome(joined).after(*branches)
    if name == "custom_jvp_call":
        return _custom_jvp(eqn, inputs, within)
    if name in ("while", "reduce_window"):  # a window of any reducer but a sum or a maximum
        return rules.opaque(eqn, inputs)._replace(reverse=False)
    if name in ("custom_vjp_call", "custom_vjp_call_jaxpr"):
        return rules.opaque(eqn, inputs)._replace(forward=False)
    return rules.outcome(eqn, inputs)


def _scan(eqn: Any, inputs: Relations, within: Within) -> Outcome:
    """Walks the body until the carry sees no more: it only ever sees more from step to step."""
    body, fixed, carried, length, _ = scan_of(eqn)
    consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
    xs = [None if r is None else np.logical_or.reduce(r, axis=0) for r in inputs[fixed + carried :]]
    steps, ys = [], [None for _ in eqn.outvars[carried:]]
    for _ in range(length):
        step = walk(body.jaxpr, [*consts, *carry, *xs], within)
        steps.append(step)
        ys = [_join(*seen) for seen in zip(ys, step.relations[carried:], strict=True)]
        wider = [_join(*seen) for seen in zip(carry, step.relations[:carried], strict=True)]
        if all(_same(*pair) for pair in zip(carry, wider, strict=True)):
            break
        carry = wider
    return Outcome([*carry, *(None if y is None else y[None] for y in ys)]).after(*steps)


def _custom_jvp(eqn: Any, inputs: Relations, within: Within) -> Outcome:
    """Walks the custom rule, not the function: derivatives of every order are those of the rule.

    So a rounding whose rule passes the tangent on is linear, and no constant. But where a rule does
    not call its function for the value, the second derivative is that of what it does instead,
    whatever its tangent says, and no chain rule holds.
    """
    (body, *_), call = programs_in(eqn), (_identity(eqn), inputs)
    if any(_alike(call, outer) for outer in within):
        return walk(body, inputs, within)._replace(smooth=True)
    if len(within) == _DEEPEST or any(name == call[0] for name, _ in within):
        return rules.opaque(eqn, inputs)
    variables = alone(eqn).invars
    seen = {v: r for v, r in zip(eqn.invars, inputs, strict=True) if r is not None}
    moving = [i for i, v in enumerate(variables) if v in seen]
    rule, fixed = _rule_of(eqn, moving)
    if not _gets_its_values(rule, eqn, dict(zip(variables, rule.invars[fixed:], strict=False))):
        return rules.opaque(eqn, inputs)._replace(opaque=frozenset({UNCHAINED}))
    # Without what only the value needs.
    tangents = rule.outvars[len(eqn.outvars) :]
    rule = rule.replace(eqns=live(rule.eqns, tangents)[0], outvars=tangents)
    values, directions = [seen.get(v) for v in variables], [seen[variables[i]] for i in moving]
    found = walk(rule, [*[None] * fixed, *values, *directions], (*within, call))
    if any(_calls_of(call[0], rule)):
        # What was taken for granted of the function inside of its rule: it sees no more there.
        known = walk(body, inputs, within).relations
        if not all(map(_is_within, found.relations, known)):
            return rules.opaque(eqn, inputs)
    return found


def is_symmetric(eqn: Any, moving: Sequence[Any]) -> bool:
    """Whether mixed derivatives of an equation are proved not to depend on their order.

    Those of a custom rule may, unless function and rule take each number of one operand alone; of
    one in a loop or a branch it is not looked into.
    """
    if eqn.primitive.name != "custom_jvp_call":
        inside = (inner for program in programs_in(eqn) for inner in program.eqns)
        return all(i.primitive.name != "custom_jvp_call" and is_symmetric(i, ()) for i in inside)
    if len({*moving}) != 1:
        return False
    (operand, *_), variables = moving, alone(eqn).invars
    rule, fixed = _rule_of(eqn, [variables.index(operand)])
    function, constants = opened(param(eqn, "call_jaxpr"), CALLS)
    own = [function.invars[len(constants) + i] for i, v in enumerate(eqn.invars) if v is operand]
    given = [rule.invars[fixed + variables.index(operand)], rule.invars[-1]]
    calls = {*map(id, _calls_of(_identity(eqn), rule))}
    return _takes_each_number(function, own) and _takes_each_number(rule, given, calls)


def _takes_each_number(jaxpr: Any, arguments: Sequence[Any], but_for: Collection[int] = ()) -> bool:
    """Whether a program makes each number of its results of one number of these arguments."""
    seeing = {*arguments}
    for eqn in jaxpr.eqns:
        if seeing.intersection(filter(is_variable, eqn.invars)):
            if eqn.primitive.name not in rules.POINTWISE and id(eqn) not in but_for:
                return False
            seeing.update(eqn.outvars)
    return len({v.aval.shape for v in seeing}) == 1


def _rule_of(eqn: Any, moving: Sequence[int]) -> tuple[Any, int]:
    """The rule of a custom function: `constants, values, directions -> results, tangents`.

    Returns:
      Its program, whose calls are opened, and how many constants there are.
    """
    program = alone(eqn)

    def rule(values: list, directions: list) -> Sequence[Any]:
        def of_moving(*moved):
            new = dict(zip(moving, moved, strict=True))
            given = (new.get(i, value) for i, value in enumerate(values))
            return jax.core.eval_jaxpr(program, (), *given)

        return jax.jvp(of_moving, [values[i] for i in moving], directions)

    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in program.invars]
    closed = jax.make_jaxpr(rule)(shapes, [shapes[i] for i in moving])
    found, constants = opened(closed, CALLS)
    return found, len(constants)


def _gets_its_values(rule: Any, eqn: Any, given: dict[Any, Any]) -> bool:
    """Whether a rule calls the function of an equation for its values, of what that is given."""
    wanted = [given[v] if is_variable(v) else v.val for v in eqn.invars]
    results = rule.outvars[: len(eqn.outvars)]

    def is_it(call: Any) -> bool:
        operands = [v if is_variable(v) else v.val for v in call.invars]
        return call.outvars == results and operands == wanted

    return any(map(is_it, _calls_of(_identity(eqn), rule)))


def _identity(eqn: Any) -> str:
    """What tells a custom function from others: its program, and where its rule is written."""
    rule = param(eqn, "jvp_jaxpr_fun").debug_info.func_src_info
    return f"{_text(param(eqn, 'call_jaxpr'))} {rule}"


@functools.lru_cache(maxsize=1024)
def _text(program: Any) -> str:
    """A program as text; kept, since each call is compared with those inside of its rule."""
    return str(program)


def _calls_of(function: str, jaxpr: Any) -> Iterator[Any]:
    """The calls of a custom function in a program, and inside of it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "custom_jvp_call" and _identity(eqn) == function:
            yield eqn
        for inner in programs_in(eqn):
            yield from _calls_of(function, inner)


def _alike(one: _Call, other: _Call) -> bool:
    return one[0] == other[0] and all(map(_same, one[1], other[1]))


def _is_within(a: Relation | None, b: Relation | None) -> bool:
    return a is None or (b is not None and bool((a <= b).all()))


def _join(*each: Relation | None) -> Relation | None:
    present = [r for r in each if r is not None]
    return relations.union(present) if present else None


def _same(a: Relation | None, b: Relation | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool((a == b).all())


def has_custom_vjp(jaxpr: Any) -> bool:
    """Whether a program has a rule for backward differentiation alone anywhere."""
    return any(
        eqn.primitive.name.startswith("custom_vjp") or any(map(has_custom_vjp, programs_in(eqn)))
        for eqn in jaxpr.eqns
    )
