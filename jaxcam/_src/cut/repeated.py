"""What a program computes twice, as a model that takes the mean for itself and for the variance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcam._src.cut.programs import is_dropped, is_variable


def without_repeats(jaxpr: Any) -> Any:
    """The same program, in which nothing is computed twice: common-subexpression elimination.

    Equations stay that have effects, a result that nobody uses, or parameters without a hash.
    """
    names: dict[Any, Any] = {}
    known: dict[Any, Any] = {}
    kept = []
    for eqn in jaxpr.eqns:
        inputs = [names.get(v, v) if is_variable(v) else v for v in eqn.invars]
        first = known.setdefault(_meaning(eqn, inputs), eqn)
        if first is eqn or any(map(is_dropped, first.outvars)):
            kept.append(eqn.replace(invars=inputs))
        else:
            names.update(zip(eqn.outvars, first.outvars, strict=True))
    outvars = [names.get(v, v) if is_variable(v) else v for v in jaxpr.outvars]
    return jaxpr.replace(eqns=kept, outvars=outvars)


def _meaning(eqn: Any, inputs: Sequence[Any]) -> Any:
    """What two equations share that compute the same; of one that may not, itself."""
    of = [v if is_variable(v) else (v.aval, np.asarray(v.val).tobytes()) for v in inputs]
    meaning = eqn.primitive, *of, *eqn.params.items()
    try:
        hash(meaning)
    except TypeError:
        return id(eqn)
    return id(eqn) if eqn.effects else meaning
