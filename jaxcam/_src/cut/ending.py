"""What a program ends in: a softmax or a sigmoid, and the logits before it."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
from jaxtyping import Array

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import CALLS, alone, is_variable, param, programs_in
from jaxcam._src.cut.rewritten import rewritten
from jaxcam._src.cut.softmax import is_floating, maker

# What may stand between a softmax and the end: numbers only move.
MOVES = frozenset(
    "squeeze reshape slice dynamic_slice transpose broadcast_in_dim convert_element_type copy "
    "sharding_constraint jaxcam_tag".split()
)
_BLENDS = MOVES | set(
    "add sub mul div max min clamp concatenate stack pad rev gather select_n "
    "reduce_sum reduce_prod reduce_max reduce_min".split()
)
_SPREADS = MOVES | {"reduce_max", "reduce_sum", "stop_gradient", "max"}


class Ending(NamedTuple):
    """How a program ends.

    Attributes:
      name: "softmax" or "sigmoid".
      logits: the variable before it.
      together: how many numbers one softmax is of; of a sigmoid None.
      moves: the equations that follow it, in order.
    """

    name: str
    logits: Any
    together: int | None
    moves: tuple[Any, ...]


def name_of_ending(jaxpr: Any) -> str | None:
    """What a program, whose calls are opened, ends in.

    Returns:
      "softmax" or "sigmoid"; "blend" where what they return is clipped, averaged or joined; None
      for all else.
    """
    found = _ending(jaxpr)
    if found:
        return found.name
    return "blend" if len(jaxpr.outvars) == 1 and jaxpr.outvars[0] in _blends(jaxpr) else None


def logits_of(jaxpr: Any) -> list[Any]:
    """What a program, whose calls are opened, returns; that before a softmax, if it ends so."""
    found = _ending(jaxpr)
    return [found.logits] if found else [*jaxpr.outvars]


def to_logits(apply_fn: ApplyFn) -> ApplyFn:
    """The same model without the softmax or the sigmoid that it ends in, which stays as it is.

    Under a saturated softmax the probabilities are 0 and 1 to all digits, and their gradient is
    rounding; the logits are exact.

    Args:
      apply_fn: `(variables, image) -> probabilities [classes]`.

    Returns:
      `(variables, image) -> logits [classes]`, with the same layers.

    Raises:
      ValueError: by the result, where the program of the model shows no softmax and no sigmoid at
        its end.

    >>> def network(variables, image):
    ...     return jax.nn.softmax(apply_fn(variables, image))
    >>> logits = jaxcam.to_logits(network)(variables, image)
    >>> bool(jnp.allclose(logits, apply_fn(variables, image)))
    True
    """

    def without_ending(closed: Any, image: Any) -> tuple[Any, list[Any]]:
        program, constants = opened(closed, keep_tags=True)
        found = _ending(program)
        if found is None:
            raise ValueError(
                "the model shows no softmax and no sigmoid at its end; if it returns logits, leave "
                "out jaxcam.to_logits, else let apply_fn return them (adapters: output_fn=)"
            )
        return _skipped(program, found), constants

    return rewritten(apply_fn, without_ending)


def _skipped(program: Any, ending: Ending) -> Any:
    """The program that goes on with the logits as it did with the probabilities."""
    again = functools.partial(_moved, moves=ending.moves)
    tail = jax.make_jaxpr(again)(ending.logits.aval).jaxpr
    names = dict(zip(tail.invars, [ending.logits], strict=True))
    moves = [
        e.replace(invars=[names.get(v, v) if is_variable(v) else v for v in e.invars])
        for e in tail.eqns
    ]
    outvars = [names.get(v, v) for v in tail.outvars]
    return program.replace(eqns=live([*program.eqns, *moves], outvars)[0], outvars=outvars)


def _moved(value: Array, moves: Sequence[Any]) -> Array:
    for move in moves:
        (value,) = jax.core.eval_jaxpr(alone(move), (), value)
    return value


def _ending(jaxpr: Any) -> Ending | None:
    if len(jaxpr.outvars) != 1:
        return None
    makers, moves = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}, []
    returned = result = jaxpr.outvars[0]
    while is_variable(result) and result in makers:
        eqn = makers[result]
        kind = eqn.primitive.name
        if kind not in MOVES or sum(map(is_variable, eqn.invars)) != 1:
            found = _squashed(eqn, makers)
            ending = found and Ending(*found, tuple(reversed(moves)))
            return None if ending and _is_of_groups(ending, returned) else ending
        moves.append(eqn)
        result = eqn.invars[0]
    return None


def _blends(jaxpr: Any) -> set[Any]:
    """The values that are made of probabilities and numbers alone."""
    makers, found = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}, set()
    for eqn in jaxpr.eqns:
        if _squashed(eqn, makers):
            found.update(eqn.outvars)
        elif eqn.primitive.name in _BLENDS:
            parts = {v for v in eqn.invars if not _is_number(v, makers) and is_floating(v)}
            found.update(eqn.outvars if parts and parts <= found else ())
    return found


def _is_number(v: Any, makers: dict[Any, Any]) -> bool:
    """Whether a value is one number, which the program has or is given."""
    while is_variable(v) and v in makers and makers[v].primitive.name in MOVES:
        (v, *_) = makers[v].invars
    return v.aval.size == 1 and not (is_variable(v) and v in makers)


def _is_of_groups(ending: Ending, returned: Any) -> bool:
    """Whether a vector holds the probabilities of several softmaxes, one behind the other."""
    together = ending.together
    return together is not None and returned.aval.ndim == 1 and returned.aval.size > together


def _squashed(eqn: Any, makers: dict[Any, Any]) -> tuple[str, Any, int | None] | None:
    """The kind of an equation that squashes logits, these, and how many of them together."""
    kind = eqn.primitive.name
    if kind == "logistic":
        return "sigmoid", eqn.invars[0], None
    if kind in _ENDINGS:
        return next(filter(None, (read(eqn, makers) for read in _ENDINGS[kind])), None)
    if kind in CALLS or kind == "custom_jvp_call":
        body = next(programs_in(eqn))
        found = _ending(body)
        if found and not found.moves and found.logits in body.invars:
            return found.name, eqn.invars[body.invars.index(found.logits)], found.together
    return None


def _softened(eqn: Any, makers: dict[Any, Any]) -> tuple[str, Any, int] | None:
    """The `x` of `exp(x - m) / sum(exp(x - m))`, with an `m` that is the same for all of a sum."""
    numerator, denominator = eqn.invars
    exp, total = maker(numerator, makers), _origin(denominator, makers, "reduce_sum")
    if exp is None or exp.primitive.name != "exp" or total is None:
        return None
    summed = maker(total.invars[0], makers)  # the same numbers, though perhaps computed again
    if summed is None or (summed.primitive, summed.invars) != (exp.primitive, exp.invars):
        return None
    return _unshifted(exp.invars[0], total, makers)


def _unlogged(eqn: Any, makers: dict[Any, Any]) -> tuple[str, Any, int] | None:
    """The `x` of `exp(y - log(sum(exp(y))))` with `y = x` or `x - m`: of a log-softmax."""
    less = maker(eqn.invars[0], makers)
    if less is None or less.primitive.name != "sub":
        return None
    power, subtracted = less.invars
    log = _origin(subtracted, makers, "log")
    total = log and _origin(log.invars[0], makers, "reduce_sum")
    exp = total and maker(total.invars[0], makers)
    if exp is None or exp.primitive.name != "exp" or exp.invars[0] is not power:
        return None
    return _unshifted(power, total, makers)


def _inverted(eqn: Any, makers: dict[Any, Any]) -> tuple[str, Any, None] | None:
    """The `x` of `1 / (1 + exp(-x))`, of a sigmoid that is written out."""
    one, denominator = eqn.invars
    plus = maker(denominator, makers)
    if not _is_one(one) or plus is None or plus.primitive.name != "add":
        return None
    exp = next((maker(v, makers) for v in plus.invars if not _is_one(v)), None)
    if exp is None or exp.primitive.name != "exp" or not any(map(_is_one, plus.invars)):
        return None
    negated = maker(exp.invars[0], makers)
    if negated is None or negated.primitive.name != "neg":
        return None
    return "sigmoid", negated.invars[0], None


_ENDINGS = {"div": [_softened, _inverted], "exp": [_unlogged]}  # by their last equation


def _unshifted(power: Any, total: Any, makers: dict[Any, Any]) -> tuple[str, Any, int]:
    """The softmax of `x`, given as `x - m` with `m` the largest of those in a sum, or as it is."""
    axes, shift, logits = {*param(total, "axes")}, maker(power, makers), power
    if shift is not None and shift.primitive.name == "sub":
        value, subtracted = shift.invars
        largest = _origin(subtracted, makers, "reduce_max")
        alike = largest is not None and largest.invars[0].aval.shape == value.aval.shape
        logits = value if alike and axes <= {*param(largest, "axes")} else power
    return "softmax", logits, math.prod(power.aval.shape[axis] for axis in axes)


def _is_one(v: Any) -> bool:
    return not is_variable(v) and np.size(v.val) == 1 and bool(np.all(v.val == 1))


def _origin(v: Any, makers: dict[Any, Any], kind: str) -> Any:
    """The equation of this kind that a value comes from, by spreading alone."""
    while is_variable(v) and v in makers:
        eqn = makers[v]
        if eqn.primitive.name == kind:
            return eqn
        if eqn.primitive.name not in _SPREADS:
            return None
        v = next((w for w in eqn.invars if is_variable(w)), None)
    return None
