"""What the program of a head proves about it. Where nothing can be proved, nothing is assumed."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.cut.programs import UnknownLayoutError, is_variable, param


def why_not_pooled_linear(f: Callable[[Array], Array], x: Float[Array, "*spatial K"]) -> str | None:
    """Says why `f` is not proved to be a linear function of the sum of `x` over its positions.

    Returns:
      None where it is proved: the gradient does not depend on `x`, and every path from `x`
      passes a sum over all positions before anything that could tell them apart. Linear means
      that the derivative as JAX defines it is constant: rounding, `stop_gradient` and custom
      rules count as their derivative.
    """
    gradient = jax.make_jaxpr(jax.grad(f))(x).jaxpr
    if gradient.outvars[0] in _dependents(gradient):
        return "the score is no linear function of the activations"
    program = jax.make_jaxpr(f)(x).jaxpr
    culprit = _first_unpooled(program)
    return f"`{culprit}` comes before a sum over all positions" if culprit else None


def _dependents(jaxpr: Any) -> set:
    found = {*jaxpr.invars}
    for eqn in jaxpr.eqns:
        if any(v in found for v in eqn.invars if is_variable(v)):
            found.update(eqn.outvars)
    return found


def _first_unpooled(jaxpr: Any) -> str | None:
    """The first primitive that sees positions and is neither the same over them nor their sum."""
    # Of each variable that still has positions: which of its axes they are.
    positions = {v: {a for a, n in enumerate(v.aval.shape[:-1]) if n > 1} for v in jaxpr.invars}
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            if is_variable(v) and positions.get(v):
                left = _positions_left(eqn, v, positions[v])
                if left is None:
                    return eqn.primitive.name
                positions[eqn.outvars[0]] = left
    return None


def _positions_left(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    rule = _RULES.get(eqn.primitive.name)
    try:
        return rule(eqn, v, axes) if rule else None
    except UnknownLayoutError:
        return None


def _unchanged(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    return axes


def _cast(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    return axes if jnp.issubdtype(param(eqn, "new_dtype"), jnp.floating) else None


def _scaled(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    return axes if all(w is v or not w.aval.shape for w in eqn.invars) else None


def _transposed(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    return {param(eqn, "permutation").index(a) for a in axes}


def _reshaped(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    before, after = v.aval.shape, eqn.outvars[0].aval.shape
    if math.prod(before) != math.prod(after):
        return None
    left = set()
    for a, (start, end) in _spans(after).items():
        origin = {b for b, (low, high) in _spans(before).items() if low < end and start < high}
        if origin & axes:
            if not origin <= axes:
                return None
            left.add(a)
    return left


def _spans(shape: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """Which factors of the size each axis stands for: axes that share some overlap."""
    ends = [math.prod(shape[: a + 1]) for a in range(len(shape))]
    return {a: (end // shape[a], end) for a, end in enumerate(ends) if shape[a] > 1}


def _summed(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    kept = [a for a in range(v.aval.ndim) if a not in param(eqn, "axes")]
    return {kept.index(a) for a in axes if a in kept}


def _window_summed(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    size = v.aval.shape
    window, strides = param(eqn, "window_dimensions"), param(eqn, "window_strides")
    # Dilation, padding and strides skip positions or weigh them unevenly.
    dilated = {*param(eqn, "base_dilation"), *param(eqn, "window_dilation")} != {1}
    if dilated or any(low or high for low, high in param(eqn, "padding")):
        return None
    if any(window[a] != size[a] and (window[a], strides[a]) != (1, 1) for a in axes):
        return None
    return {a for a in axes if window[a] == 1}


_RULES = {
    "convert_element_type": _cast,
    "copy": _unchanged,
    "jaxcam_tag": _unchanged,
    "neg": _unchanged,
    "reduce_precision": _unchanged,
    "mul": _scaled,
    "div": _scaled,
    "add": _scaled,
    "sub": _scaled,
    "transpose": _transposed,
    "broadcast_in_dim": _reshaped,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "reduce_sum": _summed,
    "reduce_window_sum": _window_summed,
}
