"""Primitives of one operand whose elements move, are repeated, or are taken together."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcam._src.cut.programs import param
from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.relations import Relation


def _reshape(eqn: Any, r: Relation) -> Relation:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    r = r if param(eqn, "dimensions") is None else relations.widen(r, range(r.ndim - 1))
    return relations.reshape(r, before, after)


def _transpose(eqn: Any, r: Relation) -> Relation:
    return r.transpose(*param(eqn, "permutation"), r.ndim - 1)


def _squeeze(eqn: Any, r: Relation) -> Relation:
    return np.squeeze(r, tuple(param(eqn, "dimensions")))


def _broadcast(eqn: Any, r: Relation) -> Relation:
    shape = [1] * len(eqn.outvars[0].aval.shape)
    for axis, to in enumerate(param(eqn, "broadcast_dimensions")):
        shape[to] = r.shape[axis]
    return r.reshape(*shape, r.shape[-1])


def _tile(eqn: Any, r: Relation) -> Relation:
    reps = [n if r.shape[a] > 1 else 1 for a, n in enumerate(param(eqn, "reps"))]
    return (
        np.tile(r, (*reps, 1))
        if r.size * math.prod(reps) <= relations.LARGEST
        else relations.widen(r, range(r.ndim - 1))
    )


def _reverse(eqn: Any, r: Relation) -> Relation:
    return np.flip(r, param(eqn, "dimensions"))


def _slice(eqn: Any, r: Relation) -> Relation:
    starts, stops = param(eqn, "start_indices"), param(eqn, "limit_indices")
    steps = param(eqn, "strides") or (1,) * len(starts)
    spans = [slice(*bounds) for bounds in zip(starts, stops, steps, strict=True)]
    return r[tuple(s if r.shape[a] > 1 else slice(None) for a, s in enumerate(spans))]


def _dynamic_slice(eqn: Any, r: Relation) -> Relation:
    sizes = zip(eqn.invars[0].aval.shape, param(eqn, "slice_sizes"), strict=True)
    return relations.widen(r, [a for a, (before, after) in enumerate(sizes) if before != after])


def _split(eqn: Any, r: Relation) -> list[Relation]:
    axis, sizes = param(eqn, "axis"), param(eqn, "sizes")
    if r.shape[axis] == 1:
        return [r] * len(sizes)
    return np.split(r, np.cumsum(sizes)[:-1], axis)


def _unstack(eqn: Any, r: Relation) -> list[Relation]:
    axis = param(eqn, "axis")
    return [r.take(i % r.shape[axis], axis) for i in range(len(eqn.outvars))]


def _pad(eqn: Any, r: Relation) -> Relation:
    for axis, (low, _, inner) in enumerate(param(eqn, "padding_config")):
        if r.shape[axis] == 1:
            continue
        before, after = (v.aval.shape[axis] for v in (eqn.invars[0], eqn.outvars[0]))
        taken = relations.window(before, after, size=1, low=int(low), dilation_in=int(inner) + 1)
        r = relations.map_axis(r, axis, taken)
    return r


def _reduce(eqn: Any, r: Relation) -> Relation:
    return np.logical_or.reduce(r, axis=tuple(param(eqn, "axes")))


def _cumulate(eqn: Any, r: Relation) -> Relation:
    axis = param(eqn, "axis")
    earlier = np.tri(eqn.invars[0].aval.shape[axis], dtype=bool)
    return relations.map_axis(r, axis, earlier.T if param(eqn, "reverse") else earlier)


def _reduce_window(eqn: Any, r: Relation) -> Relation:
    for axis, size in enumerate(param(eqn, "window_dimensions")):
        if r.shape[axis] == 1:
            continue
        taken = relations.window(
            eqn.invars[0].aval.shape[axis],
            eqn.outvars[0].aval.shape[axis],
            size=size,
            stride=param(eqn, "window_strides")[axis],
            low=int(param(eqn, "padding")[axis][0]),
            dilation_in=param(eqn, "base_dilation")[axis],
            dilation=param(eqn, "window_dilation")[axis],
        )
        r = relations.map_axis(r, axis, taken)
    return r


def _gather(eqn: Any, r: Relation) -> Relation:
    """Of an axis that is not taken whole, nobody knows which elements are taken."""
    numbers, sizes = param(eqn, "dimension_numbers"), param(eqn, "slice_sizes")
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    before = eqn.invars[0].aval.shape
    r = relations.widen(r, [a for a, n in enumerate(before) if a in gone or sizes[a] != n])
    shape = [1] * len(eqn.outvars[0].aval.shape)
    left = [a for a in range(len(before)) if a not in gone]
    for to, axis in zip(numbers.offset_dims, left, strict=True):
        shape[to] = r.shape[axis]
    return r.reshape(*shape, r.shape[-1])


def _top_k(eqn: Any, r: Relation) -> list[Relation | None]:
    return [relations.widen(r, [eqn.params.get("axis", r.ndim - 2)]), None]


MOVES: dict[str, Callable[[Any, Relation], Any]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "tile": _tile,
    "rev": _reverse,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "unstack": _unstack,
    "pad": _pad,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "reduce_prod": _reduce,
    "cumsum": _cumulate,
    "cummax": _cumulate,
    "cummin": _cumulate,
    "cumprod": _cumulate,
    "cumlogsumexp": _cumulate,
    "reduce_window_sum": _reduce_window,
    "reduce_window_max": _reduce_window,
    "reduce_window_min": _reduce_window,
    "gather": _gather,
    "top_k": _top_k,
}
SMOOTH_MOVES = frozenset({"reduce_prod", "cumprod", "cumlogsumexp"})
