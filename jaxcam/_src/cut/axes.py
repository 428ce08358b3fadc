"""Which axes of an array are the image's, read off the program.

A model that takes channels first may go on with channels last, as the convolutions of Flax do, one
of signals with tokens, and a function under `jax.vmap` sees no order of axes at all. So a layer may
lie otherwise than the image did.
"""

import functools
from collections.abc import Sequence
from typing import Any

from jax.extend import core as jex

from jaxcam._src.cut.axis_reshapes import (
    Axes,
    Axis,
    Beside,
    Of,
    agreed,
    is_position,
    without_others,
)
from jaxcam._src.cut.axis_rules import axes_of_result, filled
from jaxcam._src.cut.programs import (
    CALLS,
    body_of,
    is_variable,
    name_of,
    param,
    programs_in,
    scan_of,
)
from jaxcam._src.cut.tag import Lies, tag_p


def laid_as_proven(closed: Any) -> Any:
    """The same program, whose tags say how an array lies where that can be proven.

    Args:
      closed: what `jax.make_jaxpr` returns, of a model whose last argument is the image.
    """
    *others, image = closed.jaxpr.invars
    of_image = (*range(image.aval.ndim - 1), Of.CHANNELS)
    given = [*(filled(Of.WEIGHTS, v) for v in others), of_image]
    program, _ = _followed(closed.jaxpr, given)
    return jex.ClosedJaxpr(program, closed.consts)


def _followed(jaxpr: Any, inputs: Sequence[Axes]) -> tuple[Any, list[Axes]]:
    """The program with its tags as proven, and the axes of its results."""
    known = {v: filled(Of.CONSTANT, v) for v in jaxpr.constvars} | _met(jaxpr.invars, inputs)
    equations = []

    def axes_of(v: Any) -> Axes:
        if not is_variable(v):
            return filled(Of.CONSTANT, v)
        return known.get(v) or filled(Of.WEIGHTS, v)

    for eqn in jaxpr.eqns:
        proven, variables = eqn, [*filter(is_variable, eqn.invars)]
        if not (variables and known.keys().isdisjoint(variables)):  # else of weights, as the most
            proven, outputs = _through(eqn, [axes_of(v) for v in eqn.invars])
            known |= _met(eqn.outvars, outputs)
        equations.append(proven)
    # JAX's caches know a program that stays the same object.
    same = all(one is other for one, other in zip(equations, jaxpr.eqns, strict=True))
    return jaxpr if same else jaxpr.replace(eqns=equations), [axes_of(v) for v in jaxpr.outvars]


def _through(eqn: Any, inputs: list[Axes]) -> tuple[Any, list[Axes]]:
    """An equation with the tags inside as proven, and the axes of its results."""
    kind = eqn.primitive.name
    if all(axis is Of.CONSTANT for axes in inputs for axis in axes):
        return eqn, [filled(Of.CONSTANT, v) for v in eqn.outvars]
    if eqn.primitive is tag_p:
        return _tagged(eqn, *inputs), inputs
    if kind in CALLS and name_of(eqn) in _RESIZES:
        return eqn, inputs[:1]
    if kind in CALLS:
        body, outputs = _followed(body_of(eqn).jaxpr, inputs)
        return _with_body(eqn, CALLS[kind], body), outputs
    if kind == "scan":
        return _looped(eqn, inputs)
    if kind in ("optimization_barrier", "sort"):  # each result has an operand of its own
        lost = param(eqn, "dimension") if kind == "sort" else None
        return eqn, [tuple(None if n == lost else a for n, a in enumerate(x)) for x in inputs]
    if kind in _CLOSED:
        return eqn, _agreed_by_all(eqn, inputs)
    return eqn, [axes_of_result(eqn, v, inputs) for v in eqn.outvars]


def _tagged(eqn: Any, axes: Axes) -> Any:
    """The tag with what the program shows of its axes."""
    lies, shape = eqn.params["lies"], eqn.outvars[0].aval.shape
    batch = lies.batch_axis(shape)
    shown = _shown(lies, tuple(axis for n, axis in enumerate(axes) if n != batch), shape)
    return eqn if shown == lies else eqn.replace(params={**eqn.params, "lies": shown})


