"""What the program of a head proves about it. Where nothing can be proved, nothing is assumed."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jex
from jaxtyping import Array, Float


def why_not_pooled_linear(f: Callable[[Array], Array], x: Float[Array, "*spatial K"]) -> str | None:
    """Says why `f` is not proved to be a linear function of the sum of `x` over its positions.

    Returns:
      None where it is proved: the gradient does not depend on `x`, and every path from `x`
      passes a sum over all positions before anything that could tell them apart.
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
        if any(v in found for v in eqn.invars if not isinstance(v, jex.Literal)):
            found.update(eqn.outvars)
    return found


def _first_unpooled(jaxpr: Any) -> str | None:
    """The first primitive that sees positions and is neither the same over them nor their sum."""
    # Of each variable that still has positions: which of its axes they are.
    positions = {v: {a for a, n in enumerate(v.aval.shape[:-1]) if n > 1} for v in jaxpr.invars}
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            if not isinstance(v, jex.Literal) and positions.get(v):
                left = _positions_left(eqn, v, positions[v])
                if left is None:
                    return eqn.primitive.name
                positions[eqn.outvars[0]] = left
    return None


def _positions_left(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    rule = _RULES.get(eqn.primitive.name)
    return rule(eqn, v, axes) if rule else None


def _unchanged(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    return axes


def _scaled(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    return axes if all(w is v or not w.aval.shape for w in eqn.invars) else None


def _transposed(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    return {eqn.params["permutation"].index(a) for a in axes}


def _reshaped(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    before = {a: n for a, n in enumerate(v.aval.shape) if n > 1}
    after = {a: n for a, n in enumerate(eqn.outvars[0].aval.shape) if n > 1}
    if [*before.values()] != [*after.values()]:
        return None
    moved = dict(zip(before, after, strict=True))
    return {moved[a] for a in axes}


def _summed(eqn: Any, v: Any, axes: set[int]) -> set[int]:
    kept = [a for a in range(v.aval.ndim) if a not in eqn.params["axes"]]
    return {kept.index(a) for a in axes if a in kept}


def _window_summed(eqn: Any, v: Any, axes: set[int]) -> set[int] | None:
    out = eqn.outvars[0].aval.shape
    if any(low or high for low, high in eqn.params["padding"]):
        return None
    if any(eqn.params["window_dimensions"][a] not in (1, v.aval.shape[a]) for a in axes):
        return None
    return {a for a in axes if out[a] > 1}


_RULES = {
    "convert_element_type": _unchanged,
    "copy": _unchanged,
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
