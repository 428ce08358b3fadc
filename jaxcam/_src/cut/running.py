"""Running a program that was traced before inside another trace, as one equation of it."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.core

from jaxcam._src.cut.programs import CALLS


def run(program: Any, arguments: Sequence[Any]) -> list[Any]:
    """What a program without constants returns.

    An equation less per equation of the program is traced: that is a third of what a cut costs.
    One that has effects, such as a print, is run equation by equation.
    """
    if program.effects:
        return jax.core.eval_jaxpr(program, (), *arguments)
    call = _call()
    return call.primitive.bind(*arguments, **{**call.params, _BODY: program})


@functools.cache
def _call() -> Any:
    """The equation of a call that a derivative takes nothing from: all is kept, nothing redone."""
    policy = jax.checkpoint_policies.everything_saveable
    return jax.make_jaxpr(jax.checkpoint(lambda: (), prevent_cse=False, policy=policy))().eqns[0]


_BODY = CALLS["checkpoint"]
