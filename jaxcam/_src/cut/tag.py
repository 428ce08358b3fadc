"""The tag: an identity that leaves a named equation in a model's program."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

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


class Layout(NamedTuple):
    """How arrays lie inside a module, where not as `[*spatial, K]`.

    Attributes:
      batch: whether they have a batch axis of one.
      channels_first: how many axes, beside that of the batch, an array has whose channels come
        before its positions; 0 if none has.
    """

    batch: bool = False
    channels_first: int = 0


# JAX's tracing caches know this context, so that no trace made outside is used inside.
_layout = jax.make_user_context(default_value=Layout())


def tag(value: PyTree, name: str) -> PyTree:
    """Names a value inside a model, so that the model can be cut there. An identity.

    Args:
      value: an array `[*spatial, K]`, or a pytree of them; its floating-point arrays are named.
        Inside `jaxcam.batch_of_one`, as in a module of a framework, `[1, *spatial, K]`.
      name: of the layer.

    Returns:
      `value`, unchanged.

    Raises:
      ValueError: the name is no string.
    """
    if not isinstance(name, str):
        raise ValueError(f"tag got the name {name!r}; wanted tag(value, name) with a string")
    leaves, structure = jax.tree_util.tree_flatten_with_path(value)
    return structure.unflatten(
        [
            _tag_leaf(x, name, leaf, jax.tree_util.keystr(path, simple=True, separator="/"))
            for leaf, (path, x) in enumerate(leaves)
        ]
    )


def mark_image(image: Any) -> Any:
    """Marks the image where it enters a module, as a tag without a name. An identity.

    So the program says how arrays lie in the module, also where that tags nothing.

    Args:
      image: as the module takes it, `[*spatial, C]`, channels first or with a batch axis of one.
    """
    return tag_p.bind(image, name=None, leaf=0, path="", layout=_layout.value)


@contextlib.contextmanager
def batch_of_one(channels_first: int = 0) -> Iterator[None]:
    """For adapters: what is tagged in here has a batch axis of one, which the tag leaves out.

    Args:
      channels_first: how many axes, beside that of the batch, an array has whose channels come
        before its positions, such as 3 for `[1, C, H, W]`; the layer is seen channels last.
    """
    with laid_out(Layout(batch=True, channels_first=channels_first)):
        yield


@contextlib.contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """What is tagged in here lies so; the tag sees it as `[*spatial, K]`."""
    with _layout(layout):
        yield


def without_batch(x: Any) -> Any:
    """The only entry of an array's first axis; whatever has no such axis, as it is."""
    return jax.lax.squeeze(x, (0,)) if _is_batch(x) else x


def _tag_leaf(x: Any, name: str, leaf: int, path: str) -> Any:
    if not (isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)):
        return x
    layout = _layout.value
    batched = layout.batch and _is_batch(x)
    seen = jax.lax.squeeze(x, (0,)) if batched else x  # of jax.lax, which traces faster than x[0]
    axes = range(seen.ndim)
    moved = 0 < layout.channels_first == seen.ndim
    seen = jax.lax.transpose(seen, [*axes[1:], 0]) if moved else seen
    seen = tag_p.bind(seen, name=name, leaf=leaf, path=path, layout=layout)
    seen = jax.lax.transpose(seen, [axes[-1], *axes[:-1]]) if moved else seen
    return jax.lax.expand_dims(seen, (0,)) if batched else seen


def _is_batch(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.ndim > 0 and x.shape[0] == 1
