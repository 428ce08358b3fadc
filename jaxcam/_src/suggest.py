"""The layer to explain at, where the user names none."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from jaxcam._src.base import ApplyFn, Layer
from jaxcam._src.checks import in_proportion
from jaxcam._src.cut import OnTheWay, check_apply_fn, on_the_way
from jaxcam._src.tokens import token_grid


class TokensError(ValueError):
    """The last positions of a model are those of tokens, whose grid `token_grid` has to lay out.

    Attributes:
      layer: the last whose tokens `token_grid` lays out; None if there is none.
    """

    def __init__(self, message: str, layer: str | None = None) -> None:
        super().__init__(message)
        self.layer = layer


def suggest_layer(apply_fn: ApplyFn, variables: PyTree, image: Any) -> str:
    """Names the last layer that still has positions: where most maps are made.

    That is the one before the global pool of a convolutional network, and the one before the
    output of a segmentation network. Of the layers of its size it is the last that no path leads
    around, such as the output of a residual block and not a convolution inside; of a network that
    names none of these, the last of all. Traces; computes nothing.

    Args:
      apply_fn: `(variables, image) -> logits`, with tagged layers.
      variables: arrays or `jax.ShapeDtypeStruct`s.
      image: `[*spatial, C]`, an array or a `jax.ShapeDtypeStruct`.

    Returns:
      The name, which `explainer`, `tap` and `split` take.

    Raises:
      ValueError: `apply_fn` is a model, no layer has positions, or what has them last are tokens,
        whose grid `jaxcam.token_grid` says.

    >>> jaxcam.suggest_layer(apply_fn, variables, image)
    'stage3'
    """
    check_apply_fn(apply_fn)
    found = [each for each in on_the_way(apply_fn, variables, image) if has_positions(each.layer)]
    passed = [each for each in found if each.is_neck]
    _check_no_tokens(passed or found, apply_fn, variables, image)
    if found and found[-1].has_others:  # a class token joined behind the last neck
        _check_no_tokens(found, apply_fn, variables, image)
    necks = [each.layer for each in passed]
    of_positions = (each.layer for each in found if not each.has_others)
    grids = [layer for layer in of_positions if len(layer.shape) == len(image.shape)]
    if not grids:
        raise ValueError(
            f"the model has no layer with positions that runs once between the image "
            f"{list(image.shape)} and the output; name one: jaxcam.layers lists all, and "
            "jaxcam.tag names more"
        )
    # Of heads beside tokens, say, the sides are not those of the image, however much it shrank.
    grids = [layer for layer in grids if in_proportion(layer.shape[:-1], image.shape[:-1])] or grids
    of_last_size = [layer for layer in grids if layer.shape[:-1] == grids[-1].shape[:-1]]
    return ([layer for layer in of_last_size if layer in necks] or of_last_size)[-1].name


def has_positions(layer: Layer) -> bool:
    """Whether a map of the layer would have more than one number."""
    return math.prod(layer.shape[:-1]) > 1


def _check_no_tokens(
    found: Sequence[OnTheWay], apply_fn: ApplyFn, variables: PyTree, image: Any
) -> None:
    """Refuses a model whose last positions are those of tokens, and names a layer of them."""
    tokens = [
        each.layer.name
        for each in found
        if each.has_others or len(each.layer.shape) == 2 < len(image.shape)
    ]
    if not (tokens and tokens[-1] == found[-1].layer.name):
        return
    last = found[-1].layer
    batch = "; of a batch give one image" if len(image.shape) > 3 else ""
    fitting = (name for name in reversed(tokens) if _has_grid(name, apply_fn, variables, image))
    layer = next(fitting, None)
    raise TokensError(
        f"{last.name!r}, the last layer with positions, returns tokens {list(last.shape)} "
        "and no grid of positions; give the layer jaxcam.token_grid(apply_fn, "
        f"{(layer or last.name)!r}){batch}",
        layer,
    )


def _has_grid(name: str, apply_fn: ApplyFn, variables: PyTree, image: Any) -> bool:
    try:
        jax.eval_shape(lambda v, x: token_grid(apply_fn, name)(v, x)[0], variables, image)
    except ValueError:
        return False
    return True
