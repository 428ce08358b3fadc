"""Bringing a run of a layer to the top of the program, out of the calls and loops around it."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
from jax.extend import core as jex

from jaxcam._src.cut.find import OPENED, Wanted, count_runs
from jaxcam._src.cut.programs import INLINED, alone, body_of, is_variable, scan_of
from jaxcam._src.cut.tag import tag_p

CUT = "jaxcam cut"  # the name that marks the one equation to cut at
FinishFn: TypeAlias = Callable[[Any, Sequence[Any]], Sequence[Any]]


def replay(
    closed: Any,
    wanted: Wanted | None,
    arguments: Sequence[Any],
    inlined: Collection[str] = INLINED,
    finish_fn: FinishFn = lambda eqn, outputs: outputs,
) -> list[Any]:
    """Runs a program in the current trace: calls inlined, tags dropped but the one `wanted`.

    `finish_fn` may change what an equation returns; for a tag that is its input.
    """
    jaxpr = closed.jaxpr
    names = [*jaxpr.constvars, *jaxpr.invars]
    values = dict(zip(names, [*closed.consts, *arguments], strict=True))
    passed = 0
    for eqn in jaxpr.eqns:
        inputs = [_read(values, v) for v in eqn.invars]
        inside = None
        if wanted:
            runs = count_runs([eqn], wanted)
            if passed <= wanted.nth < passed + runs:
                inside = wanted._replace(nth=wanted.nth - passed)
            passed += runs
        outputs = _replay_equation(eqn, inside, inputs, inlined, finish_fn)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [_read(values, v) for v in jaxpr.outvars]


def _replay_equation(
    eqn: Any,
    wanted: Wanted | None,
    inputs: list[Any],
    inlined: Collection[str],
    finish_fn: FinishFn,
) -> Sequence[Any]:
    kind = eqn.primitive.name
    if eqn.primitive is tag_p:
        return _marked(inputs) if wanted else finish_fn(eqn, inputs)
    if wanted and kind == "scan":
        return _replay_scan(eqn, wanted, inputs)
    if kind in (OPENED if wanted else inlined):
        outputs = replay(body_of(eqn), wanted, inputs, inlined, finish_fn)
        outputs = [
            jax.lax.with_sharding_constraint(x, s) if isinstance(s, jax.sharding.Sharding) else x
            for x, s in zip(outputs, eqn.params.get("out_shardings", outputs), strict=True)
        ]
        return finish_fn(eqn, outputs)
    values = {v: x for v, x in zip(eqn.invars, inputs, strict=True) if is_variable(v)}
    return finish_fn(eqn, jax.core.eval_jaxpr(alone(eqn), (), *values.values()))


def _marked(inputs: list[Any]) -> list[Any]:
    return [tag_p.bind(inputs[0], name=CUT, leaf=0, leaf_key="")]


def _replay_scan(eqn: Any, wanted: Wanted, inputs: list[Any]) -> list[Any]:
    """The steps before the wanted one as a scan, the wanted one alone, the others as a scan."""
    body, fixed, carried, length, reverse = scan_of(eqn)
    step, nth = divmod(wanted.nth, count_runs(body.jaxpr.eqns, wanted))
    order = slice(None, None, -1 if reverse else 1)
    consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
    xs = [x[order] for x in inputs[fixed + carried :]]

    def one_step(carry, x):
        outputs = jex.jaxpr_as_fun(body)(*consts, *carry, *x)
        return outputs[:carried], outputs[carried:]

    def steps(carry, start, stop):
        if start == stop:
            return carry, []
        carry, ys = jax.lax.scan(one_step, carry, [x[start:stop] for x in xs], stop - start)
        return carry, [ys]

    carry, before = steps(carry, 0, step)
    arguments = [*consts, *carry, *(x[step] for x in xs)]
    outputs = replay(body, wanted._replace(nth=nth), arguments)
    carry, after = steps(outputs[:carried], step + 1, length)
    parts = [*before, [jnp.asarray(y)[None] for y in outputs[carried:]], *after]
    return [*carry, *(jnp.concatenate(ys)[order] for ys in zip(*parts, strict=True))]


def _read(values: dict, v: Any) -> Any:
    return values[v] if is_variable(v) else v.val
