"""Depthwise convolutions as sums of shifted products, which a CPU runs many times as fast."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jaxtyping import Array

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.frameworks import check_apply_fn
from jaxcam._src.cut.programs import CALLS, param
from jaxcam._src.cut.rewritten import rewritten

_MOST_TAPS = 64  # of a kernel: each is a term of its own in the program
_OPENED = {*CALLS, "scan", "cond", "while"}


def depthwise_on_cpu(apply_fn: ApplyFn) -> ApplyFn:
    """The same model, its depthwise convolutions as sums of shifted products.

    XLA's own take twenty to fifty times as long on a CPU, and so MobileNets and EfficientNets five
    to seven times. The result is the same but for rounding.

    Args:
      apply_fn: `(variables, image) -> logits`.

    Returns:
      A model with the same layers; `apply_fn` itself where JAX's default backend is no CPU.

    Raises:
      ValueError: `apply_fn` is a model or a method of one; it names the adapter.

    >>> fast_fn = jaxcam.depthwise_on_cpu(apply_fn)
    >>> bool(jnp.allclose(fast_fn(variables, image), apply_fn(variables, image)))
    True
    """

    check_apply_fn(apply_fn)

    def with_sums(closed: Any, image: Any) -> tuple[Any, list[Any]]:
        program = shifted_on_cpu(closed.jaxpr)
        inputs = [*program.constvars, *program.invars]
        return program.replace(constvars=[], invars=inputs), closed.consts

    return rewritten(apply_fn, with_sums) if _is_on_cpu() else apply_fn


def shifted_on_cpu(jaxpr: Any) -> Any:
    """A program whose depthwise convolutions are calls of such sums; the same on no CPU."""
    return _with_sums(jaxpr) if _is_on_cpu() else jaxpr


def _is_on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _with_sums(jaxpr: Any) -> Any:
    return jaxpr.replace(eqns=[_shifted(eqn) for eqn in jaxpr.eqns])


def _shifted(eqn: Any) -> Any:
    if eqn.primitive.name in _OPENED:
        return eqn.replace(params={name: _inside(value) for name, value in eqn.params.items()})
    return _call(eqn) if _is_depthwise(eqn) else eqn


def _inside(value: Any) -> Any:
    """A parameter of an equation, the programs in it changed."""
    match value:
        case jex.ClosedJaxpr():
            return jex.ClosedJaxpr(_with_sums(value.jaxpr), value.consts)
        case jex.Jaxpr():
            return _with_sums(value)
        case tuple():
            return tuple(map(_inside, value))
    return value


def _is_depthwise(eqn: Any) -> bool:
    """Whether an equation convolves each channel alone, with a small kernel of real numbers."""
    if eqn.primitive.name != "conv_general_dilated":
        return False
    image, kernel = (v.aval for v in eqn.invars)
    numbers, groups = param(eqn, "dimension_numbers"), param(eqn, "feature_group_count")
    return (
        groups == image.shape[numbers.lhs_spec[1]] > 1
        and 1 < math.prod(kernel.shape[a] for a in numbers.rhs_spec[2:]) <= _MOST_TAPS
        and all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in (*eqn.invars, *eqn.outvars))
    )


def _call(eqn: Any) -> Any:
    """An equation that calls the sum."""
    with jax.disable_jit(False):  # under which it would be many equations
        (call,) = jax.make_jaxpr(jax.jit(_sum_of(eqn)))(*(v.aval for v in eqn.invars)).eqns
    return call.replace(invars=eqn.invars, outvars=eqn.outvars)


def _sum_of(eqn: Any) -> Callable[[Array, Array], Array]:
    """The sum as a function of image and kernel."""
    numbers, result = param(eqn, "dimension_numbers"), eqn.outvars[0].aval
    strides, dilations = param(eqn, "window_strides"), param(eqn, "rhs_dilation")
    padding = [
        (low, high, apart - 1)
        for (low, high), apart in zip(
            param(eqn, "padding"), param(eqn, "lhs_dilation"), strict=True
        )
    ]
    size = [result.shape[a] for a in numbers.out_spec[2:]]

    def depthwise(image: Array, kernel: Array) -> Array:
        # [batch, *positions, channels] and [channels, *window]
        image = accumulated(jnp.transpose(image, _last(numbers.lhs_spec)))
        kernel = accumulated(jnp.transpose(kernel, numbers.rhs_spec))[:, 0]
        image = jnp.repeat(image, len(kernel) // image.shape[-1], axis=-1)
        zero = jnp.zeros((), image.dtype)
        image = jax.lax.pad(image, zero, [(0, 0, 0), *padding, (0, 0, 0)])

        def term(*tap: int) -> Array:
            starts = [place * apart for place, apart in zip(tap, dilations, strict=True)]
            stops = [s + (n - 1) * by + 1 for s, n, by in zip(starts, size, strides, strict=True)]
            spans = [slice(*span) for span in zip(starts, stops, strides, strict=True)]
            return image[:, *spans] * jnp.expand_dims(kernel[:, *tap], range(image.ndim - 1))

        total = functools.reduce(
            operator.add, itertools.starmap(term, np.ndindex(kernel.shape[1:]))
        )
        order = [*map(int, np.argsort(_last(numbers.out_spec)))]
        return jnp.transpose(total, order).astype(result.dtype)

    return depthwise


def _last(spec: Sequence[int]) -> list[int]:
    """The axes of batch, positions and channels in this order."""
    batch, channels, *positions = spec
    return [batch, *positions, channels]
