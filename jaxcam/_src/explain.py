"""The whole path: split the model, tap it, weigh the channels, combine, upsample."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxcam._src.base import (
    ApplyFn,
    Attention,
    Convention,
    Explanation,
    FuseFn,
    ScoreFn,
    SplitFn,
    Tap,
    WeightsFn,
)
from jaxcam._src.checks import (
    check_ending,
    check_explained_by,
    check_layer_of,
    check_positions,
    checked_image,
    checked_score,
    wants,
)
from jaxcam._src.conventions.paper import paper
from jaxcam._src.cut import attended, check_apply_fn, split
from jaxcam._src.frames import with_room
from jaxcam._src.logits import LogitsError
from jaxcam._src.maps import flatness, sound
from jaxcam._src.methods.gradient import grad_cam
from jaxcam._src.names import brief
from jaxcam._src.scores import likeliest, logit


def explainer(
    apply_fn: ApplyFn,
    layer: str | SplitFn | Sequence[str | SplitFn],
    method: WeightsFn = grad_cam,
    *,
    score_fn: ScoreFn = logit,
    fuse: FuseFn | None = None,
    convention: Convention = paper,
) -> Callable[..., Explanation]:
    """Makes a pure function that explains one image.

    Args:
      apply_fn: `(variables, image) -> logits`, with tagged layers: a function that calls
        `jaxcam.tag`, or what an adapter returns, such as `from_linen`.
      layer: the name of a layer; or what `jaxcam.split` returns, to choose one run of a layer
        that runs several times; or a list or tuple of these, shallow to deep, to be fused.
      method: `Tap -> weights`. Bind its knobs with `functools.partial`.
      score_fn: `(logits, target) -> scalar`, what is explained.
      fuse: heatmaps `[layers, *spatial]` in [0, 1] to `[*spatial]`; used for several layers. None
        is that of the convention: `jaxcam.fuse_max` for the papers'. One that wants the keyword
        `weights`, as `jaxcam.fuse_winsor`, is given those of the layers.
      convention: how range, size and order of the heatmap are made, and by which variants of
        methods: one of `jaxcam.conventions`. The default follows the papers.

    Returns:
      `explain(variables, image, target=None) -> Explanation`, for an image `[*spatial, C]` as the
      model takes it; one of integers is explained as floats of the same values, which the model
      must treat alike. The heatmap has its size, whatever else the model looks at: to explain
      another input, make that one the image. `target` is what `score_fn` takes, a class index for
      those of this library; None is the class of the largest logit, where the model returns a
      vector (of a binary score, 1 where the logit is positive). The caller jits, vmaps and, by
      `jaxcam.sharded`, spreads it over devices. Inside a trace a target that is no class cannot be
      refused: then the heatmap is NaN, as it is where the image, the activations or the score are
      not finite.

    Raises:
      ValueError: `apply_fn` is a model, or no layer was given; by `explain`, where the image, the
        target or the layer cannot be explained.

    >>> explain = jax.jit(jaxcam.explainer(apply_fn, "stage3", jaxcam.layer_cam))
    >>> explain(variables, image).heatmap.shape
    (64, 64)
    """
    check_apply_fn(apply_fn)
    chosen = listed(layer)
    check_explained_by(method, score_fn, fuse, convention)
    method, score_fn = convention.variant(method), convention.variant(score_fn)
    fuse_fn = fusion(layer, fuse, convention)

    @with_room
    def explain(variables: PyTree, image: Any, target: Any = None) -> Explanation:
        taps = taps_of(apply_fn, chosen, variables, score_fn, image, target)
        return explanation_of(taps, method, convention, fuse_fn)

    return explain


def taps_of(
    apply_fn: ApplyFn,
    layers: Sequence[str | SplitFn],
    variables: PyTree,
    score_fn: ScoreFn,
    image: Any,
    target: Any,
) -> list[Tap]:
    """The taps of an image, one for each layer."""
    return [tap(apply_fn, at, variables, image, target, score_fn=score_fn) for at in layers]


def explanation_of(
    taps: Sequence[Tap], method: WeightsFn, convention: Convention, fuse_fn: FuseFn | None
) -> Explanation:
    """What a method makes of the tap of one layer, or of those of several that are to be fused."""
    first, activations = taps[0], [t.activations for t in taps]
    weights = tuple(method(t) for t in taps)
    cams = map(convention.combine_fn, weights, activations)
    pairs = zip(cams, taps, strict=True)
    cams = tuple(sound(cam, t.activations, t.image, t.score) for cam, t in pairs)
    flat = tuple(map(flatness, weights, activations, cams))
    heatmaps = [convention.layer_fn(cam, first.image.shape[:-1]) for cam in cams]
    fused = _fused(fuse_fn, heatmaps, weights) if fuse_fn else heatmaps[0]
    heatmap = convention.finish_fn(fused)
    made = (cams, weights, flat) if fuse_fn else (cams[0], weights[0], flat[0])
    return Explanation(heatmap, *made[:2], first.logits, first.target, made[2])


def listed(layer: str | SplitFn | Sequence[str | SplitFn]) -> list[str | SplitFn]:
    """The layers, be it one or several."""
    layers = [layer] if isinstance(layer, str) or not isinstance(layer, Sequence) else [*layer]
    if not layers:
        raise ValueError("layer is an empty sequence of layers; name one at least")
    return layers


def fusion(
    layer: str | SplitFn | Sequence[str | SplitFn], fuse: FuseFn | None, convention: Convention
) -> FuseFn | None:
    """What makes one map of those of several layers; None of one layer."""
    return convention.variant(fuse or convention.fuse_fn) if listed(layer) != [layer] else None


def _fused(fuse_fn: FuseFn, heatmaps: list[Array], weights: tuple[Array, ...]) -> Array:
    if wants(fuse_fn, "weights"):
        fuse_fn = functools.partial(fuse_fn, weights=weights)
    sizes = {heatmap.shape for heatmap in heatmaps}
    fused = fuse_fn(jnp.stack(heatmaps) if len(sizes) == 1 else heatmaps)
    if fused.shape not in sizes:
        raise ValueError(f"fuse returned a map of shape {fused.shape}; wanted {min(sizes)}")
    return fused


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
    try:
        score = checked_score(score_fn(logits, target))
    except LogitsError as error:
        raise LogitsError(f"of the image {brief(image)} {error}") from error
    check_ending(head, score_fn)
    again = functools.partial(tap, apply_fn, layer, variables)
    applied = functools.partial(_applied, apply_fn, variables, dtype=image.dtype, logits=logits)
    return Tap(
        activations=activations,
        score_activations=lambda activations: score_fn(head(activations), target),
        image=image,
        score_image=lambda other: score_fn(applied(other), target),
        logits=logits,
        target=target,
        score=score,
        at_image=lambda image: again(image, target, score_fn=score_fn),
        at_score=lambda score_fn: again(image, target, score_fn=score_fn),
        attention=functools.partial(
            _attention,
            functools.partial(attended, apply_fn, variables, image),
            lambda logits: score_fn(logits, target),
        ),
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
