"""Attention whose query does not move: two sums over positions, and one division after them.

`sum_p softmax(s)_p v_p` is `(sum_p e_p v_p) / (sum_p e_p)` with `e = exp(s)`. A program divides
first, so that each term sees all positions. Dividing by what all positions share commutes with a
sum over them: then numerator and denominator are pools of local fields, here one pool of both.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import is_variable, made_by, param
from jaxcam._src.cut.softmax import Softmax, is_floating
from jaxcam._src.derivatives.structure.relations import Relation


class _Share(NamedTuple):
    """The value `powers * times / sum(powers, axis)`, not yet divided.

    Attributes:
      powers: with an axis for each of the value's, of its size or 1.
      axis: that of the softmax.
      times: likewise; None stands for 1.
    """

    powers: Array
    axis: int
    times: Array | None = None


def still(
    found: dict[Any, Softmax], positions: dict[Any, Relation], *, among_others: bool = False
) -> dict[Any, Softmax]:
    """Those whose logits see different positions along their own axis alone: no query moves.

    Args:
      found: softmaxes.
      positions: what the variables see.
      among_others: whether logits of other queries, which move, may lie beside them.
    """

    def axes(v: Any) -> list[int]:
        sizes = positions[v].shape[:-1] if is_variable(v) and v in positions else ()
        return [a for a, size in enumerate(sizes) if size > 1]

    return {
        v: s
        for v, s in found.items()
        if (s.axis in axes(s.logits) if among_others else [s.axis] == axes(s.logits))
    }


def divided_last(jaxpr: Any, found: dict[Any, Softmax]) -> Any:
    """The same program, which sums over these softmaxes before it divides."""

    def run(*arguments: Any) -> list[Any]:
        values = dict(zip(jaxpr.invars, arguments, strict=True))
        shares: dict[Any, _Share] = {}

        def read(v: Any) -> Any:
            return values[v] if is_variable(v) else v.val

        for eqn in jaxpr.eqns:
            made = _made_of_share(eqn, shares, [read(v) for v in eqn.invars])
            if isinstance(made, _Share):
                shares[eqn.outvars[0]] = made
            if isinstance(made, Array):
                result = eqn.outvars[0].aval
                values[eqn.outvars[0]] = jnp.broadcast_to(made, result.shape).astype(result.dtype)
                continue
            values |= made_by(eqn, values)
            shares |= {v: _share(found[v], values) for v in eqn.outvars if v in found}
        return [read(v) for v in jaxpr.outvars]

    changed = jax.make_jaxpr(run)(*(v.aval for v in jaxpr.invars)).jaxpr
    return changed.replace(eqns=live(changed.eqns, changed.outvars)[0])


def _share(softmax: Softmax, values: dict[Any, Any]) -> _Share:
    """What is subtracted needs no derivative: a softmax is the same for whatever it is."""
    logits, axis = accumulated(values[softmax.logits]), softmax.axis
    largest = jax.lax.stop_gradient(logits.max(axis, keepdims=True))
    return _Share(jnp.exp(logits - largest), axis)


def _made_of_share(
    eqn: Any, shares: dict[Any, _Share], given: Sequence[Any]
) -> Array | _Share | None:
    """A share again, or the value of a sum over the softmax; None of other equations."""
    sides = [side for side, v in enumerate(eqn.invars) if is_variable(v) and v in shares]
    rule = _RULES.get(eqn.primitive.name)
    if rule is None or len(sides) != 1 or not is_floating(eqn.outvars[0]):
        return None
    return rule(eqn, shares[eqn.invars[sides[0]]], sides[0], given)


def _pooled(share: _Share) -> Array:
    """The sum over the softmax's axis: of numerators and denominators at once, then divided."""
    powers = jnp.moveaxis(share.powers, share.axis, 0)
    terms = powers
    if share.times is not None:
        terms = _product(powers, jnp.moveaxis(share.times, share.axis, 0))
    both = [x.astype(terms.dtype).reshape(len(x), -1) for x in (terms, powers)]
    pooled = jnp.concatenate(both, axis=1).sum(0)
    above, below = jnp.split(pooled, [terms[0].size])
    return above.reshape(terms.shape[1:]) / below.reshape(powers.shape[1:])


def _product(one: Array, other: Array) -> Array:
    dtype = np.promote_types(one.dtype, other.dtype)
    return one.astype(dtype) * other.astype(dtype)


# What an equation makes of the share that is its operand number `side` ----------------------------


def _same(eqn: Any, share: _Share, side: int, given: Sequence[Any]) -> _Share:
    return share


def _transpose(eqn: Any, share: _Share, side: int, given: Sequence[Any]) -> _Share:
    order = param(eqn, "permutation")
    times = None if share.times is None else share.times.transpose(order)
    return _Share(share.powers.transpose(order), order.index(share.axis), times)


def _broadcast(eqn: Any, share: _Share, side: int, given: Sequence[Any]) -> _Share | None:
    to = param(eqn, "broadcast_dimensions")
    if share.times is not None:
        return None
    sizes = [1] * eqn.outvars[0].aval.ndim
    for axis, size in zip(to, share.powers.shape, strict=True):
        sizes[axis] = size
    return _Share(share.powers.reshape(sizes), to[share.axis])


def _multiply(eqn: Any, share: _Share, side: int, given: Sequence[Any]) -> _Share | None:
    other = accumulated(jnp.asarray(given[1 - side]))
    other = other if other.ndim else other.reshape((1,) * share.powers.ndim)
    return share._replace(times=other if share.times is None else _product(share.times, other))


def _reduce(eqn: Any, share: _Share, side: int, given: Sequence[Any]) -> Array | None:
    return _pooled(share) if tuple(param(eqn, "axes")) == (share.axis,) else None


def _dot(eqn: Any, share: _Share, side: int, given: Sequence[Any]) -> Array | None:
    contracted, _ = param(eqn, "dimension_numbers")
    if tuple(contracted[side]) != (share.axis,):
        return None
    times = factor(eqn, 1 - side, accumulated(given[1 - side]))
    times = times if share.times is None else _product(times, factor(eqn, side, share.times))
    powers = factor(eqn, side, share.powers)
    return _pooled(_Share(powers, powers.ndim - 1, times))


def factor(eqn: Any, side: int, x: Array) -> Array:
    """One side of a `dot_general`, with the axes of the result, of size 1 too, then those summed.

    The result is the sum of the product of both.
    """
    (contracted, batch) = (both[side] for both in param(eqn, "dimension_numbers"))
    free = [a for a in range(x.ndim) if a not in {*contracted, *batch}]
    x = x.transpose(*batch, *free, *contracted)
    absent = range(eqn.outvars[0].aval.ndim - len(batch) - len(free))
    start = len(batch) + (len(free) if side == 0 else 0)
    return jnp.expand_dims(x, tuple(start + a for a in absent))


_Rule = Callable[[Any, _Share, int, Sequence[Any]], Array | _Share | None]
_RULES: dict[str, _Rule] = {
    "convert_element_type": _same,
    "copy": _same,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "mul": _multiply,
    "reduce_sum": _reduce,
    "dot_general": _dot,
}
