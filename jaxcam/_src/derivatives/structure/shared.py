"""Values as sums of terms, each the product of a field and of what all positions share."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from jaxcam._src.cut.programs import is_variable, param
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.rules import POINTWISE

_MOST = 8  # terms of a value, since each is summed by itself; one of more is not taken apart
_RULES = frozenset("add add_any convert_element_type div integer_pow mul neg square sub".split())


class Term(NamedTuple):
    """A product.

    Attributes:
      field: differs between positions; None stands for 1.
      shared: is the same at all of them; None stands for 1.
    """

    field: Any
    shared: Any


Terms: TypeAlias = list[Term]
Alike: TypeAlias = dict[Any, frozenset[int]]  # of each variable axes along which it is the same


def alike(jaxpr: Any) -> Alike:
    """The axes along which each variable of a program is proved to be the same: it is repeated."""
    found: Alike = {}
    for eqn in jaxpr.eqns:
        axes = frozenset(range(eqn.outvars[0].aval.ndim)) if len(eqn.outvars) == 1 else frozenset()
        if eqn.primitive.name == "broadcast_in_dim":
            source, to = eqn.invars[0], param(eqn, "broadcast_dimensions")
            differing = {*range(len(to))} - _axes_of(source, found)
            found[eqn.outvars[0]] = axes - {to[a] for a in differing}
        elif eqn.primitive.name in POINTWISE:
            several = (_axes_of(v, found) for v in eqn.invars if v.aval.ndim)
            found[eqn.outvars[0]] = functools.reduce(frozenset.intersection, several, axes)
    return found


def _axes_of(v: Any, found: Alike) -> frozenset[int]:
    """The axes along which an operand is the same: a literal along those of size 1."""
    single = frozenset(a for a, size in enumerate(v.aval.shape) if size == 1)
    return single | found.get(v, single) if is_variable(v) else single


@dataclasses.dataclass(frozen=True)
class _At:
    """The values of a program's variables, and along which axes these are the same.

    Attributes:
      program: that computes them.
      rows: the axes along which positions differ.
      known: the axes along which each is the same.
      values: of the variables.
    """

    program: Program
    rows: Collection[int]
    known: Alike
    values: dict[Any, Any]

    def read(self, v: Any) -> Any:
        """The value of an operand, which may be a literal."""
        return self.values[v] if is_variable(v) else v.val

    def is_shared(self, v: Any) -> bool:
        """Whether it moves, the same at all positions."""
        is_alike = v.aval.ndim == 0 or _axes_of(v, self.known).issuperset(self.rows)
        return is_alike and bool(self.program.moving([v]))

    def once(self, v: Any, value: Any) -> Any:
        """A value without repetition."""
        alike = _axes_of(v, self.known)
        return value[tuple(slice(0, 1) if a in alike else slice(None) for a in range(v.aval.ndim))]

    def single(self, v: Any) -> Term | None:
        """The one term of what is shared, or does not move."""
        if self.is_shared(v):
            return Term(None, self.once(v, self.read(v)))
        return None if self.program.moving([v]) else Term(self.read(v), None)


def terms_of(
    program: Program, v: Any, rows: Collection[int], known: Alike, values: dict[Any, Any]
) -> Terms:
    """The terms of a variable, of which one at most shares nothing.

    Args:
      program: that computes it.
      v: the variable.
      rows: the axes along which positions differ.
      known: along which axes the variables are the same.
      values: of the variables before it.
    """
    if not rows:
        return [Term(values[v], None)]
    at, found = _At(program, rows, known, values), {}

    def terms(w: Any) -> Terms:
        if at.is_shared(w):  # less what it is at the point, lest sums cancel
            point = at.once(w, program.values[w])
            return [Term(point, None), Term(None, at.once(w, at.read(w)) - point)]
        is_apart = is_variable(w) and 0 < len(found.get(w, ())) <= _MOST
        return found[w] if is_apart else [Term(at.read(w), None)]

    for eqn in _leading_to(v, at):
        found[eqn.outvars[0]] = _made_by(eqn, terms, at.single)
    return terms(v)


def _leading_to(v: Any, at: _At) -> list[Any]:
    """The equations with a rule of which a variable is made, in order, back to what is shared."""
    wanted, eqns = {v}, []
    for eqn in reversed(at.program.jaxpr.eqns):
        is_wanted = eqn.primitive.name in _RULES and eqn.outvars[0] in wanted
        if is_wanted and not at.is_shared(eqn.outvars[0]):
            wanted.update(at.program.moving(eqn.invars))
            eqns.append(eqn)
    return eqns[::-1]


def _made_by(
    eqn: Any, terms: Callable[[Any], Terms], single: Callable[[Any], Term | None]
) -> Terms:
    """The terms of the result of an equation; none where it has too many operands that move."""
    first, last = eqn.invars[0], eqn.invars[-1]
    match eqn.primitive.name:
        case "mul" if term := single(last):
            return _times(terms(first), [term])
        case "mul" if term := single(first):
            return _times(terms(last), [term])
        case "div" if term := single(last):
            return _times(terms(first), [Term(*(x if x is None else 1 / x for x in term))])
        case "div":
            return []
        case "integer_pow" if param(eqn, "y") != 2:
            return []
        case "mul" | "square" | "integer_pow":
            return _times(terms(first), terms(last))
        case "sub":
            return _plus(terms(first), _times(terms(last), [Term(-1, None)]))
        case "neg":
            return _times(terms(first), [Term(-1, None)])
        case "convert_element_type":
            dtype = eqn.outvars[0].aval.dtype
            return [
                Term(*(x if x is None else jnp.asarray(x, dtype) for x in t)) for t in terms(first)
            ]
        case _:
            return _plus(terms(first), terms(last))


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
