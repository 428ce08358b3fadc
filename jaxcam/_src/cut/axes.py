"""Which axes of an array are the image's, read off the program.

A model that takes channels first may go on with channels last, as the convolutions of Flax do, one
of signals with tokens, and a function under `jax.vmap` sees no order of axes at all. So a layer may
lie otherwise than the image did.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from jax.extend import core as jex

from jaxcam._src.cut.programs import CALLS, body_of, is_variable, param, programs_in, scan_of
from jaxcam._src.cut.tag import tag_p

Axes: TypeAlias = tuple[int | None, ...]  # which of the image's each axis is; None is none of them


def laid_as_proven(closed: Any) -> Any:
    """The same program, whose tags say how an array lies where that can be proven.

    Args:
      closed: what `jax.make_jaxpr` returns, of a model whose last argument is the image.
    """
    *others, image = closed.jaxpr.invars
    of_image = (*range(image.aval.ndim - 1), None)
    program, _ = _followed(closed.jaxpr, [*map(_none, others), of_image])
    return jex.ClosedJaxpr(program, closed.consts)


def _followed(jaxpr: Any, inputs: Sequence[Axes]) -> tuple[Any, list[Axes]]:
    """The program with its tags as proven, and the axes of its results."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    of = lambda v: known.get(v, _none(v)) if is_variable(v) else _none(v)  # noqa: E731
    equations = []
    for eqn in jaxpr.eqns:
        same, outputs = _through(eqn, [of(v) for v in eqn.invars])
        known.update(zip(eqn.outvars, outputs, strict=True))
        equations.append(same)
    return jaxpr.replace(eqns=equations), [of(v) for v in jaxpr.outvars]


def _through(eqn: Any, inputs: list[Axes]) -> tuple[Any, list[Axes]]:
    """An equation with the tags inside as proven, and the axes of its results."""
    kind = eqn.primitive.name
    if eqn.primitive is tag_p:
        return _tagged(eqn, *inputs)
    if kind in CALLS:
        body, outputs = _followed(body_of(eqn).jaxpr, inputs)
        return _with_body(eqn, CALLS[kind], body), outputs
    if kind == "scan":
        return _looped(eqn, inputs)
    if kind in ("custom_jvp_call", "custom_vjp_call"):  # closed to a cut
        return eqn, _followed(next(programs_in(eqn)), inputs)[1]
    if any(programs_in(eqn)) or not any(map(_is_known, inputs)):
        return eqn, [_none(v) for v in eqn.outvars]
    if kind in _RULES:
        return eqn, [_RULES[kind](eqn, inputs)]
    return eqn, [_alike(v, inputs) for v in eqn.outvars]


def _tagged(eqn: Any, axes: Axes) -> tuple[Any, list[Axes]]:
    lies, own = eqn.params["lies"], [*axes]
    if lies.has_batch(eqn.outvars[0].aval.shape):
        del own[lies.mapped]
    positions = [*range(len(own) - 1)]
    if own and sorted(axis for axis in own if axis is not None) == positions:
        order = (*map(own.index, positions), own.index(None))
        eqn = eqn.replace(params={**eqn.params, "lies": lies._replace(order=order)})
    return eqn, [axes]


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
    steps = _agreed([axes[0] for axes in xs])
    return _with_body(eqn, "jaxpr", body), [*carry, *((steps, *y) for y in outputs[scan.carry :])]


def _with_body(eqn: Any, key: str, body: Any) -> Any:
    whole = eqn.params[key]
    body = jex.ClosedJaxpr(body, whole.consts) if isinstance(whole, jex.ClosedJaxpr) else body
    return eqn.replace(params={**eqn.params, key: body})


def _none(v: Any) -> Axes:
    return (None,) * len(getattr(v.aval, "shape", ()))


def _is_known(axes: Axes) -> bool:
    return any(axis is not None for axis in axes)


# What an equation makes of the axes of its operands -----------------------------------------------


def _alike(v: Any, inputs: list[Axes]) -> Axes:
    """Entry by entry, or window by window: each axis is what it is in an operand of this rank."""
    none = _none(v)
    alike = (axes for axes in inputs if len(axes) == len(none))
    return tuple(map(_agreed, zip(none, *alike, strict=True)))


def _agreed(said: Sequence[int | None]) -> int | None:
    """What all say that say something."""
    known = {axis for axis in said if axis is not None}
    return known.pop() if len(known) == 1 else None


def _transpose(eqn: Any, inputs: list[Axes]) -> Axes:
    return tuple(inputs[0][axis] for axis in param(eqn, "permutation"))


def _broadcast(eqn: Any, inputs: list[Axes]) -> Axes:
    at = dict(zip(param(eqn, "broadcast_dimensions"), inputs[0], strict=True))
    return tuple(at.get(axis) for axis in range(eqn.outvars[0].aval.ndim))


def _reduce(eqn: Any, inputs: list[Axes]) -> Axes:
    gone = param(eqn, "axes")
    return tuple(axis for n, axis in enumerate(inputs[0]) if n not in gone)


def _reshape(eqn: Any, inputs: list[Axes]) -> Axes:
    """An axis stays what it is where as many numbers lie before and behind it."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    at = dict(zip(_places(before), inputs[0], strict=True))
    return tuple(at.get(place) if place[1] > 1 else None for place in _places(after))


def _places(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Of each axis how many numbers lie in front of it, and its size."""
    front = 1
    for size in shape:
        yield front, size
        front *= size


def _concatenate(eqn: Any, inputs: list[Axes]) -> Axes:
    """Along an axis in which not all are the image's, such as a class token, none are."""
    joined = param(eqn, "dimension")
    axes = [*_alike(eqn.outvars[0], inputs)]
    axes[joined] = axes[joined] if all(a[joined] is not None for a in inputs) else None
    return tuple(axes)


def _convolution(eqn: Any, inputs: list[Axes]) -> Axes:
    (batch, _, *positions), _, (to_batch, _, *to) = param(eqn, "dimension_numbers")
    axes: list[int | None] = [None] * len(inputs[0])
    for before, after in zip((batch, *positions), (to_batch, *to), strict=True):
        axes[after] = inputs[0][before]
    return tuple(axes)


def _product(eqn: Any, inputs: list[Axes]) -> Axes:
    """Of a matrix product: the axes that both share, those of the one, those of the other."""
    contracted, batch = param(eqn, "dimension_numbers")
    shared = [
        _agreed([a[n] for a, n in zip(inputs, pair, strict=True)])
        for pair in zip(*batch, strict=True)
    ]
    used = [{*c, *b} for c, b in zip(contracted, batch, strict=True)]
    free = [
        axis
        for axes, gone in zip(inputs, used, strict=True)
        for n, axis in enumerate(axes)
        if n not in gone
    ]
    return (*shared, *free)


def _lost(eqn: Any, inputs: list[Axes]) -> Axes:
    return _none(eqn.outvars[0])


_RULES: dict[str, Callable[[Any, list[Axes]], Axes]] = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "gather": _lost,
    **dict.fromkeys(
        "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin".split(),
        _reduce,
    ),
}
