"""Which known axes an array has, and which of them it has after a reshape."""

import dataclasses
import enum
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from jaxcam._src.cut.programs import is_permuting
from jaxcam._src.cut.tag import Joined


@dataclasses.dataclass(frozen=True)
class Beside:
    """An axis that holds all of the known ones, one after the other, and others beside them.

    Attributes:
      axes: the known ones.
      before: how many others come first, such as a class token.
    """

    axes: Joined
    before: int


@dataclasses.dataclass(frozen=True)
class Inside:
    """An axis of what is inside each part of a known one, such as the rows of each window.

    Attributes:
      axis: the known one; None of what is inside the parts of several.
    """

    axis: int | None


class Of(enum.Enum):
    """What an axis holds that is no known axis of positions; of several the first counts.

    Attributes:
      DISORDERED: of positions in another order, such as window by window, with others between them,
        or of some.
      CHANNELS: of the image's channels, or of what weights made of positions.
      WEIGHTS: of weights, or of another input, that have not met the image.
      CONSTANT: alike in every run of the model, or all along; so it says nothing.
    """

    DISORDERED = enum.auto()
    CHANNELS = enum.auto()
    WEIGHTS = enum.auto()
    CONSTANT = enum.auto()


# Which known one an axis is, `~n` where that runs backwards; several where they are joined; None
# where that is lost.
Axis: TypeAlias = int | Beside | Inside | Joined | Of | None
Axes: TypeAlias = tuple[Axis, ...]
_Part: TypeAlias = tuple[Axis, int]  # of an axis, and its size


def is_position(axis: Axis) -> bool:
    """Whether an axis is a known one of the image's positions."""
    return axis is not None and not isinstance(axis, Of | Inside)


def without_others(axis: Axis) -> Axis:
    """The known axis, or axes, of one that may hold others beside."""
    return as_axis(axis.axes) if isinstance(axis, Beside) else axis


def as_axis(joined: Joined) -> Axis:
    """The axis that is joined of these, which may be one alone."""
    return joined[0][0] if len(joined) == 1 else joined


def agreed(said: Sequence[Axis]) -> Axis:
    """The one position that any is, None if several; else None if one is lost, or what all are.

    `Inside` counts only where no operand has a position.
    """
    if said and said.count(said[0]) == len(said):  # the usual case, and sets of these are slow
        return said[0]
    known = {axis for axis in said if is_position(axis)}
    known = known or {axis for axis in said if isinstance(axis, Inside)}
    if known:
        return known.pop() if len(known) == 1 else None
    return next((axis for axis in (None, *Of) if axis in said), None)


def reshaped(eqn: Any, inputs: list[Axes]) -> Axes:
    """The axes of the result of a reshape, or of a squeeze."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if is_permuting(eqn):
        return (None,) * len(after)
    axes: list[Axis] = [Of.CONSTANT if size == 1 else None for size in after]
    for joined, parted in _groups(before, after):
        parts = [part for n in joined for part in _parts(inputs[0][n], before[n])]
        for n in parted:
            axes[n], parts = _first(parts, after[n])
    return tuple(axes)


def _parts(axis: Axis, size: int) -> list[_Part]:
    return [*axis] if isinstance(axis, tuple) else [(axis, size)]


def _first(parts: list[_Part], size: int) -> tuple[Axis, list[_Part]]:
    """The axis of this size that the first parts make, and the parts that are left.

    One known part before others is the axis, as of numbers that are repeated; of a part that is
    parted, the outer one.
    """
    taken, left = [], size
    for place, (axis, n) in enumerate(parts, start=1):
        taken.append((axis, n))
        if n >= left and n % left == 0:
            inside = Inside(axis) if isinstance(axis, int) else None
            rest = [(inside, n // left), *parts[place:]]
            return _together(taken, is_parted=n != left), rest[n == left :]
        if left % n:
            break
        left //= n
    return None, []  # the numbers were neither together nor apart


def _together(taken: list[_Part], *, is_parted: bool) -> Axis:
    """The axis that these parts make, of the last of which there may be more."""
    taken = [*_put_together(taken)]
    outer, _ = taken[0]
    rest = [axis for axis, _ in taken[1:]]
    known = sum(is_position(axis) for axis, _ in taken)
    if known and rest and all(is_position(axis) or isinstance(axis, Inside) for axis, _ in taken):
        joined = tuple((axis, n) for axis, n in taken if isinstance(axis, int))
        return joined if len(joined) == len(taken) else Of.DISORDERED
    if known > 1 or (is_parted and not isinstance(outer, int)):
        return None
    if known == 1:
        others = any(axis is Of.DISORDERED or isinstance(axis, Inside) for axis in rest)
        return outer if is_position(outer) and not others else None
    if rest and all(isinstance(axis, Inside) for axis, _ in taken):
        return Inside(None)
    return outer if len({axis for axis, _ in taken}) == 1 else None


def _put_together(parts: list[_Part]) -> Iterator[_Part]:
    """The same parts; an axis and what is inside its parts, where that follows, as one."""
    outer, size = parts[0]
    for axis, n in parts[1:]:
        if isinstance(axis, Inside) and axis.axis == outer:
            size *= n
        else:
            yield outer, size
            outer, size = axis, n
    yield outer, size


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The axes longer than 1 of two shapes, in the smallest groups that hold as many numbers."""
    if 0 in before:
        return
    sides = [[[axis, size] for axis, size in enumerate(s) if size > 1] for s in (before, after)]
    while all(sides):
        groups = [[side.pop(0)] for side in sides]
        while (sizes := [math.prod(size for _, size in g) for g in groups])[0] != sizes[1]:
            short = sizes.index(min(sizes))
            groups[short].append(sides[short].pop(0))
        one, other = ([axis for axis, _ in group] for group in groups)
        yield one, other
