"""The tag: an identity that leaves a named equation in a model's program."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex
from jax.interpreters import ad, batching, mlir
from jaxtyping import PyTree

from jaxcam._src.names import brief

tag_p = jex.Primitive("jaxcam_tag")
tag_p.def_impl(lambda value, **_: value)
tag_p.def_abstract_eval(lambda aval, **_: aval)
mlir.register_lowering(tag_p, lambda ctx, value, **_: [value])


def _tag_jvp(primals, tangents, **params):
    return tag_p.bind(*primals, **params), tangents[0]


def _tag_batch(values, axes, **params):
    # To the front, which is the usual order of what is mapped, if the program shows no other.
    params["lies"] = params["lies"].mapped_once_more()
    (value,), (axis,) = values, axes
    return tag_p.bind(jnp.moveaxis(value, axis, 0) if axis else value, **params), 0


ad.primitive_jvps[tag_p] = _tag_jvp
batching.primitive_batchers[tag_p] = _tag_batch


# Axes of the image, `~n` where one runs backwards, with their sizes, the outer first.
Joined: TypeAlias = tuple[tuple[int, int], ...]


def count(joined: Joined) -> int:
    """How many positions there are in joined axes."""
    return math.prod(n for _, n in joined)


def has_others(joined: Joined | None, tokens: int, length: int) -> bool:
    """Whether so many tokens are more than the positions of an image, whose first axis is so long.

    A signal that was shifted by a step is as long as before.
    """
    return joined is not None and tokens not in (count(joined), length)


class Layout(NamedTuple):
    """How arrays lie inside a module, where not as `[*spatial, K]`.

    Attributes:
      batch: whether they have a batch axis of one.
      channels_first: how many axes, beside that of the batch, an array has whose channels come
        before its positions; 0 if none has.
    """

    batch: bool = False
    channels_first: int = 0


class Lies(NamedTuple):
    """How a tagged array lies in its module, and the layer that is seen of it, `[*spatial, K]`.

    Attributes:
      layout: of the arrays of the module.
      mapped: how many axes of `jax.vmap` come before its own.
      order: where each axis of the layer lies in the array without its batch axis, where the
        program shows it.
      channels: where the channels lie in it, where the program shows that alone; else they lie as
        the layout says.
      flipped: the layer's axes that run backwards in the array.
      joined: where the program shows it, what the one axis of tokens is joined of.
      before: how many others come before those tokens.
      positionless: whether weights made an axis where positions are wanted.
      disordered: whether an axis holds positions in another order than the image, or some of them.
    """

    layout: Layout = Layout()
    mapped: int = 0
    order: tuple[int, ...] | None = None
    channels: int | None = None
    flipped: tuple[int, ...] = ()
    joined: Joined | None = None
    before: int = 0
    positionless: bool = False
    disordered: bool = False

    def mapped_once_more(self) -> "Lies":
        """The same under another `jax.vmap`."""
        return self._replace(mapped=self.mapped + 1)

    def seen(self, x: Any) -> Any:
        """The layer of an array: no batch axis of one, positions as in the image, channels last."""
        order = self.order_in(x.shape)
        if (batch := self.batch_axis(x.shape)) is not None:
            x = jax.lax.squeeze(x, (batch,))  # of jax.lax, which traces fast
        x = x if order == sorted(order) else jax.lax.transpose(x, order)
        return jax.lax.rev(x, self.flipped) if self.flipped else x

    def unseen(self, x: Any, shape: tuple[int, ...]) -> Any:
        """The array `[*shape]` of a layer: the inverse."""
        x, order = jax.lax.rev(x, self.flipped) if self.flipped else x, self.order_in(shape)
        if order != sorted(order):
            x = jax.lax.transpose(x, np.argsort(order))
        batch = self.batch_axis(shape)
        return x if batch is None else jax.lax.expand_dims(x, (batch,))

    def seen_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the layer of an array."""
        own = self.without_batch(shape)
        return tuple(own[i] for i in self.order_in(shape))

    def without_batch(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an array but for the batch axis of one."""
        batch = self.batch_axis(shape)
        return tuple(n for axis, n in enumerate(shape) if axis != batch)

    def batch_axis(self, shape: tuple[int, ...]) -> int | None:
        """Where an array of this shape has its batch axis of one, None if it has none.

        That is behind the axes of `jax.vmap`, or one of them, where a function maps over its batch.
        """
        places = (self.mapped, *range(self.mapped)) if self.layout.batch else ()
        return next((axis for axis in places if shape[axis : axis + 1] == (1,)), None)

    def order_in(self, shape: tuple[int, ...]) -> list[int]:
        """Where each axis of a layer lies in the array of this shape without its batch axis."""
        if self.order is not None:
            return [*self.order]
        batch, first = self.batch_axis(shape), self.mapped
        first -= batch is not None and batch < self.mapped
        axes, channels = [*range(len(self.without_batch(shape)))], self.channels
        if channels is None:
            is_first = 0 < self.layout.channels_first == len(axes) - first
            channels = first if is_first else len(axes) - 1
        return [*(axis for axis in axes if axis != channels), *axes[channels:][:1]]


# JAX's tracing caches know this context, so that no trace made outside is used inside.
_layout = jax.make_user_context(default_value=Layout())


def tag(value: PyTree, name: str) -> PyTree:
    """Names a value inside a model, so that the model can be cut there. An identity.

    Args:
      value: an array `[*spatial, K]`, or a pytree of them; its floating-point arrays are named.
        Where the program shows which axes are the image's, they may lie in any order. Inside
        `jaxcam.batch_of_one`, as in a module of a framework, `[1, *spatial, K]`.
      name: of the layer.

    Returns:
      `value`, unchanged.

    Raises:
      ValueError: the name is no string.

    >>> def network(variables, image):
    ...     return jaxcam.tag(image * variables, "features").mean((0, 1))
    >>> jaxcam.explainer(network, "features")(jnp.ones(3), image).heatmap.shape
    (64, 64)
    """
    if not isinstance(name, str):
        raise ValueError(f"tag got the name {brief(name)}; wanted tag(value, name) with a string")
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
    return tag_p.bind(image, name=None, leaf=0, path="", lies=Lies(_layout.value))


def mark(name: str, lies: Lies, x: Any) -> list[Any]:
    """Tags the layer of an array, seen as `[*spatial, K]`, and returns the array."""
    seen = tag_p.bind(lies.seen(x), name=name, leaf=0, path="", lies=Lies())
    return [lies.unseen(seen, x.shape)]


@contextlib.contextmanager
def batch_of_one(channels_first: int = 0) -> Iterator[None]:
    """For adapters: what is tagged in here has a batch axis of one, which the tag leaves out.

    Args:
      channels_first: how many axes, beside that of the batch, an array has whose channels come
        before its positions, such as 3 for `[1, C, H, W]`; the layer is seen channels last.

    >>> def adapted(variables, image):  # an adapter of a function of a batch
    ...     with jaxcam.batch_of_one():
    ...         features = jaxcam.tag(image[None] * variables, "features")
    ...     return features.mean((0, 1, 2))
    >>> jaxcam.layers(adapted, jnp.ones(()), image)[0].shape
    (64, 64, 1)
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
    return tag_p.bind(x, name=name, leaf=leaf, path=path, lies=Lies(_layout.value))


def _is_batch(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.ndim > 0 and x.shape[0] == 1
