"""Values as sums of terms, each the product of a field and of what all positions share."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from jaxcam._src.cut.programs import is_variable, param
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.rules import POINTWISE

_MOST = 8  # terms of a value; one of more is not taken apart


class Term(NamedTuple):
    """A product.

    Attributes:
      field: differs between positions; None stands for 1.
      shared: is the same at all of them; None stands for 1.
    """

    field: Any
    shared: Any


Terms: TypeAlias = list[Term]


def terms_of(program: Program, v: Any, rows: Sequence[int], values: dict[Any, Any]) -> Terms:
    """The terms of a variable, of which one at most shares nothing.

    Args:
      program: that computes it.
      v: the variable.
      rows: the axes along which positions differ.
      values: of the variables before it.
    """
    makers = {made: eqn for eqn in program.jaxpr.eqns for made in eqn.outvars}

    def read(v: Any) -> Any:
        return values[v] if is_variable(v) else v.val

    def is_shared(v: Any) -> bool:
        return bool(program.moving([v])) and _is_repeated(v, rows, makers)

    def once(v: Any, value: Any) -> Any:
        repeated = (_is_repeated(v, [axis], makers) for axis in range(v.aval.ndim))
        return value[tuple(slice(0, 1) if alike else slice(None) for alike in repeated)]

    def terms(v: Any) -> Terms:
        if is_shared(v):  # less what it is at the point, lest sums cancel
            point = once(v, program.values[v])
            return [Term(point, None), Term(None, once(v, read(v)) - point)]
        eqn = makers.get(v) if program.moving([v]) else None
        if eqn is None:
            return [Term(read(v), None)]
        shared = [once(w, read(w)) if is_shared(w) else None for w in eqn.invars]
        found = _terms_made_by(eqn, shared, terms)
        return found if 0 < len(found) <= _MOST else [Term(read(v), None)]

    return terms(v) if rows else [Term(read(v), None)]


def _terms_made_by(eqn: Any, shared: Sequence[Any], terms: Callable[[Any], Terms]) -> Terms:
    """The terms of the result of an equation; none where there is no rule.

    Args:
      eqn: the equation.
      shared: the values of its operands, None for those that differ between positions.
      terms: those of an operand.
    """
    first, *others = eqn.invars
    match eqn.primitive.name, shared:
        case "mul", [_, factor] if factor is not None:
            return _times(terms(first), [Term(None, factor)])
        case "mul", [factor, _] if factor is not None:
            return _times(terms(*others), [Term(None, factor)])
        case "div", [_, divisor] if divisor is not None:
            return _times(terms(first), [Term(None, 1 / divisor)])
        case "mul", _:
            return _times(terms(first), terms(*others))
        case "square", _:
            return _times(terms(first), terms(first))
        case "integer_pow", _ if param(eqn, "y") == 2:
            return _times(terms(first), terms(first))
        case "add" | "add_any", _:
            return _plus(terms(first), terms(*others))
        case "sub", _:
            return _plus(terms(first), _times(terms(*others), [Term(-1, None)]))
        case "neg", _:
            return _times(terms(first), [Term(-1, None)])
        case _:
            return []


def _times(one: Terms, other: Terms) -> Terms:
    products = [Term(*map(_product, a, b)) for a in one for b in other]
    return _plus(products, [])


def _plus(one: Terms, other: Terms) -> Terms:
    """All terms, those that share nothing as one."""
    every = [*one, *other]
    alone = [term.field for term in every if term.shared is None]
    rest = [term for term in every if term.shared is not None]
    return [Term(functools.reduce(jnp.add, alone), None), *rest] if alone else rest


def _product(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one * other


def _is_repeated(v: Any, axes: Sequence[int], makers: dict[Any, Any]) -> bool:
    """Whether a value is proved to be the same all along some axes."""
    shape, eqn = v.aval.shape, makers.get(v) if is_variable(v) else None
    if not shape or all(shape[a] == 1 for a in axes):
        return True
    if eqn and eqn.primitive.name == "broadcast_in_dim":
        before, to = eqn.invars[0].aval.shape, param(eqn, "broadcast_dimensions")
        return all(size == 1 for size, axis in zip(before, to, strict=True) if axis in axes)
    if eqn and eqn.primitive.name in POINTWISE:
        return all(_is_repeated(w, axes, makers) for w in eqn.invars)
    return False
