"""Opening a program: its calls inlined, and one run of a layer brought to the top and marked.

Equations are renamed, not run again, so that opening costs a fraction of tracing.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from jaxcam._src.cut.find import OPENED, Wanted, count_runs
from jaxcam._src.cut.programs import INLINED, body_of, is_dropped, is_variable, scan_of
from jaxcam._src.cut.tag import mark, tag_p

CUT = "jaxcam cut"  # the name that marks the one equation to cut at
Finish: TypeAlias = Callable[..., Sequence[Any]]


def _no_finish(eqn: Any) -> Finish | None:
    return None


def _never(eqn: Any) -> bool:
    return False


def opened(
    closed: Any,
    inlined: Collection[str] = INLINED,
    *,
    wanted: Wanted | None = None,
    keep_tags: bool = False,
    finish_for: Callable[[Any], Finish | None] = _no_finish,
    unrolls: Callable[[Any], bool] = _never,
) -> tuple[Any, list[Any]]:
    """The same program as one list of equations; its constants are arguments, before the others.

    Args:
      closed: what `jax.make_jaxpr` returns.
      inlined: the calls that are opened; all others stay whole, but those around `wanted`.
      wanted: the run of a layer whose tag is marked.
      keep_tags: whether the other tags stay; else they are dropped.
      finish_for: of an equation, a function to apply to its results, or None.
      unrolls: of a scan of one step or more, whether its steps are listed one after the other.

    Returns:
      The program, and the values of its constants.
    """
    opening = _Opening(inlined, keep_tags, finish_for, unrolls)
    arguments = [jex.Var(v.aval) for v in closed.jaxpr.invars]
    results = opening.of_program(closed, arguments, wanted)
    program = closed.jaxpr.replace(
        constvars=[],
        invars=[*opening.constants, *arguments],
        outvars=results,
        eqns=opening.equations,
    )
    return program, [*opening.constants.values()]


@dataclasses.dataclass(frozen=True)
class _Opening:
    inlined: Collection[str]
    keep_tags: bool
    finish_for: Callable[[Any], Finish | None]
    unrolls: Callable[[Any], bool]
    equations: list[Any] = dataclasses.field(default_factory=list)
    constants: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def of_program(self, closed: Any, inputs: Sequence[Any], wanted: Wanted | None) -> list[Any]:
        """Lists the equations of a program under new names; returns those of its results."""
        jaxpr = closed.jaxpr
        constants = [jex.Var(v.aval) for v in jaxpr.constvars]
        self.constants.update(zip(constants, closed.consts, strict=True))
        names = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        passed = 0
        for eqn in jaxpr.eqns:
            inside = None
            if wanted and passed <= wanted.nth:
                runs = count_runs([eqn], wanted)
                if wanted.nth < passed + runs:
                    inside = wanted._replace(nth=wanted.nth - passed)
                passed += runs
            outputs = self.of_equation(eqn, [_renamed(v, names) for v in eqn.invars], inside)
            names.update(zip(eqn.outvars, outputs, strict=True))
        return [_renamed(v, names) for v in jaxpr.outvars]

    def of_equation(self, eqn: Any, inputs: list[Any], wanted: Wanted | None) -> list[Any]:
        """The same for one equation, whose run `wanted` lies inside, if any."""
        outputs = self.of_kind(eqn, inputs, wanted)
        finish = self.finish_for(eqn)
        return self.of_new(finish, outputs) if finish else outputs

    def of_kind(self, eqn: Any, inputs: list[Any], wanted: Wanted | None) -> list[Any]:
        kind = eqn.primitive.name
        if eqn.primitive is tag_p and wanted:
            return self.of_new(functools.partial(mark, CUT, eqn.params["lies"]), inputs)
        if eqn.primitive is tag_p and not self.keep_tags:
            return inputs
        if wanted and kind == "scan":
            return self.of_function(functools.partial(_unrolled, eqn, wanted), inputs, wanted)
        if kind == "scan" and scan_of(eqn).length and self.unrolls(eqn):
            return self.of_function(functools.partial(_steps, eqn), inputs)
        if kind not in (OPENED if wanted else self.inlined):
            return self.kept(eqn, inputs)
        outputs = self.of_program(body_of(eqn), inputs, wanted)
        shardings = eqn.params.get("out_shardings", ())
        if any(isinstance(s, jax.sharding.Sharding) for s in shardings):
            return self.of_function(functools.partial(_sharded, shardings), outputs)
        return outputs

    def of_new(self, function: Finish, inputs: list[Any]) -> list[Any]:
        """Lists the equations of a function that the program has not, as they are."""
        plain = {"finish_for": _no_finish, "unrolls": _never}
        as_it_is = dataclasses.replace(self, inlined=(), keep_tags=True, **plain)
        return as_it_is.of_function(function, inputs)

    def of_function(
        self, function: Finish, inputs: list[Any], wanted: Wanted | None = None
    ) -> list[Any]:
        """Lists the equations of a function, which is traced."""
        return self.of_program(jax.make_jaxpr(function)(*(v.aval for v in inputs)), inputs, wanted)

    def kept(self, eqn: Any, inputs: list[Any], **params: Any) -> list[Any]:
        outputs = [v if is_dropped(v) else jex.Var(v.aval) for v in eqn.outvars]
        params = {**eqn.params, **params}
        self.equations.append(eqn.replace(invars=inputs, outvars=outputs, params=params))
        return outputs


def _renamed(v: Any, names: dict) -> Any:
    return names[v] if is_variable(v) else v


def _sharded(shardings: Sequence[Any], *values: Any) -> list[Any]:
    return [
        jax.lax.with_sharding_constraint(x, s) if isinstance(s, jax.sharding.Sharding) else x
        for x, s in zip(values, shardings, strict=True)
    ]


def _unrolled(eqn: Any, wanted: Wanted, *inputs: Any) -> list[Any]:
    """The steps before the wanted one as a scan, the wanted one as a call, the others as a scan."""
    body, fixed, carried, length, reverse = scan_of(eqn)
    step = wanted.nth // count_runs(body.jaxpr.eqns, wanted)
    order = slice(None, None, -1 if reverse else 1)
    consts, carry = inputs[:fixed], [*inputs[fixed : fixed + carried]]
    xs = [x[order] for x in inputs[fixed + carried :]]
    run = jex.jaxpr_as_fun(body)

    def one_step(carry, x):
        outputs = run(*consts, *carry, *x)
        return outputs[:carried], outputs[carried:]

    def steps(carry, start, stop):
        if start == stop:
            return carry, []
        carry, ys = jax.lax.scan(one_step, carry, [x[start:stop] for x in xs], stop - start)
        return carry, [ys]

    carry, before = steps(carry, 0, step)
    outputs = run(*consts, *carry, *(x[step] for x in xs))
    carry, after = steps(outputs[:carried], step + 1, length)
    parts = [*before, [jnp.asarray(y)[None] for y in outputs[carried:]], *after]
    return [*carry, *(jnp.concatenate(ys)[order] for ys in zip(*parts, strict=True))]


def _steps(eqn: Any, *inputs: Any) -> list[Any]:
    """All steps of a scan, one after the other."""
    body, fixed, carried, length, reverse = scan_of(eqn)
    consts, carry = inputs[:fixed], [*inputs[fixed : fixed + carried]]
    run, made = jex.jaxpr_as_fun(body), []
    for step in range(length)[:: -1 if reverse else 1]:
        outputs = run(*consts, *carry, *(x[step] for x in inputs[fixed + carried :]))
        carry = outputs[:carried]
        made.append(outputs[carried:])
    ys = zip(*(made[::-1] if reverse else made), strict=True)
    return [*carry, *(jnp.stack(y) for y in ys)]
