"""The tag: an identity that leaves a named equation in a model's program."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir
from jaxtyping import PyTree

tag_p = jex.Primitive("jaxcam_tag")
tag_p.def_impl(lambda value, **_: value)
tag_p.def_abstract_eval(lambda aval, **_: aval)
mlir.register_lowering(tag_p, lambda ctx, value, **_: [value])


def _tag_jvp(primals, tangents, **params):
    return tag_p.bind(*primals, **params), tangents[0]


def _tag_batch(values, axes, **params):
    # To the front, so that a layer under vmap has its spatial axes in their usual order.
    return tag_p.bind(jnp.moveaxis(values[0], axes[0], 0), **params), 0


ad.primitive_jvps[tag_p] = _tag_jvp
batching.primitive_batchers[tag_p] = _tag_batch
_retrace = jax.make_user_context(default_value=False)


def tag(value: PyTree, name: str) -> PyTree:
    """Names a value inside a model, so that the model can be cut there. An identity.

    Args:
      value: an array `[*spatial, K]`, or a pytree of them; its floating-point arrays are named.
      name: of the layer.

    Returns:
      `value`, unchanged.

    Raises:
      ValueError: the name is no string.
    """
    if not isinstance(name, str):
        raise ValueError(f"tag got the name {name!r}; wanted tag(value, name) with a string")
    leaves, structure = jax.tree.flatten(value)
    tagged = [tag_p.bind(x, name=name, leaf=i) if _is_float(x) else x for i, x in enumerate(leaves)]
    return structure.unflatten(tagged)


@contextlib.contextmanager
def tagging() -> Iterator[None]:
    """What an adapter tags inside must run in here: it keeps jit from reusing untagged traces."""
    with _retrace(True):
        yield


def _is_float(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
