"""Whether a layer sees a part of its image alone, which a map would be stretched over."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from jaxcam._src.cut.axis_reshapes import Axes
from jaxcam._src.cut.axis_rules import axes_of_result, unknown
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import is_variable, param

_Span: TypeAlias = tuple[int, int]  # from where to where along an axis of the image

_NEGLIGIBLE = 1 / 16  # of an axis, left out at one end: such as what is no whole patch


def cropped(prefix: Any, image: Any) -> tuple[int, int, int] | None:
    """The part of an axis of the image that a value sees alone.

    Args:
      prefix: a program, whose calls are opened, with that value as its first result.
      image: a variable of it.

    Returns:
      `(axis, start, stop)`, in pixels; None where the value sees more than slices of the image, or
      slices that reach from end to end, but for 1/16.
    """
    whole: dict[Any, Axes] = {image: (*range(image.aval.ndim - 1), None)}
    sizes, parts = image.aval.shape[:-1], []
    for eqn in live(prefix.eqns, prefix.outvars[:1])[0]:
        taken = [v for v in eqn.invars if is_variable(v) and v in whole]
        spans = _spans(eqn, whole[taken[0]], sizes) if taken else {}
        if any(_is_part(span, sizes[axis]) for axis, span in spans.items()):
            parts.append(spans)
        elif taken and eqn.primitive.name in _KEEPS:
            axes = [whole[v] if v in taken else unknown(v) for v in eqn.invars]
            whole |= {v: axes_of_result(eqn, v, axes) for v in eqn.outvars}
        elif taken:
            return None
    if prefix.outvars[0] in whole:
        return None
    for axis, size in enumerate(sizes if parts else ()):
        starts, stops = zip(*(spans.get(axis, (0, size)) for spans in parts), strict=True)
        if _is_part((min(starts), max(stops)), size):
            return axis, min(starts), max(stops)
    return None


def _is_part(span: _Span, size: int) -> bool:
    start, stop = span
    return max(start, size - stop) > _NEGLIGIBLE * size


def _spans(eqn: Any, axes: Axes, sizes: Sequence[int]) -> dict[int, _Span]:
    """What a slice keeps of each axis that still has all pixels; nothing of other equations."""
    starts, kept = _kept(eqn)
    spans = zip(axes, eqn.invars[0].aval.shape, starts, kept, strict=False)
    return {
        axis: (start, start + n)
        for axis, size, start, n in spans
        if isinstance(axis, int) and axis >= 0 and size == sizes[axis]
    }


def _kept(eqn: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Where a slice starts along each axis, and how many it keeps."""
    if eqn.primitive.name == "slice":
        starts, limits = param(eqn, "start_indices"), param(eqn, "limit_indices")
        return starts, [limit - start for start, limit in zip(starts, limits, strict=True)]
    starts = eqn.invars[1:]
    if eqn.primitive.name == "dynamic_slice" and not any(map(is_variable, starts)):
        return [int(v.val) for v in starts], param(eqn, "slice_sizes")
    return (), ()


# After these a slice still is one of the image.
_KEEPS = frozenset(
    "add broadcast_in_dim clamp convert_element_type copy div integer_pow max min mul neg "
    "reduce_precision reshape sharding_constraint slice squeeze sub transpose".split()
)
