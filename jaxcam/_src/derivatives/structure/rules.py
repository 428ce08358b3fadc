"""What each primitive does to relations, and whether it is piecewise linear.

"Derivative" means the one that JAX's automatic differentiation defines: comparisons, rounding and
`stop_gradient` have none, and a maximum has that of the larger side. A primitive without a rule
is opaque: smooth, and every result sees all that any operand sees.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxcam._src.cut.programs import param
from jaxcam._src.derivatives.structure import relations
from jaxcam._src.derivatives.structure.moves import MOVES, SMOOTH_MOVES
from jaxcam._src.derivatives.structure.relations import Relation

Relations: TypeAlias = Sequence[Relation | None]  # None: this value carries no derivative


class Outcome(NamedTuple):
    """What one equation, or a program of several, makes of the relations of its inputs.

    Attributes:
      relations: of its results.
      smooth: it may have second derivatives; else it is piecewise linear.
      forward: JAX can differentiate it in forward mode.
      reverse: JAX can differentiate it in reverse mode.
      opaque: the primitives in it for which there is no rule.
    """

    relations: Relations
    smooth: bool = False
    forward: bool = True
    reverse: bool = True
    opaque: frozenset[str] = frozenset()

    def after(self, *others: "Outcome") -> "Outcome":
        """The same relations, with the properties of the others added to its own."""
        every = (self, *others)
        return Outcome(
            self.relations,
            any(o.smooth for o in every),
            all(o.forward for o in every),
            all(o.reverse for o in every),
            frozenset().union(*(o.opaque for o in every)),
        )


def outcome(eqn: Any, inputs: Relations) -> Outcome:
    """Applies the rule of an equation without a program inside."""
    name, nothing = eqn.primitive.name, [None] * len(eqn.outvars)
    live = [r for r in inputs if r is not None]
    if not live or name in WITHOUT_DERIVATIVE:
        return Outcome(nothing)
    values = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    if any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in values):
        return opaque(eqn, inputs)
    if name in _LINEAR:
        return Outcome(list(inputs[: len(eqn.outvars)]))
    if name in ELEMENTWISE:
        return Outcome([_together(eqn, live)])
    if name in SMOOTH:
        return Outcome([_together(eqn, live)], smooth=_any(live))
    if name in _SEVERAL:
        return _SEVERAL[name](eqn, inputs)
    move = MOVES.get(name)
    if move is None or inputs[0] is None or len(live) > 1:
        return opaque(eqn, inputs)
    moved = move(eqn, inputs[0])
    moved = moved if isinstance(moved, list) else [moved]
    smooth = name in SMOOTH_MOVES and _any(live)
    return Outcome(moved, smooth=smooth, reverse=not _has_holes(eqn))


def _has_holes(eqn: Any) -> bool:
    """Whether it takes the largest or the least of windows with holes, which JAX cannot reverse."""
    is_of_windows = eqn.primitive.name in ("reduce_window_max", "reduce_window_min")
    return is_of_windows and {*param(eqn, "window_dilation")} != {1}


def opaque(eqn: Any, inputs: Relations) -> Outcome:
    """Assumes nothing."""
    live = [r for r in inputs if r is not None]
    outputs = [relations.everything(live, len(v.aval.shape)) for v in eqn.outvars]
    return Outcome([*outputs], smooth=_any(live), opaque=frozenset({eqn.primitive.name}))


def _any(live: Sequence[Relation]) -> bool:
    return any(r.any() for r in live)


def _together(eqn: Any, live: Sequence[Relation]) -> Relation:
    """What elementwise operands see; one of them may be a scalar, which meets every element."""
    axes = len(eqn.outvars[0].aval.shape) + 1
    return relations.union(r.reshape((1,) * (axes - r.ndim) + r.shape) for r in live)


# Several operands ---------------------------------------------------------------------------------


def _product(eqn: Any, inputs: Relations) -> Outcome:
    live = [r for r in inputs if r is not None]
    by_divisor = eqn.primitive.name == "div" and inputs[1] is not None
    return Outcome([_together(eqn, live)], smooth=len(live) == 2 or by_divisor)


def _integer_power(eqn: Any, inputs: Relations) -> Outcome:
    power = param(eqn, "y")
    return Outcome([None]) if power == 0 else Outcome([inputs[0]], smooth=power != 1)


def _dot(eqn: Any, inputs: Relations) -> Outcome:
    sides = [_dot_side(eqn, r, s) for s, r in enumerate(inputs[:2]) if r is not None]
    return Outcome([relations.union(sides)], smooth=len(sides) == 2)


def _dot_side(eqn: Any, relation: Relation, side: int) -> Relation:
    """Result axes are those of the batch, then the free ones of the left, then of the right."""
    contracted, batch = (axes[side] for axes in param(eqn, "dimension_numbers"))
    rank = len(eqn.outvars[0].aval.shape)
    seen = relations.widen(relation, contracted)
    free = [a for a in range(relation.ndim - 1) if a not in contracted and a not in batch]
    kept = seen.transpose(*batch, *free, *contracted, seen.ndim - 1)
    shape = kept.shape[: len(batch) + len(free)]
    other = (1,) * (rank - len(shape))
    axes = (*shape, *other) if side == 0 else (*shape[: len(batch)], *other, *shape[len(batch) :])
    return kept.reshape(*axes, kept.shape[-1])


def _convolution(eqn: Any, inputs: Relations) -> Outcome:
    image, kernel = inputs
    if image is None or kernel is not None or param(eqn, "batch_group_count") != 1:
        return opaque(eqn, inputs)
    return Outcome([_convolve(eqn, image)])


def _convolve(eqn: Any, image: Relation) -> Relation:
    numbers = param(eqn, "dimension_numbers")
    before, kernel, after = (v.aval.shape for v in (*eqn.invars, *eqn.outvars))
    seen = image.transpose(*numbers.lhs_spec, image.ndim - 1)  # [batch, channels, *spatial, labels]
    groups, features = param(eqn, "feature_group_count"), kernel[numbers.rhs_spec[0]]
    if groups == 1 or seen.shape[1] == 1:
        seen = relations.widen(seen, [1])
    else:
        seen = seen.reshape(len(seen), groups, -1, *seen.shape[2:]).any(2)
        seen = seen.repeat(features // groups, axis=1)
    for s in range(len(kernel) - 2):
        taken = relations.window(
            before[numbers.lhs_spec[2 + s]],
            after[numbers.out_spec[2 + s]],
            size=kernel[numbers.rhs_spec[2 + s]],
            stride=param(eqn, "window_strides")[s],
            low=int(param(eqn, "padding")[s][0]),
            dilation_in=param(eqn, "lhs_dilation")[s],
            dilation=param(eqn, "rhs_dilation")[s],
        )
        seen = relations.map_axis(seen, 2 + s, taken)
    return np.moveaxis(seen, range(seen.ndim - 1), numbers.out_spec)


def _concatenate(eqn: Any, inputs: Relations) -> Outcome:
    axis, labels = param(eqn, "dimension"), next(r for r in inputs if r is not None).shape[-1]
    nothing = np.zeros((1,) * len(eqn.outvars[0].aval.shape) + (labels,), bool)
    parts = [nothing if r is None else r for r in inputs]
    whole = np.broadcast_shapes(*((*p.shape[:axis], 1, *p.shape[axis + 1 :]) for p in parts))
    sizes = [v.aval.shape[axis] for v in eqn.invars]
    alike = [np.broadcast_to(p, whole) for p in parts if p.shape[axis] == 1]
    if len(alike) == len(parts) and all((p == alike[0]).all() for p in alike):
        return Outcome([alike[0]])  # so that nothing differs along the axis
    if math.prod(whole) * sum(sizes) > relations.LARGEST:
        return Outcome([relations.everything(parts, len(whole) - 1)])
    pieces = [
        np.broadcast_to(part, (*whole[:axis], size, *whole[axis + 1 :]))
        for part, size in zip(parts, sizes, strict=True)
    ]
    return Outcome([np.concatenate(pieces, axis)])


def _stack(eqn: Any, inputs: Relations) -> Outcome:
    return Outcome(
        [np.expand_dims(relations.union(r for r in inputs if r is not None), param(eqn, "axis"))]
    )


def _select(eqn: Any, inputs: Relations) -> Outcome:
    return Outcome([relations.union(r for r in inputs[1:] if r is not None)])


def _sort(eqn: Any, inputs: Relations) -> Outcome:
    axes = [param(eqn, "dimension")]
    return Outcome([None if r is None else relations.widen(r, axes) for r in inputs])


def _write(eqn: Any, inputs: Relations) -> Outcome:
    """`dynamic_update_slice` and the scatters that set or add: where they write is not known."""
    operand, update = inputs[0], inputs[1 if eqn.primitive.name == "dynamic_update_slice" else 2]
    rank = len(eqn.outvars[0].aval.shape)
    written = [] if update is None else [relations.everything([update], rank)]
    return Outcome([relations.union(([] if operand is None else [operand]) + written)])


_LINEAR = frozenset(
    "neg copy copy_p convert_element_type reduce_precision name sharding_constraint "
    "layout_constraint reshard pvary optimization_barrier abs jaxcam_tag".split()
)
ELEMENTWISE = frozenset("add sub add_any max min clamp rem".split())
SMOOTH = frozenset(
    "exp exp2 log log1p expm1 tanh logistic sin cos tan asin acos atan sinh cosh asinh acosh atanh "
    "erf erfc erf_inv sqrt rsqrt cbrt square pow polynomial atan2 lgamma digamma".split()
)
WITHOUT_DERIVATIVE = frozenset(
    "stop_gradient sign floor ceil round eq ne lt le gt ge eq_to lt_to le_to and or xor not "
    "is_finite argmax argmin reduce_and reduce_or reduce_xor iota".split()
)
POINTWISE = (
    (ELEMENTWISE | SMOOTH | WITHOUT_DERIVATIVE)
    - {"argmax", "argmin", "reduce_and", "reduce_or", "reduce_xor", "iota"}
) | frozenset("mul div integer_pow select_n neg abs copy convert_element_type".split())
_SEVERAL: dict[str, Callable[[Any, Relations], Outcome]] = {
    "mul": _product,
    "div": _product,
    "integer_pow": _integer_power,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "concatenate": _concatenate,
    "stack": _stack,
    "select_n": _select,
    "sort": _sort,
    "dynamic_update_slice": _write,
    "scatter": _write,
    "scatter-add": _write,
    "scatter-sub": _write,
}
