"""A scalar function as a list of equations at a point, and the parts that it falls into."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence, Set
from typing import Any

import jax
import jax.core
from jaxtyping import Array

from jaxcam._src.cut.depthwise import shifted_on_cpu
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import CALLS, has_refs, is_dropped, is_variable
from jaxcam._src.cut.repeated import without_repeats
from jaxcam._src.cut.softmax import softmaxes
from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.attention import divided_last, still
from jaxcam._src.derivatives.structure.narrowed import narrowed
from jaxcam._src.derivatives.structure.relations import Relation
from jaxcam._src.derivatives.structure.rules import Outcome
from jaxcam._src.derivatives.structure.walk import is_symmetric, trace


@dataclasses.dataclass(frozen=True)
class Program:
    """The equations that lead from a point to a scalar, and what they see of it.

    Attributes:
      jaxpr: calls opened, nothing dead, nothing computed twice.
      values: of every variable, at the point.
      positions: of every variable that carries a derivative to the result, which positions it
        sees; positions are all axes of the point but the last, taken together.
      channels: the same for the last axis. An element depends on an activation only if it sees
        its position and its channel.
      smooth: the equations that are not piecewise linear: bit i is equation i.
      outcome: of the whole.
    """

    jaxpr: Any
    values: dict[Any, Any]
    positions: dict[Any, Relation]
    channels: dict[Any, Relation]
    smooth: int
    outcome: Outcome

    @property
    def point(self) -> Any:
        """The variable of the point."""
        return self.jaxpr.invars[-1]

    @property
    def result(self) -> Any:
        """The variable of the scalar; a literal where it does not depend on the point."""
        return self.jaxpr.outvars[0]

    def moving(self, variables: Sequence[Any]) -> list[Any]:
        """Those of the variables that carry a derivative to the result."""
        return [v for v in variables if is_variable(v) and v in self.positions]

    def between(self, sources: Sequence[Any], sinks: Sequence[Any]) -> Callable[..., list]:
        """The part from some variables to others as a function; all else stays as at the point.

        It has the derivatives of the whole: what the sources reach without a derivative, such as
        the outcome of a comparison, is constant.
        """
        part, others = self.part(sources, sinks)
        part, constants = shifted_on_cpu(part), [self.values[v] for v in others]
        return lambda *values: jax.core.eval_jaxpr(part, (), *values, *constants)

    def result_at(self, x: Array) -> Array:
        """The result at a point, without dead code, which JAX may be unable to differentiate."""
        constants = [self.values[v] for v in self.jaxpr.invars[:-1]]
        return jax.core.eval_jaxpr(self.jaxpr, (), *constants, x)[0]

    def after(self, waist: Any) -> Callable[[Array], Array]:
        """The result as a function of a waist."""
        tail = self.between([waist], [self.result])
        return lambda value: tail(value)[0]

    def part(self, sources: Sequence[Any], sinks: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The same as a program, and the other variables that it takes after the sources."""
        reached, eqns = {*sources}, []
        leads = functools.reduce(operator.or_, (self.upstream[v] for v in self.moving(sinks)), 0)
        for i, eqn in enumerate(self.jaxpr.eqns):
            makes_source = any(v in sources for v in eqn.outvars)
            if (
                leads >> i & 1
                and not makes_source
                and reached.intersection(self.moving(eqn.invars))
            ):
                eqns.append(eqn)
                reached.update(self.moving(eqn.outvars))
        kept, needed = live(eqns, sinks)
        others = [v for v in needed if v not in sources]
        inputs = [*sources, *others]
        return self.jaxpr.replace(constvars=[], invars=inputs, outvars=[*sinks], eqns=kept), others

    @functools.cached_property
    def upstream(self) -> dict[Any, int]:
        """Of every variable the equations that lead to it from the point: bit i is equation i."""
        found = {self.point: 0}
        for i, eqn in enumerate(self.jaxpr.eqns):
            before = functools.reduce(operator.or_, (found[v] for v in self.moving(eqn.invars)), 0)
            found |= dict.fromkeys(self.moving(eqn.outvars), before | 1 << i)
        return found

    def is_smooth(self, sink: Any) -> bool:
        """Whether a variable may have second derivatives."""
        return bool(self.upstream[sink] & self.smooth)

    def is_linear_between(self, source: Any, sink: Any) -> bool:
        """Whether one waist lies before another, and only piecewise linear steps between them."""
        before, after = self.upstream[source], self.upstream[sink]
        return before != after and not before & ~after and not after & ~before & self.smooth

    def is_pooled(self, v: Any) -> bool:
        """Whether a variable has no positions of its own: all of it sees the same."""
        seen = self.positions[v]
        return seen.size == seen.shape[-1]

    def leads(self, source: Any, sinks: Sequence[Any]) -> bool:
        """Whether a variable leads to one of others."""
        return any(not self.upstream[source] & ~self.upstream[v] for v in sinks)

    def is_symmetric(self, among: int) -> bool:
        """Whether derivatives of some equations, a bit each, may be mixed in any order."""
        chosen = (eqn for i, eqn in enumerate(self.jaxpr.eqns) if among >> i & 1)
        return all(is_symmetric(eqn, self.moving(eqn.invars)) for eqn in chosen)

    def holding(self, held: Sequence[Any]) -> "Program":
        """The same program, in which some variables stay as at the point."""
        part, others = self.part([self.point, *held], [self.result])
        inputs = [*held, *others]
        jaxpr = part.replace(invars=[*inputs, self.point])
        return understood(jaxpr, [None] * len(inputs), self.point.aval.shape, self.values)

    def waists(self) -> list[Any]:
        """The variables between point and result that every path passes, in order."""
        eqns = [eqn for eqn in self.jaxpr.eqns if self.moving(eqn.outvars)]
        last_use = {v: i for i, eqn in enumerate(eqns) for v in self.moving(eqn.invars)}
        ahead, found = {self.point}, []
        for i, eqn in enumerate(eqns):
            ahead = {v for v in (*ahead, *eqn.outvars) if last_use.get(v, -1) > i}
            found += [v for v in ahead if len(ahead) == 1 and v not in (self.point, *found)]
        return found

    def frontier(self, sink: Any) -> list[Any]:
        """The earliest variables from which all that leads to `sink` is piecewise linear."""
        used, made, blocked = {sink}, set(), set()
        for i, eqn in reversed([*enumerate(self.jaxpr.eqns)]):
            if not self.upstream[sink] >> i & 1:
                continue
            if self.smooth >> i & 1 or blocked.intersection(eqn.outvars):
                blocked.update(self.moving(eqn.invars))
            else:
                used.update(self.moving(eqn.invars))
                made.update(eqn.outvars)
        order = {v: i for i, v in enumerate(self.positions)}
        return sorted(used - made, key=order.__getitem__)


