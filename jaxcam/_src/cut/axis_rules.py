"""What each equation makes of the axes of its operands: which known one each axis is."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxcam._src.cut.axis_parts import concatenated, padded, sliced, turned
from jaxcam._src.cut.axis_reshapes import (
    Axes,
    Axis,
    Of,
    agreed,
    is_position,
    reshaped,
    without_others,
)
from jaxcam._src.cut.programs import param
from jaxcam._src.cut.tag import count

_Rule: TypeAlias = Callable[[Any, list[Axes]], Axes]


def filled(axis: Axis, v: Any) -> Axes:
    """The axes of a value, all of which are this one."""
    return (axis,) * len(getattr(v.aval, "shape", ()))


def unknown(v: Any) -> Axes:
    """The axes of a value of which nothing is known."""
    return filled(None, v)


def moved(eqn: Any, axes: Axes) -> Axes | None:
    """The axes of the result of an equation that only moves numbers; None of another equation."""
    return _MOVES[eqn.primitive.name](eqn, [axes]) if eqn.primitive.name in _MOVES else None


def axes_of_result(eqn: Any, result: Any, inputs: list[Axes]) -> Axes:
    """The axes of one result of an equation without a program inside."""
    kind = eqn.primitive.name
    is_alike = kind in _ALIKE or kind.startswith("reduce_window")
    rule = _alike if is_alike else _RULES.get(kind)
    axes = rule(eqn, inputs) if rule else unknown(result)
    pairs = zip(axes, result.aval.shape, strict=True)
    return tuple(axis if _fits(axis, size) else None for axis, size in pairs)


def _alike(eqn: Any, inputs: list[Axes]) -> Axes:
    """Entry by entry, or window by window: each axis is what it is in an operand of this rank."""
    after = eqn.outvars[0].aval.shape
    alike = (
        tuple(map(_resized, axes, v.aval.shape, after))
        for v, axes in zip(eqn.invars, inputs, strict=True)
        if len(axes) == len(after)
    )
    return tuple(map(agreed, zip(*alike, strict=True)))


def _resized(axis: Axis, size: int, to: int) -> Axis:
    """An axis that has another size afterwards; one number is alike all along."""
    if size == to:
        return axis
    if axis is Of.DISORDERED and size > 1:
        return None
    return Of.CONSTANT if size == 1 else without_others(axis)


def _fits(axis: Axis, size: int) -> bool:
    """Whether an axis of this size may be that one: of joined ones all numbers are there."""
    return not isinstance(axis, tuple) or count(axis) == size


def _transpose(eqn: Any, inputs: list[Axes]) -> Axes:
    return tuple(inputs[0][axis] for axis in param(eqn, "permutation"))


def _broadcast(eqn: Any, inputs: list[Axes]) -> Axes:
    """Along what an axis of one is stretched to, and along a new one, all is the same."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    axes: list[Axis] = [Of.CONSTANT] * len(after)
    for axis, size, to in zip(inputs[0], before, param(eqn, "broadcast_dimensions"), strict=True):
        axes[to] = axis if size == after[to] else Of.CONSTANT
    return tuple(axes)


def _stack(eqn: Any, inputs: list[Axes]) -> Axes:
    each = tuple(map(agreed, zip(*inputs, strict=True)))
    return (*each[: param(eqn, "axis")], None, *each[param(eqn, "axis") :])


def _unstack(eqn: Any, inputs: list[Axes]) -> Axes:
    return tuple(axis for n, axis in enumerate(inputs[0]) if n != param(eqn, "axis"))


def _tile(eqn: Any, inputs: list[Axes]) -> Axes:
    reps = param(eqn, "reps")
    return tuple(axis if n == 1 else None for axis, n in zip(inputs[0], reps, strict=True))


def _scatter(eqn: Any, inputs: list[Axes]) -> Axes:
    """Numbers written into an array: of whole windows, such as an inside into its border, both."""
    into, _, written = inputs
    is_whole = len(into) == len(param(eqn, "dimension_numbers").update_window_dims) == len(written)
    sizes = eqn.invars[2].aval.shape, eqn.outvars[0].aval.shape
    whole = map(_resized, written, *sizes) if is_whole else unknown(eqn.outvars[0])
    return tuple(map(agreed, zip(into, whole, strict=True)))


