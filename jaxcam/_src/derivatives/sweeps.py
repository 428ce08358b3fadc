"""The derivatives of a scalar along a curve, by one sweep forward through a program and one back.

Nested forward derivatives follow the second and the third derivative of every value on the way,
of which none is needed. Along a curve `c`, let `v1` be the first derivative of a value `v`, `g_v`
the gradient by it, and `g1_v` the first derivative of that. Summed over the steps `y = f(v)`,

    second = sum g_y D2f(v1, v1) + g_c c2
    third  = sum (g_y D3f(v1, v1, v1) + 3 g1_y D2f(v1, v1)) + 3 g1_c c2 + g_c c3

The sweep forward finds every `v1`, that back every `g1`. In perturbation theory this is the 2n + 1
theorem: Gonze 1995, https://doi.org/10.1103/PhysRevA.52.1086.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Derivatives
from jaxcam._src.cut.depthwise import is_on_cpu
from jaxcam._src.derivatives.directions import directional
from jaxcam._src.derivatives.structure.program import Program
from jaxcam._src.derivatives.structure.steps import Step, steps_of

_Values: TypeAlias = dict[Any, Array]  # of variables


def sweeping(program: Program) -> Callable[..., Derivatives] | None:
    """Makes `derivatives of a curve from the point -> derivatives of the result along it`.

    What it makes takes the first, the second and the third; without the last two the curve is a
    straight line. None where `steps_of` proves no steps.
    """
    steps = steps_of(program)
    if steps is None:
        return None
    point, value = program.point, program.values[program.result]
    one, is_positive = jnp.ones_like(value), value > 0
    gradients = _gradients(steps, {program.result: one})

    def along(first: Array, second: Array | None = None, third: Array | None = None) -> Derivatives:
        speeds, bends = _forward(steps, {point: first.astype(point.aval.dtype)})
        turns = _back(steps, gradients, speeds, is_positive)
        bends |= {} if second is None else {point: (second, third)}
        d2 = d3 = jnp.zeros((), accumulated(one).dtype)
        for v, (by_two, by_three) in bends.items():
            d2 += _dot(gradients[v], by_two).astype(d2.dtype)
            d3 += 3 * _dot(turns[v], by_two).astype(d3.dtype) if v in turns else 0
            if by_three is not None:
                d3 += _dot(gradients[v], by_three).astype(d3.dtype)
        return Derivatives(accumulated(speeds[program.result]), d2, d3)

    return along


def _gradients(steps: Sequence[Step], known: _Values) -> _Values:
    """The gradients by all variables, from that by the result."""
    found = {**known}
    for step in reversed(steps):
        own = [found[v] for v in step.results]
        _add(found, step.sources, step.pulled(step.at, own))
    return found


def _forward(steps: Sequence[Step], known: _Values) -> tuple[_Values, dict[Any, tuple]]:
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


def _back(steps: Sequence[Step], gradients: _Values, speeds: _Values, unknown: Array) -> _Values:
    """The first derivatives of the gradients by all variables; left out where they are 0.

    `unknown` is any truth value that no compiler knows.
    """
    turns: _Values = {}
    for step in reversed(steps):
        if step.is_smooth or any(v in turns for v in step.results):
            own = [gradients[v] for v in step.results]
            still = map(jnp.zeros_like, own)
            turned = [turns.get(v, zero) for v, zero in zip(step.results, still, strict=True)]
            moved = [speeds[v] for v in step.sources]
            _, made = jax.jvp(step.pulled, (step.at, own), (moved, turned))
            _add(turns, step.sources, _kept(made, unknown) if step.is_smooth else made)
    return turns


def _kept(values: list[Array], unknown: Array) -> list[Array]:
    """The same values, which XLA does not compute anew for each window of a sum that takes them.

    On a CPU it fuses across a barrier, yet not out of a branch, though both sides are the same.
    (Where images are mapped, `unknown` is too, and no branch is left: then it does as it likes.)
    """
    if not is_on_cpu():
        return values
    return jax.lax.cond(unknown, lambda x: x, jax.lax.optimization_barrier, values)


def _add(totals: _Values, variables: Sequence[Any], terms: Sequence[Array]) -> None:
    """Adds to what is known of some variables."""
    for v, term in zip(variables, terms, strict=True):
        totals[v] = totals[v] + term if v in totals else term


def _dot(gradient: Array, moved: Array) -> Array:
    """Of complex numbers the real part, as JAX pairs a gradient with what it is by."""
    gradient, moved = accumulated(gradient).conj(), accumulated(moved)
    return jnp.vdot(gradient, moved, precision="highest").real
