"""The derivatives of a scalar along a curve, by one sweep forward through a program and one back.

Nested forward derivatives follow the second and the third derivative of every value on the way,
of which none is needed. Along a curve `c`, let `v1` be the first derivative of a value `v`, `g_v`
the gradient by it, and `g1_v` the first derivative of that. Summed over the steps `y = f(v)`,

    second = sum g_y D2f(v1, v1) + g_c c2
    third  = sum (g_y D3f(v1, v1, v1) + 3 g1_y D2f(v1, v1)) + 3 g1_c c2 + g_c c3

The sweep forward finds every `v1`, that back every `g1`. In perturbation theory this is the 2n + 1
theorem: Gonze 1995, https://doi.org/10.1103/PhysRevA.52.1086.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Derivatives
from jaxcam._src.cut.programs import has_refs, programs_in
from jaxcam._src.derivatives.directions import directional
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.walk import UNCHAINED

_PRODUCTS = ("dot_general", "conv_general_dilated")
_Values: TypeAlias = dict[Any, Array]  # of variables


class _Step(NamedTuple):
    """Equations on the way from the point to the result, as a function of what moves.

    Attributes:
      sources: the variables that they take.
      results: those that they make and that lead on to the result.
      function: `*values of the sources -> values of the results`.
      at: the values of the sources at the point.
      is_smooth: the function may have second derivatives.
    """

    sources: list[Any]
    results: list[Any]
    function: Callable[..., list[Array]]
    at: list[Array]
    is_smooth: bool

    def run(self, values: Sequence[Array]) -> list[Array]:
        """The values of the results, from those of the sources."""
        return self.function(*values)

    def pulled(self, at: Sequence[Array], gradients: list[Array]) -> list[Array]:
        """The gradients by the sources, from those by the results."""
        return jax.vjp(self.run, at)[1](gradients)[0]


def sweeping(program: Program) -> Callable[..., Derivatives] | None:
    """Makes `(first, second, third derivative of a curve from the point) -> of the result`.

    The curve is a straight line where the last two are left out.

    None where this is not proved right: where JAX cannot differentiate the program both ways, where
    a custom rule breaks the chain rule or the symmetry of second derivatives, or where equations
    cannot be run one by one. Nor where a smooth equation is a loop or a branch: it would be gone
    through more often than by nested derivatives.
    """
    if not program.moving([program.result]):
        return None
    outcome, leading = program.outcome, program.upstream[program.result]
    numbered = enumerate(program.jaxpr.eqns)
    smooth = [eqn for i, eqn in numbered if leading & program.smooth & 1 << i]
    is_proved = (
        outcome.forward
        and outcome.reverse
        and UNCHAINED not in outcome.opaque
        and not program.jaxpr.effects
        and not has_refs(program.jaxpr)
        and not any(map(_has_parts, smooth))
        and program.is_symmetric(leading)
    )
    return _sweeping(program) if is_proved else None


def at_once(program: Program, chunk_size: int) -> int:
    """How many sweeps hold what `chunk_size` nested derivatives do: each keeps all that moves.

    Nested ones hold eight derivatives of each value that is alive, of which there are two or more.
    """
    sizes = [v.aval.size for v in program.positions]
    return max(1, min(chunk_size, chunk_size * 16 * max(sizes) // sum(sizes)))


def _has_parts(eqn: Any) -> bool:
    """Whether an equation runs programs of its own, as a loop or a branch does."""
    return eqn.primitive.name != "custom_jvp_call" and any(True for _ in programs_in(eqn))


def _sweeping(program: Program) -> Callable[..., Derivatives]:
    steps, point = _steps(program), program.point
    one = jnp.ones_like(program.values[program.result])
    gradients, dtype = _gradients(steps, {program.result: one}), accumulated(one).dtype

    def dot(gradient: Array, moved: Array) -> Array:
        """In the dtype of the result; the real part of complex numbers, as JAX pairs them."""
        product = jnp.vdot(accumulated(gradient).conj(), accumulated(moved))
        return product.real.astype(dtype)

    def along(first: Array, second: Array | None = None, third: Array | None = None) -> Derivatives:
        speeds, bends = _forward(steps, {point: first.astype(point.aval.dtype)})
        turns = _back(steps, gradients, speeds)
        d2 = d3 = jnp.zeros((), dtype)
        for v, (by_two, by_three) in bends.items():
            d2 += dot(gradients[v], by_two)
            d3 += dot(gradients[v], by_three)
            d3 += 3 * dot(turns[v], by_two) if v in turns else 0
        if second is not None:
            d2 += dot(gradients[point], second)
            d3 += 3 * dot(turns[point], second) if point in turns else 0
        if third is not None:
            d3 += dot(gradients[point], third)
        return Derivatives(dot(gradients[point], first), d2, d3)

    return along


def _steps(program: Program) -> list[_Step]:
    """What leads from the point to the result, in order."""
    needed, found = {program.result: None}, []
    for group in reversed(_groups(program)):
        made = [v for i in group for v in program.jaxpr.eqns[i].outvars]
        results = [v for v in made if v in needed]
        leading = functools.reduce(operator.or_, (program.upstream[v] for v in results), 0)
        eqns = [program.jaxpr.eqns[i] for i in group if leading >> i & 1]
        taken = dict.fromkeys(v for eqn in eqns for v in program.moving(eqn.invars))
        sources = [v for v in taken if v not in made]
        if results:
            needed |= dict.fromkeys(sources)
            at = [program.values[v] for v in sources]
            is_smooth = any(leading & program.smooth & 1 << i for i in group)
            found.append(_Step(sources, results, program.between(sources, results), at, is_smooth))
    return found[::-1]


def _groups(program: Program) -> list[list[int]]:
    """The numbers of equations in order: each product alone, and what is between two together.

    What is between is mostly elementwise, and all its derivatives are made in one go through it.
    """
    numbered = enumerate(program.jaxpr.eqns)
    products = [i for i, eqn in numbered if eqn.primitive.name in _PRODUCTS or _has_parts(eqn)]
    count = len(program.jaxpr.eqns)
    ends = sorted({0, count, *products, *(i + 1 for i in products)})
    return [[*range(*pair)] for pair in itertools.pairwise(ends)]


def _gradients(steps: Sequence[_Step], known: _Values) -> _Values:
    """The gradients by all variables, from that by the result."""
    found = {**known}
    for step in reversed(steps):
        own = [found[v] for v in step.results]
        _add(found, step.sources, step.pulled(step.at, own))
    return found


def _forward(steps: Sequence[_Step], known: _Values) -> tuple[_Values, dict[Any, tuple]]:
    """The first derivatives of all variables, and the second and third that smooth steps add."""
    speeds, bends = {**known}, {}
    for step in steps:
        moved = [speeds[v] for v in step.sources]
        if step.is_smooth:
            first, second, third = directional(step.run, step.at, moved)
            bends |= zip(step.results, zip(second, third, strict=True), strict=True)
        else:
            _, first = jax.jvp(step.run, (step.at,), (moved,))
        speeds |= zip(step.results, first, strict=True)
    return speeds, bends


def _back(steps: Sequence[_Step], gradients: _Values, speeds: _Values) -> _Values:
    """The first derivatives of the gradients by all variables; left out where they are 0."""
    turns: _Values = {}
    for step in reversed(steps):
        if step.is_smooth or any(v in turns for v in step.results):
            own = [gradients[v] for v in step.results]
            turned = [
                turns[v] if v in turns else jnp.zeros_like(gradients[v]) for v in step.results
            ]
            moved = [speeds[v] for v in step.sources]
            _, made = jax.jvp(step.pulled, (step.at, own), (moved, turned))
            _add(turns, step.sources, made)
    return turns


def _add(totals: _Values, variables: Sequence[Any], terms: Sequence[Array]) -> None:
    """Adds to what is known of some variables."""
    for v, term in zip(variables, terms, strict=True):
        totals[v] = totals[v] + term if v in totals else term