def _reduce(eqn: Any, inputs: list[Axes]) -> Axes:
    gone = param(eqn, "axes")
    return tuple(axis for n, axis in enumerate(inputs[0]) if n not in gone)


def _gather(eqn: Any, inputs: list[Axes]) -> Axes:
    """Entries chosen along one axis, such as those nearest to where a larger image has its own."""
    how, sizes = param(eqn, "dimension_numbers"), param(eqn, "slice_sizes")
    shape = eqn.invars[0].aval.shape
    along = [axis for axis in range(len(shape)) if sizes[axis] != shape[axis]]
    is_chosen = len(along) == 1 and how.collapsed_slice_dims == (*along,)
    if not is_chosen or eqn.outvars[0].aval.ndim != len(shape):
        return unknown(eqn.outvars[0])
    chosen = inputs[0][along[0]]
    if not isinstance(chosen, int):  # of tokens in an order of their own, or of some of them
        chosen = Of.DISORDERED if is_position(chosen) else None
    axes: list[Axis] = [chosen] * len(shape)
    rest = (axis for n, axis in enumerate(inputs[0]) if n != along[0])
    for to, axis in zip(how.offset_dims, rest, strict=True):
        axes[to] = axis
    return tuple(axes)


def _convolution(eqn: Any, inputs: list[Axes]) -> Axes:
    (batch, _, *positions), (out, *_), (to_batch, to_out, *to) = param(eqn, "dimension_numbers")
    axes: list[Axis] = [None] * len(inputs[0])
    for before, after in zip((batch, *positions), (to_batch, *to), strict=True):
        axes[after] = without_others(inputs[0][before])  # what lies beside is a border from here on
    (axes[to_out],) = _made(inputs[1], (inputs[1][out],))
    return tuple(axes)


def _made(axes: Axes, free: Axes) -> Axes:
    """The axes that an operand adds to a product: one of weights alone holds channels.

    Several may be positions that were learned; and those of a constant, such as an interpolation.
    """
    if {*axes} == {Of.WEIGHTS}:
        return (Of.CHANNELS,) if len(free) == 1 else (None,) * len(free)
    return (None,) * len(free) if {*axes} == {Of.CONSTANT} else free


def _product(eqn: Any, inputs: list[Axes]) -> Axes:
    """Of a matrix product: the axes that both share, those of the one, those of the other."""
    contracted, batch = param(eqn, "dimension_numbers")
    pairs = zip(*batch, strict=True)
    shared = [agreed([axes[n] for axes, n in zip(inputs, pair, strict=True)]) for pair in pairs]
    used = [{*c, *b} for c, b in zip(contracted, batch, strict=True)]
    free = [
        _made(axes, tuple(axis for n, axis in enumerate(axes) if n not in gone))
        for axes, gone in zip(inputs, used, strict=True)
    ]
    return (*shared, *free[0], *free[1])


_SAME = dict.fromkeys("convert_element_type copy jaxcam_tag sharding_constraint".split(), _alike)
_MOVES: dict[str, _Rule] = _SAME | {
    "broadcast_in_dim": _broadcast,
    "reshape": reshaped,
    "squeeze": reshaped,
    "transpose": _transpose,
}
_RULES: dict[str, _Rule] = _MOVES | {
    "concatenate": concatenated,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "gather": _gather,
    "pad": padded,
    "rev": turned,
    "stack": _stack,
    "tile": _tile,
    "unstack": _unstack,
    **dict.fromkeys(
        "scatter scatter-add scatter-sub scatter-mul scatter-min scatter-max".split(), _scatter
    ),
    **dict.fromkeys(("dynamic_slice", "slice", "split"), sliced),
    **dict.fromkeys(
        "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum".split(),
        _reduce,
    ),
}
_ALIKE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp complex conj cos "
    "cosh cumlogsumexp cummax cummin cumprod cumsum digamma div dynamic_update_slice eq "
    "erf erf_inv erfc exp exp2 expm1 fft floor ge gt imag integer_pow is_finite le lgamma log "
    "log1p logistic lt max min mul ne neg nextafter not or polynomial pow real "
    "reduce_precision rem round rsqrt select_and_gather_add select_n sign sin sinh sqrt square "
    "stop_gradient sub tan tanh xor".split()
)
