"""Programs that compute the same another way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core

from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import CALLS, alone
from jaxcam._src.derivatives.structure.program import Program, evaluated, understood


def rewritten(program: Program, run: Callable[..., list[Any]]) -> Program:
    """The program of a function that takes what `program` takes, and may close over constants."""
    inputs = program.jaxpr.invars
    jaxpr, constants = opened(jax.make_jaxpr(run)(*(v.aval for v in inputs)), CALLS)
    jaxpr = jaxpr.replace(eqns=live(jaxpr.eqns, jaxpr.outvars)[0])
    arguments = [*constants, *(program.values[v] for v in inputs)]
    fixed = [None] * (len(arguments) - 1)
    return understood(jaxpr, fixed, program.point.aval.shape, evaluated(jaxpr, arguments))


def made_by(eqn: Any, values: dict[Any, Any]) -> dict[Any, Any]:
    """The results of an equation."""
    part = alone(eqn)
    outputs = jax.core.eval_jaxpr(part, (), *(values[v] for v in part.invars))
    return dict(zip(eqn.outvars, outputs, strict=True))
