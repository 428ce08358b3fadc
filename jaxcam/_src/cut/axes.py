"""Which axes of an array are the image's, read off the program.

A model that takes channels first may go on with channels last, as the convolutions of Flax do, one
of signals with tokens, and a function under `jax.vmap` sees no order of axes at all. So a layer may
lie otherwise than the image did.
"""

from collections.abc import Sequence
from typing import Any

from jax.extend import core as jex

from jaxcam._src.cut.axis_reshapes import Axes, Beside
from jaxcam._src.cut.axis_rules import agreed, axes_of_result, unknown
from jaxcam._src.cut.programs import (
    CALLS,
    body_of,
    is_variable,
    name_of,
    param,
    programs_in,
    scan_of,
)
from jaxcam._src.cut.tag import tag_p


def laid_as_proven(closed: Any) -> Any:
    """The same program, whose tags say how an array lies where that can be proven.

    Args:
      closed: what `jax.make_jaxpr` returns, of a model whose last argument is the image.
    """
    *others, image = closed.jaxpr.invars
    of_image = (*range(image.aval.ndim - 1), None)
    program, _ = _followed(closed.jaxpr, [*map(unknown, others), of_image])
    return jex.ClosedJaxpr(program, closed.consts)


def _followed(jaxpr: Any, inputs: Sequence[Axes]) -> tuple[Any, list[Axes]]:
    """The program with its tags as proven, and the axes of its results."""
    known = _only_known(jaxpr.invars, inputs)
    equations = []

    def axes_of(v: Any) -> Axes:
        return (known.get(v) if is_variable(v) else None) or unknown(v)

    for eqn in jaxpr.eqns:
        proven = eqn
        if any(is_variable(v) and v in known for v in eqn.invars):
            proven, outputs = _through(eqn, [axes_of(v) for v in eqn.invars])
            known |= _only_known(eqn.outvars, outputs)
        equations.append(proven)
    # JAX's caches know a program that stays the same object.
    same = all(one is other for one, other in zip(equations, jaxpr.eqns, strict=True))
    return jaxpr if same else jaxpr.replace(eqns=equations), [axes_of(v) for v in jaxpr.outvars]


def _through(eqn: Any, inputs: list[Axes]) -> tuple[Any, list[Axes]]:
    """An equation with the tags inside as proven, and the axes of its results."""
    kind = eqn.primitive.name
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
    """The tag with the order of its axes, if each position is there once and one axis is left.

    Or with what the axis of tokens is joined of.
    """
    lies = eqn.params["lies"]
    batch = lies.batch_axis(eqn.outvars[0].aval.shape)
    own = [axis for n, axis in enumerate(axes) if n != batch]
    bare = [axis.axis if isinstance(axis, Beside) else axis for axis in own]
    for axis in bare if len(own) > 2 else bare[:1]:
        if isinstance(axis, tuple):
            return eqn.replace(params={**eqn.params, "lies": lies._replace(joined=axis)})
    at = {max(axis, ~axis): n for n, axis in enumerate(bare) if isinstance(axis, int)}
    positions = [*range(len(own) - 1)]
    if not own or own.count(None) != 1 or sorted(at) != positions:
        return eqn
    order = (*(at[position] for position in positions), own.index(None))
    flipped = tuple(position for position in positions if bare[at[position]] == ~position)
    lies = lies._replace(order=order, flipped=flipped)
    return eqn.replace(params={**eqn.params, "lies": lies})


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
        kept = [a if a == b else (None,) * len(a) for a, b in pairs]
        if kept == carry:
            break
        carry = kept
    steps = agreed([axes[0] for axes in xs])
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


def _only_known(variables: Sequence[Any], axes: Sequence[Axes]) -> dict[Any, Axes]:
    """The axes of those variables of which some are known: of most of a program none are."""
    pairs = zip(variables, axes, strict=True)
    return {v: of for v, of in pairs if any(axis is not None for axis in of)}


_CLOSED = ("cond", "custom_jvp_call", "custom_vjp_call")  # in which nothing can be cut
_RESIZES = ("_resize", "_scale_and_translate")  # functions of jax.image
