"""Which axes of an array are the image's, read off the program.

A model that takes channels first may go on with channels last, as the convolutions of Flax do, one
of signals with tokens, and a function under `jax.vmap` sees no order of axes at all. So a layer may
lie otherwise than the image did.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from jax.extend import core as jex

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


@dataclasses.dataclass(frozen=True)
class Beside:
    """An axis that holds the known one and others beside it, such as a class token."""

    axis: int


# Which known one an axis is, `~n` where that runs backwards; several with their sizes where they
# are joined, the outer first; None where it is another, or lost.
Axis: TypeAlias = int | Beside | tuple[tuple[int, int], ...] | None
Axes: TypeAlias = tuple[Axis, ...]


def laid_as_proven(closed: Any) -> Any:
    """The same program, whose tags say how an array lies where that can be proven.

    Args:
      closed: what `jax.make_jaxpr` returns, of a model whose last argument is the image.
    """
    *others, image = closed.jaxpr.invars
    of_image = (*range(image.aval.ndim - 1), None)
    program, _ = _followed(closed.jaxpr, [*map(_none, others), of_image])
    return jex.ClosedJaxpr(program, closed.consts)


def moved(eqn: Any, axes: Axes) -> Axes | None:
    """The axes of the result of an equation that only moves numbers; None of another equation."""
    return _MOVES[eqn.primitive.name](eqn, [axes]) if eqn.primitive.name in _MOVES else None


# Through a program --------------------------------------------------------------------------------


def _followed(jaxpr: Any, inputs: Sequence[Axes]) -> tuple[Any, list[Axes]]:
    """The program with its tags as proven, and the axes of its results."""
    known = _only_known(jaxpr.invars, inputs)
    equations = []

    def axes_of(v: Any) -> Axes:
        return (known.get(v) if is_variable(v) else None) or _none(v)

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
        return eqn, inputs
    if kind in _CLOSED:
        return eqn, _agreed_by_all(eqn, inputs)
    return eqn, [_axes_of_result(eqn, v, inputs) for v in eqn.outvars]


def _tagged(eqn: Any, axes: Axes) -> Any:
    """The tag with the order of its axes, if each position is there once and one axis is left."""
    lies, own = eqn.params["lies"], [*axes]
    if lies.has_batch(eqn.outvars[0].aval.shape):
        del own[lies.mapped]
    bare = [axis.axis if isinstance(axis, Beside) else axis for axis in own]
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
    steps = _agreed([axes[0] for axes in xs])
    return _with_body(eqn, "jaxpr", body), [*carry, *((steps, *y) for y in outputs[scan.carry :])]


def _agreed_by_all(eqn: Any, inputs: list[Axes]) -> list[Axes]:
    """The axes of the results of all programs inside, which take the last operands."""
    said = [
        _followed(body, inputs[len(inputs) - len(body.invars) :])[1] for body in programs_in(eqn)
    ]
    results = zip(*said, strict=True)
    return [tuple(map(_agreed, zip(*axes, strict=True))) for axes in results]


def _with_body(eqn: Any, key: str, body: Any) -> Any:
    whole = eqn.params[key]
    if body is (whole.jaxpr if isinstance(whole, jex.ClosedJaxpr) else whole):
        return eqn
    body = jex.ClosedJaxpr(body, whole.consts) if isinstance(whole, jex.ClosedJaxpr) else body
    return eqn.replace(params={**eqn.params, key: body})


def _none(v: Any) -> Axes:
    return (None,) * len(getattr(v.aval, "shape", ()))


def _only_known(variables: Sequence[Any], axes: Sequence[Axes]) -> dict[Any, Axes]:
    """The axes of those variables of which some are known: of most of a program none are."""
    pairs = zip(variables, axes, strict=True)
    return {v: of for v, of in pairs if any(axis is not None for axis in of)}


def _agreed(said: Sequence[Axis]) -> Axis:
    """What all say that say something."""
    known = {axis for axis in said if axis is not None}
    return known.pop() if len(known) == 1 else None


# What an equation makes of the axes of its operands -----------------------------------------------


def _axes_of_result(eqn: Any, result: Any, inputs: list[Axes]) -> Axes:
    kind = eqn.primitive.name
    is_alike = kind in _ALIKE or kind.startswith("reduce_window")
    rule = _alike if is_alike else (_MOVES | _RULES).get(kind)
    axes = rule(eqn, inputs) if rule else _none(result)
    pairs = zip(axes, result.aval.shape, strict=True)
    return tuple(axis if _fits(axis, size) else None for axis, size in pairs)


def _alike(eqn: Any, inputs: list[Axes]) -> Axes:
    """Entry by entry, or window by window: each axis is what it is in an operand of this rank."""
    none = _none(eqn.outvars[0])
    alike = (axes for axes in inputs if len(axes) == len(none))
    return tuple(map(_agreed, zip(none, *alike, strict=True)))


def _fits(axis: Axis, size: int) -> bool:
    """Whether an axis of this size may be that one: of joined ones all numbers are there."""
    return not isinstance(axis, tuple) or math.prod(n for _, n in axis) == size


def _reversed(eqn: Any, inputs: list[Axes]) -> Axes:
    backwards = param(eqn, "dimensions")
    return tuple(
        ((~axis if isinstance(axis, int) else None) if n in backwards else axis)
        for n, axis in enumerate(inputs[0])
    )


def _transpose(eqn: Any, inputs: list[Axes]) -> Axes:
    return tuple(inputs[0][axis] for axis in param(eqn, "permutation"))


def _broadcast(eqn: Any, inputs: list[Axes]) -> Axes:
    at = dict(zip(param(eqn, "broadcast_dimensions"), inputs[0], strict=True))
    return tuple(at.get(axis) for axis in range(eqn.outvars[0].aval.ndim))


def _reshape(eqn: Any, inputs: list[Axes]) -> Axes:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    axes: list[Axis] = [None] * len(after)
    for joined, parted in _groups(before, after):
        parts = [part for n in joined for part in _parts(inputs[0][n], before[n])]
        for n in parted:
            axes[n] = _taken(parts, after[n])
    return tuple(axes)


def _parts(axis: Axis, size: int) -> list[tuple[Axis, int]]:
    return [*axis] if isinstance(axis, tuple) else [(axis, size)]


def _taken(parts: list[tuple[Axis, int]], size: int) -> Axis:
    """The axis of this size that the first parts make, which it takes away.

    One known part among others is the axis, as of numbers that are repeated; of a part that is
    parted, the outer one.
    """
    taken, left = [], size
    while left > 1 and parts:
        axis, n = parts.pop(0)
        taken.append((axis, n))
        if n > left and n % left == 0:
            parts.insert(0, (None, n // left))
            left = 1
        elif left % n == 0:
            left //= n
        else:  # numbers that were neither together nor apart
            parts.clear()
    known = [part for part in taken if part[0] is not None]
    if len(known) == 1 and left == 1:
        return known[0][0]
    return tuple(known) if known and len(known) == len(taken) else None


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


def _concatenate(eqn: Any, inputs: list[Axes]) -> Axes:
    joined = param(eqn, "dimension")
    axes = [*_alike(eqn, inputs)]
    axis, is_all = axes[joined], all(a[joined] is not None for a in inputs)
    axes[joined] = axis if is_all or not isinstance(axis, int) else Beside(axis)
    return tuple(axes)


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
        return _none(eqn.outvars[0])
    axes: list[Axis] = [inputs[0][along[0]]] * len(shape)
    rest = (axis for n, axis in enumerate(inputs[0]) if n != along[0])
    for to, axis in zip(how.offset_dims, rest, strict=True):
        axes[to] = axis
    return tuple(axes)


def _convolution(eqn: Any, inputs: list[Axes]) -> Axes:
    (batch, _, *positions), _, (to_batch, _, *to) = param(eqn, "dimension_numbers")
    axes: list[Axis] = [None] * len(inputs[0])
    for before, after in zip((batch, *positions), (to_batch, *to), strict=True):
        axes[after] = inputs[0][before]
    return tuple(axes)


def _product(eqn: Any, inputs: list[Axes]) -> Axes:
    """Of a matrix product: the axes that both share, those of the one, those of the other."""
    contracted, batch = param(eqn, "dimension_numbers")
    pairs = zip(*batch, strict=True)
    shared = [_agreed([axes[n] for axes, n in zip(inputs, pair, strict=True)]) for pair in pairs]
    used = [{*c, *b} for c, b in zip(contracted, batch, strict=True)]
    free = [
        axis
        for axes, gone in zip(inputs, used, strict=True)
        for n, axis in enumerate(axes)
        if n not in gone
    ]
    return (*shared, *free)


_CLOSED = ("cond", "custom_jvp_call", "custom_vjp_call")  # in which nothing can be cut
_RESIZES = ("_resize", "_scale_and_translate")  # functions of jax.image
_SAME = dict.fromkeys("convert_element_type copy jaxcam_tag sharding_constraint".split(), _alike)
_MOVES: dict[str, Callable[[Any, list[Axes]], Axes]] = _SAME | {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "transpose": _transpose,
}
_RULES: dict[str, Callable[[Any, list[Axes]], Axes]] = {
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "gather": _gather,
    "rev": _reversed,
    **dict.fromkeys(
        "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum".split(),
        _reduce,
    ),
}
_ALIKE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp cos cosh "
    "cumlogsumexp cummax cummin cumprod cumsum digamma div dynamic_slice dynamic_update_slice eq "
    "erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p "
    "logistic lt max min mul ne neg nextafter not or pad pow reduce_precision "
    "rem round rsqrt select_and_gather_add select_n sign sin sinh slice split sqrt square "
    "stop_gradient sub tan tanh xor".split()
)
