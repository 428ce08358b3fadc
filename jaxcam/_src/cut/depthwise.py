"""Depthwise convolutions as sums of shifted products, which a CPU runs many times as fast."""

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jaxtyping import Array

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.frameworks import check_apply_fn
from jaxcam._src.cut.programs import CALLS, param
from jaxcam._src.cut.rewritten import rewritten

_MOST_TAPS = 64  # of a kernel: each is a term of its own in the program
_PROGRAMS = {  # where equations keep programs
    **{name: (key,) for name, key in CALLS.items()},
    "scan": ("jaxpr",),
    "cond": ("branches",),
    "while": ("cond_jaxpr", "body_jaxpr"),
}


def depthwise_on_cpu(apply_fn: ApplyFn) -> ApplyFn:
    """The same model, its depthwise convolutions as sums of shifted products.

    XLA's own take many times as long on a CPU (`benchmarks/depthwise.py`). The result is the same
    but for rounding. Kernels of more than 64 places stay, and so does what is inside a function
    with a rule of differentiation of its own.

    Args:
      apply_fn: `(variables, image [*spatial, C]) -> logits [classes]`.

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

    return rewritten(apply_fn, with_sums) if is_on_cpu() else apply_fn


def shifted_on_cpu(jaxpr: Any) -> Any:
    """A program whose depthwise convolutions are calls of such sums; the same on no CPU."""
    return _with_sums(jaxpr, {}) if is_on_cpu() else jaxpr


def is_on_cpu() -> bool:
    """Whether JAX computes on a CPU unless told otherwise."""
    return jax.default_backend() == "cpu"


def _with_sums(jaxpr: Any, known: dict[int, Any]) -> Any:
    """The same program, itself where nothing changes: JAX's caches go by identity.

    Args:
      jaxpr: the program.
      known: of programs inside of others, by their identity, what has become of them.
    """
    eqns = [_shifted(eqn, known) for eqn in jaxpr.eqns]
    is_same = all(map(operator.is_, eqns, jaxpr.eqns))
    return jaxpr if is_same else jaxpr.replace(eqns=eqns)


def _shifted(eqn: Any, known: dict[int, Any]) -> Any:
    if _is_depthwise(eqn):
        return _call(eqn)
    before = {key: param(eqn, key) for key in _PROGRAMS.get(eqn.primitive.name, ())}
    after = {key: _inside(value, known) for key, value in before.items()}
    is_same = all(after[key] is before[key] for key in before)
    return eqn if is_same else eqn.replace(params={**eqn.params, **after})


def _inside(value: Any, known: dict[int, Any]) -> Any:
    """A program inside of an equation, or a tuple of them, with sums."""
    if isinstance(value, tuple):
        branches = tuple(_inside(branch, known) for branch in value)
        return value if all(map(operator.is_, branches, value)) else branches
    if id(value) not in known:
        is_closed = isinstance(value, jex.ClosedJaxpr)
        before = value.jaxpr if is_closed else value
        after = _with_sums(before, known)
        changed = jex.ClosedJaxpr(after, value.consts) if is_closed else after
        known[id(value)] = value if after is before else changed
    return known[id(value)]


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
        and eqn.outvars[0].aval.size > 0
    )


def _call(eqn: Any) -> Any:
    """An equation that calls the sum."""
    numbers, result = param(eqn, "dimension_numbers"), eqn.outvars[0].aval
    dilations = param(eqn, "lhs_dilation")
    padding = [(*ends, n - 1) for ends, n in zip(param(eqn, "padding"), dilations, strict=True)]
    how = _Convolution(
        numbers,
        tuple(padding),
        tuple(param(eqn, "window_strides")),
        tuple(param(eqn, "rhs_dilation")),
        tuple(result.shape[a] for a in numbers.out_spec[2:]),
        np.dtype(result.dtype),
    )
    with jax.disable_jit(False):  # under which it would be many equations
        (call,) = jax.make_jaxpr(_depthwise(how))(*(v.aval for v in eqn.invars)).eqns
    return call.replace(invars=eqn.invars, outvars=eqn.outvars, source_info=eqn.source_info)


class _Convolution(NamedTuple):
    """How channels are convolved.

    Attributes:
      numbers: which axes are which, as `jax.lax` has it.
      padding: of each axis of positions, as `jax.lax.pad` takes it.
      strides: of the window.
      dilations: of the window.
      size: of the result, along its positions.
      dtype: of the result.
    """

    numbers: Any
    padding: tuple[tuple[int, int, int], ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    size: tuple[int, ...]
    dtype: np.dtype


@functools.lru_cache(maxsize=1024)
def _depthwise(how: _Convolution) -> Any:
    """The sum as a jitted function of image and kernel; kept, as what is compiled of it is."""

    def depthwise(image: Array, kernel: Array) -> Array:
        # [batch, *positions, channels] and [channels, *window]
        dtype = np.result_type(np.float32, image.dtype, how.dtype)
        image = jnp.transpose(image, _last(how.numbers.lhs_spec)).astype(dtype)
        kernel = jnp.transpose(kernel, how.numbers.rhs_spec)[:, 0].astype(dtype)
        image = jnp.repeat(image, len(kernel) // image.shape[-1], axis=-1)
        image = jax.lax.pad(image, np.zeros((), dtype), [(0, 0, 0), *how.padding, (0, 0, 0)])
        factors = (
            jnp.expand_dims(kernel[:, *tap], range(image.ndim - 1))
            for tap in np.ndindex(kernel.shape[1:])
        )
        # Parted once it is multiplied: so the transpose repeats less for each place of the kernel.
        windows = zip(factors, _windows(how, kernel.shape[1:]), strict=True)
        total = functools.reduce(operator.add, ((image * f)[:, *spans] for f, spans in windows))
        order = np.argsort(_last(how.numbers.out_spec)).tolist()
        return jnp.transpose(total, order).astype(how.dtype)

    return jax.jit(depthwise)


def _windows(how: _Convolution, window: Sequence[int]) -> Iterator[list[slice]]:
    """Of each place of the kernel what it is multiplied with: spans of the padded positions."""
    for tap in itertools.product(*map(range, window)):
        starts = [place * apart for place, apart in zip(tap, how.dilations, strict=True)]
        lengths = [(n - 1) * by + 1 for n, by in zip(how.size, how.strides, strict=True)]
        ends = map(operator.add, starts, lengths)
        yield [slice(*span) for span in zip(starts, ends, how.strides, strict=True)]


def _last(spec: Sequence[int]) -> list[int]:
    """The axes of batch, positions and channels in this order."""
    batch, channels, *positions = spec
    return [batch, *positions, channels]
