"""Whether a model looks at a part of its image alone, which a map would be stretched over."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from jaxcam._src.cut.axis_rules import axes_of_result
from jaxcam._src.cut.programs import is_variable, param

Part: TypeAlias = tuple[int, int, int]  # an axis of the image, and from where to where along it

_NEGLIGIBLE = 1 / 16  # of an axis, left out at one end: such as what is no whole patch


def cropped(jaxpr: Any, image: Any) -> Part | None:
    """A part that a program, whose calls are opened, cuts out of the image before all else.

    None where something sees the whole image.
    """
    whole = {image: (*range(image.aval.ndim - 1), None)}
    found = None
    for eqn in jaxpr.eqns:
        taken = [v for v in eqn.invars if is_variable(v) and v in whole]
        if not taken:
            continue
        cut = _cut(eqn, whole[taken[0]])
        found = found or cut
        if not cut and eqn.primitive.name in _KEEPS:
            axes = [whole[v] if v in taken else (None,) * v.aval.ndim for v in eqn.invars]
            whole |= {v: axes_of_result(eqn, v, axes) for v in eqn.outvars}
        elif not cut:
            return None
    return found


def _cut(eqn: Any, axes: tuple) -> Part | None:
    """What a slice keeps of an axis of which it leaves out more than a rest."""
    sizes = eqn.invars[0].aval.shape
    for axis, start, kept, size in zip(axes, *_kept(eqn), sizes, strict=False):
        if isinstance(axis, int) and max(start, size - start - kept) > _NEGLIGIBLE * size:
            return axis, start, start + kept
    return None


def _kept(eqn: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Where a slice starts along each axis, and how far it reaches; nothing of other equations."""
    if eqn.primitive.name == "slice":
        starts, limits = param(eqn, "start_indices"), param(eqn, "limit_indices")
        return starts, [limit - start for start, limit in zip(starts, limits, strict=True)]
    starts = eqn.invars[1:]
    if eqn.primitive.name == "dynamic_slice" and not any(map(is_variable, starts)):
        return [int(v.val) for v in starts], param(eqn, "slice_sizes")
    return (), ()


_KEEPS = frozenset(
    "add broadcast_in_dim clamp convert_element_type copy div integer_pow max min mul neg "
    "reduce_precision reshape sharding_constraint slice squeeze sub transpose".split()
)