def read(f: Callable[[Array], Array], x: Array) -> Program:
    """Traces a function, and finds what every variable of it sees of its argument."""
    jaxpr, constants = _opened(f, x)
    fixed = [None] * len(constants)
    jaxpr = _pooling_first(jaxpr, [*fixed, _positions(x.shape)])
    return understood(jaxpr, fixed, x.shape, evaluated(jaxpr, [*constants, x]))


def understood(
    jaxpr: Any, fixed: Sequence[None], shape: tuple[int, ...], values: dict[Any, Any]
) -> Program:
    """A program whose last argument is the point, with what its variables see of that."""
    positions, by_position = trace(jaxpr, [*fixed, _positions(shape)])
    channels, by_channel = trace(jaxpr, [*fixed, relations.identity(shape, [len(shape) - 1])])
    steps = zip(by_position, by_channel, strict=True)
    moving = _leading(jaxpr, positions.keys() & channels.keys())
    return Program(
        jaxpr,
        values,
        {v: seen for v, seen in positions.items() if v in moving},
        {v: seen for v, seen in channels.items() if v in moving},
        sum(
            1 << i
            for i, (step, eqn) in enumerate(zip(steps, jaxpr.eqns, strict=True))
            if all(s.smooth for s in step) and moving.intersection(eqn.outvars)
        ),
        Outcome([]).after(*by_position),
    )


def _leading(jaxpr: Any, moving: Set[Any]) -> set[Any]:
    """The point, and what passes its derivative to the result: no maximum of a softmax, say."""
    found = {v for v in jaxpr.outvars if is_variable(v)}
    for eqn in reversed(jaxpr.eqns):
        if not found.isdisjoint(eqn.outvars):
            found |= moving & {*filter(is_variable, eqn.invars)}
    return {v for v in moving if v in found or v is jaxpr.invars[-1]}


def _pooling_first(jaxpr: Any, inputs: Sequence[Relation | None]) -> Any:
    """The same program, where attention with queries that do not move pools before it divides."""
    if not still(softmaxes(jaxpr), trace(jaxpr, inputs)[0], among_others=True):
        return jaxpr
    smaller = narrowed(jaxpr)
    found = still(softmaxes(smaller), trace(smaller, inputs)[0])
    return divided_last(smaller, found) if found else jaxpr


def depends(f: Callable[[Array], Array], x: Array) -> bool:
    """Whether a scalar function may depend on any position of `x`; False is proved."""
    jaxpr, constants = _opened(f, x)
    if has_refs(jaxpr):
        return True
    (result,) = jaxpr.outvars
    seen = (
        trace(jaxpr, [*(None for _ in constants), _positions(x.shape)])[0].get(result)
        if jaxpr.eqns and is_variable(result)
        else None
    )
    return seen is not None and bool(seen.any())


def _opened(f: Callable[[Array], Array], x: Array) -> tuple[Any, list[Any]]:
    """The program of a function, calls opened, no code dead or repeated, and its constants."""
    program, constants = opened(jax.make_jaxpr(f)(x), CALLS)
    return without_repeats(program.replace(eqns=live(program.eqns, program.outvars)[0])), constants


def _positions(shape: tuple[int, ...]) -> Relation:
    return relations.identity(shape, range(len(shape))[:-1])


def evaluated(jaxpr: Any, arguments: Sequence[Any]) -> dict[Any, Any]:
    """The values of all variables of a program."""
    made = [v for eqn in jaxpr.eqns for v in eqn.outvars if not is_dropped(v)]
    values = jax.core.eval_jaxpr(jaxpr.replace(outvars=made), (), *arguments)
    return dict(zip((*jaxpr.invars, *made), (*arguments, *values), strict=True))
