"""Axes of which a part is left, or beside which others come to lie, such as a class token."""

import itertools
from collections.abc import Sequence
from typing import Any

from jaxcam._src.cut.axis_reshapes import (
    Axes,
    Axis,
    Beside,
    Inside,
    Of,
    agreed,
    as_axis,
    is_position,
    without_others,
)
from jaxcam._src.cut.programs import param
from jaxcam._src.cut.tag import count


def sliced(eqn: Any, inputs: list[Axes]) -> Axes:
    """A part of an axis counts as that axis; of tokens only if all known ones are left."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    is_plain = eqn.primitive.name == "slice" and not param(eqn, "strides")
    starts = param(eqn, "start_indices") if is_plain else (None,) * len(before)
    return tuple(
        axis if size == to else _part_of(axis, start, to)
        for axis, size, start, to in zip(inputs[0], before, starts, after, strict=True)
    )


def _part_of(axis: Axis, start: int | None, size: int) -> Axis:
    """What is left from there on of an axis."""
    if not isinstance(axis, Beside):
        return Of.DISORDERED if isinstance(axis, tuple) else axis
    if start is None or not start <= axis.before <= start + size - count(axis.axes):
        return None
    left = Beside(axis.axes, axis.before - start)
    return left if size > count(axis.axes) else as_axis(axis.axes)


def padded(eqn: Any, inputs: list[Axes]) -> Axes:
    """What is padded lies beside tokens; of an axis alone it is a border."""
    axes = zip(inputs[0], eqn.invars[0].aval.shape, param(eqn, "padding_config"), strict=True)
    return tuple(_between(axis, size, *map(int, config)) for axis, size, config in axes)


def _between(axis: Axis, size: int, low: int, high: int, interior: int) -> Axis:
    """The axis of this size between so many others, or less so many if that is negative."""
    if isinstance(axis, int) or low == high == interior == 0:
        return axis
    return None if min(low, high) < 0 or interior else _beside(axis, size, low)


def turned(eqn: Any, inputs: list[Axes]) -> Axes:
    """Some axes backwards."""
    backwards = param(eqn, "dimensions")
    sized = enumerate(zip(inputs[0], eqn.invars[0].aval.shape, strict=True))
    return tuple(_backwards(axis, size) if n in backwards else axis for n, (axis, size) in sized)


def _backwards(axis: Axis, size: int) -> Axis:
    if isinstance(axis, tuple):
        return tuple((~part, n) for part, n in axis)
    if isinstance(axis, Beside):
        parts = tuple((~part, n) for part, n in axis.axes)
        return Beside(parts, size - axis.before - count(axis.axes))
    if isinstance(axis, Inside):
        return None
    return ~axis if isinstance(axis, int) else axis


def concatenated(eqn: Any, inputs: list[Axes]) -> Axes:
    """Arrays one behind the other: an axis of one of them has the others beside."""
    joined = param(eqn, "dimension")
    along, sizes = [a[joined] for a in inputs], [v.aval.shape[joined] for v in eqn.invars]
    axes = [*map(agreed, zip(*inputs, strict=True))]
    neighbours = itertools.pairwise(along)
    if any(one is other is Of.DISORDERED for one, other in neighbours):  # perhaps in order again
        axes[joined] = None
        return tuple(axes)
    axes[joined] = _of_the_longest(along, sizes)
    among = [n for n, axis in enumerate(along) if is_position(axis)]
    if len(among) == 1 < len(along):
        axes[joined] = _beside(along[among[0]], sizes[among[0]], sum(sizes[: among[0]]))
    elif is_position(axes[joined]) and len(among) < len(along):
        axes[joined] = without_others(axes[joined])
    return tuple(axes)


def _beside(axis: Axis, size: int, before: int) -> Axis:
    """The axis of this size behind so many others."""
    if isinstance(axis, Of):
        return axis
    if isinstance(axis, Beside):
        return Beside(axis.axes, before + axis.before)
    axes = ((axis, size),) if isinstance(axis, int) else axis
    return Beside(axes, before) if isinstance(axes, tuple) else None


def _of_the_longest(axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """The axis that parts one behind the other make: of a reflected border that of the inside."""
    longest = agreed([axis for axis, size in zip(axes, sizes, strict=True) if size == max(sizes)])
    known = {axis for axis in axes if is_position(axis)}
    both = {longest, _backwards(longest, max(sizes))}
    return longest if known and known <= both else agreed(axes)
