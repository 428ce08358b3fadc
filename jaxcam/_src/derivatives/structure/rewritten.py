"""Programs that compute the same another way."""

from collections.abc import Callable
from typing import Any

import jax

from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import CALLS
from jaxcam._src.derivatives.structure.program import Program, evaluated, understood


def rewritten(program: Program, run: Callable[..., list[Any]]) -> Program:
    """The program of a function that takes what `program` takes, and may close over constants."""
    inputs = program.jaxpr.invars
    jaxpr, constants = opened(jax.make_jaxpr(run)(*(v.aval for v in inputs)), CALLS)
    jaxpr = jaxpr.replace(eqns=live(jaxpr.eqns, jaxpr.outvars)[0])
    arguments = [*constants, *(program.values[v] for v in inputs)]
    fixed = [None] * (len(arguments) - 1)
    return understood(jaxpr, fixed, program.point.aval.shape, evaluated(jaxpr, arguments))
