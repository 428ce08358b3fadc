"""Computing of every value only what the result needs: slices moved towards the arguments.

A network that reads its class token alone computes all tokens up to its end. Here the slice moves
up to where tokens meet, and what only the others need is left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.core

from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import alone, apart, is_permuting, is_variable, param
from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.rules import POINTWISE

Box: TypeAlias = tuple[
    tuple[int, int], ...
]  # of each axis the first place, and that after the last


def narrowed(jaxpr: Any) -> Any:
    """The same program, with every value as small as the result allows."""
    asked = _asked(jaxpr)

    def run(*arguments: Any) -> list[Any]:
        held = {v: (x, _whole(v)) for v, x in zip(jaxpr.invars, arguments, strict=True)}

        def read(v: Any, box: Box) -> Any:
            return _within(*held[v], box) if is_variable(v) else v.val

        for eqn in jaxpr.eqns:
            if parts := _parts(eqn, asked):
                (out,) = eqn.outvars
                given = [
                    read(v, part)
                    for v, part in zip(eqn.invars, parts, strict=True)
                    if part is not None
                ]
                held[out] = _run(eqn, given, asked[out]), asked[out]
            else:
                program = alone(eqn)
                whole = (read(v, _whole(v)) for v in program.invars)
                outputs = jax.core.eval_jaxpr(program, (), *whole)
                held |= {v: (x, _whole(v)) for v, x in zip(eqn.outvars, outputs, strict=True)}
        return [read(v, _whole(v)) for v in jaxpr.outvars]

    smaller = jax.make_jaxpr(run)(*(v.aval for v in jaxpr.invars)).jaxpr
    return smaller.replace(eqns=live(smaller.eqns, smaller.outvars)[0])


def _asked(jaxpr: Any) -> dict[Any, Box]:
    """Of each variable the smallest box that holds all that is needed of it."""
    asked = {v: _whole(v) for v in jaxpr.outvars if is_variable(v)}
    for eqn in reversed(jaxpr.eqns):
        parts = _parts(eqn, asked) or [_whole(v) for v in eqn.invars]
        for v, part in zip(eqn.invars, parts, strict=True):
            if part is not None and is_variable(v):
                asked[v] = _hull(asked[v], part) if v in asked else part
    return asked


def _parts(eqn: Any, asked: dict[Any, Box]) -> list[Box | None] | None:
    """What an equation needs of each operand; None where no rule says so, and it runs whole."""
    rule = _RULES.get(eqn.primitive.name)
    box = asked.get(eqn.outvars[0]) if rule and len(eqn.outvars) == 1 else None
    return rule(eqn, box) if rule and box is not None else None


def _whole(v: Any) -> Box:
    return tuple((0, size) for size in v.aval.shape)


def _hull(one: Box, other: Box) -> Box:
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _within(value: Any, held: Box, box: Box) -> Any:
    """The part `box` of a value of which `held` is at hand."""
    if box == held:
        return value
    starts, stops = zip(
        *((a - c, b - c) for (a, b), (c, _) in zip(box, held, strict=True)), strict=True
    )
    return jax.lax.slice(value, starts, stops)


def _run(eqn: Any, given: Sequence[Any], box: Box) -> Any:
    sizes = [stop - start for start, stop in box]
    match eqn.primitive.name:
        case "slice":
            return given[0]
        case "reshape":
            return jax.lax.reshape(given[0], sizes)
        case "broadcast_in_dim":
            return jax.lax.broadcast_in_dim(given[0], sizes, param(eqn, "broadcast_dimensions"))
        case _:
            program = apart(eqn, [jax.typeof(x) for x in given])
            return jax.core.eval_jaxpr(program, (), *given)[0]


# What is needed of the operands, for a box of the result ------------------------------------------


def _elementwise(eqn: Any, box: Box) -> list[Box]:
    """An operand may be a scalar, or have axes of size one."""
    return [
        tuple((0, 1) if size == 1 else part for part, size in zip(box, v.aval.shape, strict=False))
        for v in eqn.invars
    ]


def _transpose(eqn: Any, box: Box) -> list[Box]:
    axes = param(eqn, "permutation")
    return [tuple(box[axes.index(a)] for a in range(len(axes)))]


def _squeeze(eqn: Any, box: Box) -> list[Box]:
    kept = iter(box)
    gone = param(eqn, "dimensions")
    return [tuple((0, 1) if a in gone else next(kept) for a in range(eqn.invars[0].aval.ndim))]


def _broadcast(eqn: Any, box: Box) -> list[Box]:
    axes = zip(param(eqn, "broadcast_dimensions"), eqn.invars[0].aval.shape, strict=True)
    return [tuple((0, 1) if size == 1 else box[to] for to, size in axes)]


def _reshape(eqn: Any, box: Box) -> list[Box] | None:
    """An axis that stays keeps its part; axes that are split or joined are needed whole."""
    if is_permuting(eqn):
        return None
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    part = [*_whole(eqn.invars[0])]
    for old, new in relations.groups(before, after):
        old, new = [a for a in old if before[a] > 1], [a for a in new if after[a] > 1]
        if len(old) == len(new) == 1:
            part[old[0]] = box[new[0]]
        elif any(box[a] != (0, after[a]) for a in new):
            return None
    return [tuple(part)]


def _reduce(eqn: Any, box: Box) -> list[Box]:
    kept = iter(box)
    axes = enumerate(eqn.invars[0].aval.shape)
    return [tuple((0, size) if a in param(eqn, "axes") else next(kept) for a, size in axes)]


def _dot(eqn: Any, box: Box) -> list[Box]:
    """Result axes are those of the batch, then the free ones of the left, then of the right."""
    contracted, batch = param(eqn, "dimension_numbers")
    free, parts = iter(box[len(batch[0]) :]), []
    for side, v in enumerate(eqn.invars):
        of_batch = dict(zip(batch[side], box, strict=False))
        parts.append(
            tuple(
                of_batch[a] if a in of_batch else (0, size) if a in contracted[side] else next(free)
                for a, size in enumerate(v.aval.shape)
            )
        )
    return parts


def _concatenate(eqn: Any, box: Box) -> list[Box | None]:
    axis, offset = param(eqn, "dimension"), 0
    parts: list[Box | None] = []
    for v in eqn.invars:
        size, (start, stop) = v.aval.shape[axis], box[axis]
        low, high = max(start - offset, 0), min(stop - offset, size)
        parts.append((*box[:axis], (low, high), *box[axis + 1 :]) if low < high else None)
        offset += size
    return parts


def _slice(eqn: Any, box: Box) -> list[Box] | None:
    if {*(param(eqn, "strides") or [1])} != {1}:
        return None
    starts = param(eqn, "start_indices")
    return [tuple((a + start, b + start) for (a, b), start in zip(box, starts, strict=True))]


_RULES: dict[str, Callable[[Any, Box], list[Any] | None]] = {
    **dict.fromkeys(POINTWISE, _elementwise),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _reduce),
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _dot,
    "concatenate": _concatenate,
    "slice": _slice,
}