@functools.lru_cache
def _shown(lies: Lies, of_layer: Axes, shape: tuple[int, ...]) -> Lies:
    """How an array of this shape lies, whose axes but that of the batch are these."""
    order, own = lies.order_in(shape), [*of_layer]
    if any(own[n] is Of.DISORDERED for n in order[:-1]):
        return lies._replace(disordered=True)
    if len(own) == 2 and all(isinstance(without_others(axis), int) for axis in own):
        # Of columns, say, each with all its rows: these are features of it.
        own = [Of.CHANNELS if n == order[-1] else axis for n, axis in enumerate(own)]
    for n, axis in enumerate(own):
        axes, before = (axis.axes, axis.before) if isinstance(axis, Beside) else (axis, 0)
        if isinstance(axes, tuple) and len(axes) > 1:
            channels = 1 - n if len(own) == 2 else None
            return lies._replace(joined=axes, before=before, channels=channels)
    at = {_forwards(without_others(axis)): n for n, axis in enumerate(own) if is_position(axis)}
    if len(own) > 1 and len(at) == len(own) - 1:
        return _ordered(lies, own, lies.without_batch(shape), [at[axis] for axis in sorted(at)])
    if order[-1:] == [0] and own.count(Of.CHANNELS) == 1 and own[-1] is Of.CHANNELS:
        return lies._replace(channels=len(own) - 1)
    return lies._replace(positionless=any(own[n] is Of.CHANNELS for n in order[:-1]))


def _ordered(lies: Lies, own: Sequence[Axis], shape: Sequence[int], places: Sequence[int]) -> Lies:
    """The same of a layer all of whose axes but one are positions, which lie in these places."""
    (channels,) = {*range(len(own))} - {*places}
    lies = lies._replace(order=(*places, channels))
    first = own[places[0]]
    if len(own) == 2 and isinstance(first, Beside):  # turned, the others would be at its end
        return lies._replace(joined=first.axes, before=first.before)
    bare = [without_others(own[place]) for place in places]
    flipped = tuple(n for n, axis in enumerate(bare) if axis != _forwards(axis))
    joined = ((_forwards(bare[0]), shape[places[0]]),) if len(own) == 2 else None
    return lies._replace(flipped=flipped, joined=joined)


def _forwards(axis: Any) -> int:
    return max(axis, ~axis)


def _looped(eqn: Any, inputs: list[Axes]) -> tuple[Any, list[Axes]]:
    """A scan, whose carry is known to keep the axes that it has after every step."""
    scan = scan_of(eqn)
    fixed, carry, xs = (
        inputs[: scan.consts],
        inputs[scan.consts : scan.consts + scan.carry],
        inputs[scan.consts + scan.carry :],
    )
    while True:
        body, outputs = _followed(scan.body.jaxpr, [*fixed, *carry, *(axes[1:] for axes in xs)])
        pairs = zip(carry, outputs[: scan.carry], strict=True)
        kept = [tuple(x if x == y else None for x, y in zip(*pair, strict=True)) for pair in pairs]
        if kept == carry:
            break
        carry = kept
    steps = agreed([axes[0] for axes in xs if is_position(axes[0])])
    return _with_body(eqn, "jaxpr", body), [*carry, *((steps, *y) for y in outputs[scan.carry :])]


def _agreed_by_all(eqn: Any, inputs: list[Axes]) -> list[Axes]:
    """The axes of the results of all programs inside, which take the last operands."""
    said = [
        _followed(body, inputs[len(inputs) - len(body.invars) :])[1] for body in programs_in(eqn)
    ]
    results = zip(*said, strict=True)
    return [tuple(map(agreed, zip(*axes, strict=True))) for axes in results]


def _with_body(eqn: Any, key: str, body: Any) -> Any:
    whole = eqn.params[key]
    if body is (whole.jaxpr if isinstance(whole, jex.ClosedJaxpr) else whole):
        return eqn
    body = jex.ClosedJaxpr(body, whole.consts) if isinstance(whole, jex.ClosedJaxpr) else body
    return eqn.replace(params={**eqn.params, key: body})


def _met(variables: Sequence[Any], axes: Sequence[Axes]) -> dict[Any, Axes]:
    """The axes of those variables that are not of weights alone."""
    pairs = zip(variables, axes, strict=True)
    return {v: of for v, of in pairs if {*of} != {Of.WEIGHTS}}


_CLOSED = ("cond", "custom_jvp_call", "custom_vjp_call")  # in which nothing can be cut
_RESIZES = ("_resize", "_scale_and_translate")  # functions of jax.image
