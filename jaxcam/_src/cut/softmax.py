"""Softmaxes in a program: quotients of powers and their sum, over one axis."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from jaxcam._src.cut.programs import is_variable, param

_SummedFn: TypeAlias = Callable[[Any, dict[Any, Any]], Any]


class Softmax(NamedTuple):
    """A softmax over one axis of its logits, a variable."""

    logits: Any
    axis: int


def softmaxes(jaxpr: Any, summed_fn: _SummedFn | None = None) -> dict[Any, Softmax]:
    """The results of all softmaxes in a program: `exp(y) / sum(exp(y))`.

    Args:
      jaxpr: the program.
      summed_fn: the equation that makes what is summed, of it and of what makes each variable;
        None is all of it, `some_summed` leaves some out.
    """
    makers, found = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}, {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "div":
            above, below = eqn.invars
            softmax = _softmax(above, below, makers, summed_fn or maker)
            found |= {eqn.outvars[0]: softmax} if softmax else {}
    return found


def some_summed(v: Any, makers: dict[Any, Any]) -> Any:
    """The equation of an exp that is summed in part, as in `jax.nn.softmax(x, where=mask)`."""
    eqn = maker(v, makers)
    if eqn is None or eqn.primitive.name != "select_n":
        return eqn
    cases = [maker(case, makers) for case in eqn.invars[1:]]
    return next((case for case in cases if case and case.primitive.name == "exp"), None)


def _softmax(
    above: Any, below: Any, makers: dict[Any, Any], summed_fn: _SummedFn
) -> Softmax | None:
    """What the quotient of two variables is a softmax of."""
    exp, total, axes = maker(above, makers), *_sum_behind(below, makers)
    if exp is None or total is None or exp.primitive.name != "exp":
        return None
    summed = summed_fn(total.invars[0], makers)  # the same numbers, though perhaps computed again
    if summed is None or (summed.primitive, summed.invars) != (exp.primitive, exp.invars):
        return None
    (logits,), (axis, *more) = exp.invars, param(total, "axes")
    left = [a for a in range(logits.aval.ndim) if a != axis and logits.aval.shape[a] > 1]
    if more or not is_variable(logits) or axes != left:
        return None
    shift = maker(logits, makers)
    if shift is not None and shift.primitive.name == "sub":
        value, subtracted = shift.invars
        alike = is_variable(value) and value.aval.shape == logits.aval.shape
        if alike and subtracted.aval.shape[axis : axis + 1] in ((), (1,)):
            logits = value  # whatever it subtracts along the sum, the softmax is the same
    return Softmax(logits, int(axis))  # under vmap it is one of NumPy


def _sum_behind(v: Any, makers: dict[Any, Any]) -> tuple[Any, list[int]]:
    """The sum that a value repeats, or None, and where the value has the axes left in that sum."""
    axes = list(range(v.aval.ndim))
    while eqn := maker(v, makers):
        if eqn.primitive.name == "reduce_sum":
            return eqn, [a for a, size in zip(axes, v.aval.shape, strict=True) if size > 1]
        if eqn.primitive.name != "broadcast_in_dim":
            break
        (v,) = eqn.invars
        axes = [axes[to] for to in param(eqn, "broadcast_dimensions")]
    return None, []


def maker(v: Any, makers: dict[Any, Any]) -> Any:
    """The equation that a value comes from, by a cast or a name alone; None for a number."""
    while is_variable(v) and v in makers:
        kind = makers[v].primitive.name
        if kind != "jaxcam_tag" and (kind != "convert_element_type" or not is_floating(v)):
            return makers[v]
        (v,) = makers[v].invars
    return None


def is_floating(v: Any) -> bool:
    """A whole number has no derivative."""
    return jnp.issubdtype(v.aval.dtype, jnp.floating)
