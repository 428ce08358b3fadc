"""A program as a chain of steps, through which first derivatives can be swept."""

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from jaxcam._src.cut.programs import has_refs, programs_in
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.walk import UNCHAINED

_PRODUCTS = ("dot_general", "conv_general_dilated")


class Step(NamedTuple):
    """Equations on the way from the point to the result, as a function of what moves.

    Attributes:
      sources: the variables that they take.
      results: those that they make and that lead on to the result.
      run: values of the sources -> values of the results.
      at: the values of the sources at the point.
      is_smooth: the function may have second derivatives.
    """

    sources: list[Any]
    results: list[Any]
    run: Callable[[Sequence[Array]], list[Array]]
    at: list[Array]
    is_smooth: bool

    def pulled(self, at: Sequence[Array], gradients: list[Array]) -> list[Array]:
        """The gradients by the sources, from those by the results."""
        return jax.vjp(self.run, at)[1](gradients)[0]


def steps_of(program: Program) -> list[Step] | None:
    """The steps of a program in order: each product, and all between two products.

    What is between is mostly elementwise, and its derivatives are made in one go.

    Returns:
      None where sweeps are not proved right: where JAX cannot differentiate the program both ways,
      where a custom rule breaks the chain rule or the symmetry of second derivatives, or where
      equations cannot be run one by one. Nor where a smooth equation is a loop or a branch: it
      would be gone through more often than by nested derivatives.
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
    return _steps(program) if is_proved else None


def at_once(program: Program, chunk_size: int) -> int:
    """How many sweeps hold what `chunk_size` nested derivatives do: each keeps all that moves.

    Nested ones hold a value and its seven derivatives, of what an equation takes and of what it
    makes at least.
    """
    sizes = [v.aval.size for v in program.positions]
    return max(1, min(chunk_size, chunk_size * 16 * max(sizes) // sum(sizes)))


def _has_parts(eqn: Any) -> bool:
    """Whether an equation runs programs of its own, as a loop or a branch does."""
    return eqn.primitive.name != "custom_jvp_call" and any(True for _ in programs_in(eqn))


def _steps(program: Program) -> list[Step]:
    needed, found = {program.result: None}, []
    for group in reversed(_groups(program)):
        made = [v for i in group for v in program.jaxpr.eqns[i].outvars]
        results = [v for v in made if v in needed]
        leading = functools.reduce(operator.or_, (program.upstream[v] for v in results), 0)
        own = [i for i in group if leading & 1 << i]
        taken = (v for i in own for v in program.moving(program.jaxpr.eqns[i].invars))
        sources = [v for v in dict.fromkeys(taken) if v not in made]
        if results:
            needed |= dict.fromkeys(sources)
            is_smooth = any(program.smooth & 1 << i for i in own)
            found.append(_step(program, sources, results, is_smooth))
    return found[::-1]


def _step(program: Program, sources: list[Any], results: list[Any], is_smooth: bool) -> Step:
    function, at = program.between(sources, results), [program.values[v] for v in sources]
    return Step(sources, results, lambda values: function(*values), at, is_smooth)


def _groups(program: Program) -> list[list[int]]:
    """The numbers of equations in order: each product alone, and what is between two together."""
    numbered = enumerate(program.jaxpr.eqns)
    products = [i for i, eqn in numbered if eqn.primitive.name in _PRODUCTS or _has_parts(eqn)]
    ends = sorted({0, len(program.jaxpr.eqns), *products, *(i + 1 for i in products)})
    return [[*range(*pair)] for pair in itertools.pairwise(ends)]
