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
_in_batch = jax.make_user_context(default_value=False)


def tag(value: PyTree, name: str) -> PyTree:
    """Names a value inside a model, so that the model can be cut there. An identity.

    Args:
      value: an array `[*spatial, K]`, or a pytree of them; its floating-point arrays are named.
        Inside a Flax module, which sees a batch of one image, `[1, *spatial, K]`.
      name: of the layer.

    Returns:
      `value`, unchanged.

    Raises:
      ValueError: the name is no string.
    """
    if not isinstance(name, str):
        raise ValueError(f"tag got the name {name!r}; wanted tag(value, name) with a string")
    leaves, structure = jax.tree.flatten(value)
    return structure.unflatten([_tag_leaf(x, name, leaf) for leaf, x in enumerate(leaves)])


@contextlib.contextmanager
def batch_of_one() -> Iterator[None]:
    """For adapters: what is tagged in here has a batch axis of one, which the tag leaves out.

    JAX's tracing caches know this context, so that no trace made outside is used inside.
    """
    with _in_batch(True):
        yield


def without_batch(x: Any) -> Any:
    """The only entry of an array's first axis; whatever has no such axis, as it is."""
    return x[0] if _is_batch(x) else x


def _tag_leaf(x: Any, name: str, leaf: int) -> Any:
    if not (isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)):
        return x
    if _in_batch.value and _is_batch(x):
        return tag_p.bind(x[0], name=name, leaf=leaf)[None]
    return tag_p.bind(x, name=name, leaf=leaf)


def _is_batch(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.ndim > 0 and x.shape[0] == 1
