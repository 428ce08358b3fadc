"""What a program sums over all positions, before anything in it could tell positions apart."""

import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.cut.programs import UnknownLayoutError, is_permuting, is_variable, param


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


def pooled(jaxpr: Any, point: Any, moving: Collection[Any]) -> list[Any]:
    """The first variables that are linear functions of the point's sum over its positions.

    Args:
      jaxpr: a program whose calls are opened.
      point: `[*spatial, K]`, a variable.
      moving: the variables that depend on the point.
    """
    positions, found = {point: _positions_of(point)}, []
    for eqn in jaxpr.eqns:
        sources = [v for v in eqn.invars if is_variable(v) and v in moving]
        divides = eqn.primitive.name == "div" and eqn.invars[1] in sources
        if len(sources) == 1 and positions.get(sources[0]) and not divides:
            left = _positions_left(eqn, sources[0], positions[sources[0]])
            positions |= {} if left is None else {eqn.outvars[0]: left}
            found += [] if left or left is None else [eqn.outvars[0]]
    return found


def _positions_of(v: Any) -> set[int]:
    return {a for a, n in enumerate(v.aval.shape[:-1]) if n > 1}


def _dependents(jaxpr: Any) -> set:
    found = {*jaxpr.invars}
    for eqn in jaxpr.eqns:
        if any(v in found for v in eqn.invars if is_variable(v)):
            found.update(eqn.outvars)
    return found


def _first_unpooled(jaxpr: Any) -> str | None:
    """The first primitive that sees positions and is neither the same over them nor their sum."""
    # Of each variable that still has positions: which of its axes they are.
    positions = {v: _positions_of(v) for v in jaxpr.invars}
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
    others = [w.aval.shape for w in eqn.invars if w is not v]
    return axes if all({shape[a] for a in axes} == {1} for shape in others if shape) else None


def _contracted(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    """A matrix over other axes. Result axes are those of the batch, then of the left, the right."""
    side = eqn.invars.index(v)
    contracted, batch = (both[side] for both in param(eqn, "dimension_numbers"))
    if axes.intersection((*contracted, *batch)) or eqn.invars[0] is eqn.invars[1]:
        return None
    free = [a for a in range(v.aval.ndim) if a not in contracted and a not in batch]
    start = len(batch) if side == 0 else eqn.outvars[0].aval.ndim - len(free)
    return {start + free.index(a) for a in axes}


def _convolved(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    """A convolution that sees one position at a time, and every one."""
    numbers, (image, kernel) = param(eqn, "dimension_numbers"), eqn.invars
    windows = [kernel.aval.shape[a] for a in numbers.rhs_spec[2:]]
    spatial = [*zip(numbers.lhs_spec[2:], numbers.out_spec[2:], strict=True)]
    alone = v is image and v is not kernel and {*windows} == {1}
    alike = all(image.aval.shape[a] == eqn.outvars[0].aval.shape[b] for a, b in spatial)
    apart = {*param(eqn, "window_strides"), *param(eqn, "lhs_dilation")} != {1}
    shifted = apart or any(low or high for low, high in param(eqn, "padding"))
    if not (alone and alike) or shifted or not axes <= {a for a, _ in spatial}:
        return None
    return {b for a, b in spatial if a in axes}


def _transposed(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    return {param(eqn, "permutation").index(a) for a in axes}


def _reshaped(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    before, after = v.aval.shape, eqn.outvars[0].aval.shape
    if math.prod(before) != math.prod(after) or is_permuting(eqn):
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
    "dot_general": _contracted,
    "conv_general_dilated": _convolved,
}
