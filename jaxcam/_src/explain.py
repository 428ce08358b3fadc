"""The whole path: split the model, tap it, weigh the channels, combine, upsample."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.base import (
    ApplyFn,
    Convention,
    Explanation,
    FuseFn,
    ScoreFn,
    SplitFn,
    Tap,
    WeightsFn,
)
from jaxcam._src.checks import check_explained_by, wants
from jaxcam._src.conventions.paper import paper
from jaxcam._src.cut import check_apply_fn
from jaxcam._src.frames import with_room
from jaxcam._src.maps import flatness, sound
from jaxcam._src.methods.gradient import grad_cam
from jaxcam._src.scores import logit
from jaxcam._src.taps import tap


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
