"""Functions of batches, of several inputs or with channels first, as apply functions.

This is what all adapters share: each brings a function that runs its framework's module.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import Layout, laid_out, mark_image, without_batch
from jaxcam._src.names import no_such

_CHANNELS = "first", "last"


def from_function(
    function: Callable[..., Any],
    *,
    batch: bool = True,
    channels: str = "last",
    inputs_fn: Callable[..., Any] | None = None,
    output_fn: Callable[[Any], Any] | None = None,
) -> ApplyFn:
    """Makes an apply function of a function that takes images in another way.

    Layers are what `jaxcam.tag` names in it, `[1, *spatial, K]` of a batch, or `[1, K, *spatial]`.

    Args:
      function: `(variables, images) -> logits [1, classes]`.
      batch: whether it takes and returns a batch, which is one image here.
      channels: "first" where it takes `[1, C, *spatial]`. A layer lies as the program shows; where
        it shows nothing, arrays with as many axes are taken to have their channels first too, while
        tokens `[1, tokens, K]` of a picture stay as they are.
      inputs_fn: `(images, inputs) -> positional arguments of the function after variables`, a
        tuple, or one argument that is none; for a model that takes more than an image.
        `apply_fn` then takes `(variables, inputs)` in place of variables, so that the other
        inputs are arguments too: under `jax.vmap` with axes of their own, not compiled in.
      output_fn: takes the logits out of what the function returns, where that is more.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`.

    Raises:
      ValueError: `channels` is neither; by `apply_fn`, where `variables` is no pair.

    >>> def network(variables, images):  # [n, H, W, C] -> [n, classes]
    ...     return jaxcam.tag(images * variables, "features").mean((1, 2))
    >>> explain = jaxcam.explainer(jaxcam.from_function(network), "features")
    >>> explain(jnp.ones(3), image).heatmap.shape
    (64, 64)
    """
    if channels not in _CHANNELS:
        raise ValueError(no_such("order of axes channels=", channels, _CHANNELS))

    def apply_fn(variables: PyTree, image: Array) -> PyTree:
        first = channels == "first"
        images = jnp.moveaxis(image, -1, 0) if first else image
        with laid_out(Layout(batch, image.ndim if first else 0)):
            arguments: Any = mark_image(images[None] if batch else images)
            if inputs_fn is not None:
                variables, inputs = _pair(variables)
                arguments = inputs_fn(arguments, inputs)
            arguments = arguments if isinstance(arguments, tuple) else (arguments,)
            output = function(variables, *arguments)
        output = output_fn(output) if output_fn else output
        return jax.tree.map(without_batch, output) if batch else output

    return apply_fn


def _pair(variables: PyTree) -> tuple[PyTree, PyTree]:
    if not isinstance(variables, tuple) or len(variables) != 2:
        raise ValueError(
            f"variables is a {type(variables).__name__}; with inputs_fn= wanted a pair "
            "(variables, inputs), where inputs is what inputs_fn takes beside the image"
        )
    return variables


def check_call(
    function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], maker: str
) -> None:
    """Refuses arguments that a module cannot be called with, before its framework does.

    Raises:
      ValueError: names what is missing, or too much, and where to give it.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise ValueError(
            f"{function.__qualname__}{signature} cannot be called with {len(arguments)} arguments "
            f"and {sorted(keywords) or 'nothing'} by name ({error}); arguments by name are those "
            f"given to {maker}, inputs beside the image those of inputs_fn="
        ) from error
