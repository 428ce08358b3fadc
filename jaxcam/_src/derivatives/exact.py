"""The ways to exact derivatives, one for each case that a program's structure allows."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Derivatives
from jaxcam._src.chunks import mapped
from jaxcam._src.derivatives.directions import basis, directional
from jaxcam._src.derivatives.fed_back import fed_back
from jaxcam._src.derivatives.local import gated, local, local_pooled
from jaxcam._src.derivatives.structure import (
    FedBack,
    Gated,
    Linear,
    LinearFirst,
    Local,
    LocalPooled,
    Plan,
    Pooled,
    plan,
)
from jaxcam._src.derivatives.structure.program import Program, read
from jaxcam._src.derivatives.structure.steps import at_once
from jaxcam._src.derivatives.structure.walk import has_custom_vjp
from jaxcam._src.derivatives.sweeps import sweeping


def cheapest(
    f: Callable[[Array], Array], x: Float[Array, "*shape"], chunk_size: int
) -> Derivatives:
    """The derivatives by the way that the structure of `f` makes cheapest."""
    return _by_plan(_checked_plan(f, x), f, x, chunk_size)


def chosen(
    f: Callable[[Array], Array], x: Float[Array, "*shape"], at: Int[Array, "*at"], chunk_size: int
) -> Derivatives:
    """The derivatives along the coordinates `at`, flat indices of `x`; NaN where there is none.

    A direction for each of them, or all derivatives where the structure of `f` needs no more.
    """
    planned = _checked_plan(f, x)
    outcome = planned.program.outcome
    if outcome.reverse and planned.directions <= at.size:
        found = Derivatives(*(d.reshape(-1)[at] for d in _by_plan(planned, f, x, chunk_size)))
    else:
        found = _along(f, planned.program, x, at.reshape(-1), chunk_size)
    known = (at >= 0) & (at < x.size)
    return Derivatives(*(jnp.where(known, d.reshape(at.shape), jnp.nan) for d in found))


def _checked_plan(f: Callable[[Array], Array], x: Float[Array, "*shape"]) -> Plan:
    planned = plan(f, x)
    if not (planned.program.outcome.forward or planned.program.outcome.reverse):
        raise ValueError(
            "the function has both a custom_vjp and a while_loop between its argument and its "
            "result, which JAX can differentiate in neither mode; use a custom_jvp or a scan"
        )
    return planned


def _by_plan(
    planned: Plan, f: Callable[[Array], Array], x: Float[Array, "*shape"], chunk_size: int
) -> Derivatives:
    program, outcome = planned.program, planned.program.outcome
    match planned.case:
        case Linear() if outcome.reverse:
            return linear(f, x)
        case Pooled() as case:
            return _pooled(program, case, x, chunk_size)
        case Local() as case:
            return local(f, program, case, x, chunk_size)
        case LocalPooled() as case:
            return local_pooled(f, program, case, x, chunk_size)
        case Gated() as case:
            return gated(f, program, case, x, chunk_size)
        case FedBack() as case:
            return fed_back(f, program, case, x, chunk_size)
        case LinearFirst() as case:
            return _linear_first(program, case, x, chunk_size)
        case _:
            found = _along(f, program, x, jnp.arange(x.size), chunk_size)
            return Derivatives(*(values.reshape(x.shape) for values in found))


def _without_obstacles(
    f: Callable[[Array], Array], program: Program, x: Array
) -> Callable[[Array], Array]:
    """The function, or its program without dead code if that may have no derivatives forward."""
    return program.result_at if has_custom_vjp(jax.make_jaxpr(f)(x).jaxpr) else f


def linear(f: Callable[[Array], Array], x: Float[Array, "*shape"]) -> Derivatives:
    """The gradient, and zeros."""
    gradient = accumulated(jax.grad(f)(x))
    return Derivatives(gradient, jnp.zeros_like(gradient), jnp.zeros_like(gradient))


def _along(
    f: Callable[[Array], Array],
    program: Program,
    x: Float[Array, "*shape"],
    indices: Int[Array, " n"],
    chunk_size: int,
) -> Derivatives:
    """The derivatives along some coordinates, `[n]`, a direction each: right for every function."""
    found = _along_lines(f, program, x, indices, lambda index: basis(index, x), chunk_size)
    return Derivatives(*map(accumulated, found))


def _along_lines(
    f: Callable[[Array], Array],
    program: Program,
    x: Float[Array, "*shape"],
    lines: Shaped[Array, "n ..."],
    direction_of: Callable[[Array], Array],
    chunk_size: int,
) -> Derivatives:
    """The derivatives along the directions that are made of each of `lines`, `[n]`."""
    if along := sweeping(program):
        chunk_size = at_once(program, chunk_size)
    elif program.outcome.forward:
        along = functools.partial(directional, _without_obstacles(f, program, x), x)
    else:
        along = functools.partial(_backward, f, x)
    return mapped(lambda line: along(direction_of(line)), lines, chunk_size)


def _backward(f: Callable[[Array], Array], x: Array, direction: Array) -> Derivatives:
    """The derivatives along a direction, by those of the gradient."""
    gradient = jax.grad(f)
    second = lambda x: jax.jvp(gradient, (x,), (direction,))[1]  # noqa: E731
    found = gradient(x), *jax.jvp(second, (x,), (direction,))
    return Derivatives(*(jnp.vdot(d, direction) for d in found))


def _pooled(program: Program, case: Pooled, x: Array, chunk_size: int) -> Derivatives:
    """The chain rule: an activation reaches one pooled number, with one factor."""
    to_waist = program.between([program.point], [case.waist])
    factor = accumulated(jax.grad(lambda x: to_waist(x)[0].sum())(x))
    inner = cheapest(program.after(case.waist), program.values[case.waist], chunk_size)
    reached = [d.reshape(-1)[case.reached] for d in inner]
    found = [jnp.where(case.reached >= 0, factor**n * d, 0) for n, d in enumerate(reached, start=1)]
    return Derivatives(*found)


def _linear_first(program: Program, case: LinearFirst, x: Array, chunk_size: int) -> Derivatives:
    """The Jacobian of the waist, row by row, then the result along each of its columns."""
    after, waist = program.after(case.waist), program.values[case.waist]
    _, pull = jax.vjp(lambda x: program.between([program.point], [case.waist])(x)[0], x)

    def row(index):
        return pull(basis(index, waist))[0].reshape(-1)

    rows = mapped(row, jnp.arange(waist.size), chunk_size)

    def direction_of(column):
        return column.reshape(waist.shape).astype(waist.dtype)

    found = _along_lines(after, read(after, waist), waist, rows.T, direction_of, chunk_size)
    return Derivatives(*(accumulated(values).reshape(x.shape) for values in found))
