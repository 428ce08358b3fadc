"""The tap of a model: one image, one target, one layer, and all that a method may look at."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn, Attention, ScoreFn, SplitFn, Tap
from jaxcam._src.checks import (
    check_ending,
    check_layer_of,
    check_positions,
    checked_image,
    checked_score,
)
from jaxcam._src.cut import attended, split
from jaxcam._src.logits import LogitsError
from jaxcam._src.names import brief
from jaxcam._src.scores import likeliest, logit


def tap(
    apply_fn: ApplyFn,
    layer: str | SplitFn,
    variables: PyTree,
    image: Any,
    target: Any = None,
    *,
    score_fn: ScoreFn = logit,
) -> Tap:
    """Runs a model up to a layer and opens what a method may look at.

    Arguments as for `explainer` and `explain`. Call it inside the function that is jitted.

    Raises:
      ValueError: the image is no floating-point `[*spatial, C]`, the layer's output has other
        axes, is one of another model or sees a part of the image alone, the target is no class, or
        the score is no scalar.

    Warns:
      ModelWarning: weights made an axis of the layer where positions are wanted, or the model ends
        in probabilities and the score wants logits.

    >>> tap = jaxcam.tap(apply_fn, "stage3", variables, image)
    >>> jax.grad(tap.score_activations)(tap.activations).shape
    (16, 16, 64)
    """
    image = checked_image(image)
    activations, head = _cut(apply_fn, layer, variables, image)
    logits = head(activations)
    if target is None and isinstance(logits, jax.Array) and logits.ndim == 1:
        target = likeliest(score_fn, logits)
    opened = _Opened(
        activations,
        head,
        image,
        logits,
        target,
        functools.partial(_applied, apply_fn, variables, dtype=image.dtype, logits=logits),
        functools.partial(tap, apply_fn, layer, variables),
        functools.partial(attended, apply_fn, variables, image),
    )
    return _of_score(opened, score_fn)


class _Opened(NamedTuple):
    """What taps of one image and one layer share, whatever their score."""

    activations: Array
    head: Callable[[Array], Any]
    image: Array
    logits: Any
    target: Any
    applied: Callable[[Array], Any]  # an image -> what the model returns
    again: Callable[..., Tap]
    attended: Callable[..., Any]


def _of_score(opened: _Opened, score_fn: ScoreFn) -> Tap:
    """The tap of a score; the model is not traced again for another one."""
    image, target = opened.image, opened.target
    try:
        score = checked_score(score_fn(opened.logits, target))
    except LogitsError as error:
        raise LogitsError(f"of the image {brief(image)} {error}") from error
    check_ending(opened.head, score_fn)
    score_logits = lambda logits: score_fn(logits, target)  # noqa: E731
    return Tap(
        activations=opened.activations,
        score_activations=lambda activations: score_logits(opened.head(activations)),
        image=image,
        score_image=lambda other: score_logits(opened.applied(other)),
        logits=opened.logits,
        target=target,
        score=score,
        at_image=lambda image: opened.again(image, target, score_fn=score_fn),
        at_score=functools.partial(_of_score, opened),
        attention=functools.partial(_attention, opened.attended, score_logits),
    )


def _cut(
    apply_fn: ApplyFn, layer: Any, variables: PyTree, image: Array
) -> tuple[Array, Callable[[Array], Any]]:
    """The activations, and what the model makes of them; refuses a layer that has no map."""
    check_layer_of(apply_fn, layer)
    split_fn = split(apply_fn, layer) if isinstance(layer, str) else layer
    activations, head = split_fn(variables, image)
    check_positions(head, activations, image, layer)
    return activations, head


def _attention(
    attended_fn: Callable[..., Any],
    score_logits: Callable[[Any], Array],
    layers: Sequence[str] | None = None,
    blocks: Sequence[str] = (),
) -> Attention:
    found = attended_fn(layers, blocks)
    if found.missed:
        raise ValueError(
            f"the model has attention that is not found, in {found.missed}: no softmax over keys "
            "that a product sums with values, or one in a branch or a loop. Choose weights with "
            f"layers=, among {[*found.weights]} and what is named in the model, "
            "jaxcam.tag(weights, name) of [heads, queries, keys]"
        )

    def score(offsets: Sequence[Array]) -> Array:
        return jnp.stack([score_logits(x) for x in found.returned_fn(offsets)]).sum()

    return Attention(found.weights, score, found.apart)


def _applied(
    apply_fn: ApplyFn, variables: PyTree, image: Array, dtype: np.dtype, logits: PyTree
) -> Any:
    """What the model returns, in the dtypes of `logits`, those that it has for a `dtype` image."""
    if image.dtype == dtype:
        return apply_fn(variables, image)

    def cast(x: Any) -> Any:
        is_floating = jnp.issubdtype(jnp.result_type(x), jnp.floating)
        return jnp.asarray(x, image.dtype) if is_floating else x

    returned = apply_fn(jax.tree.map(cast, variables), image)
    return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), returned, logits)
