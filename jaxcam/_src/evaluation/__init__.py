"""Many methods and many metrics on one image: what they share is computed once."""

import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from jaxcam._src.base import (
    ApplyFn,
    Convention,
    FuseFn,
    Key,
    ScoreFn,
    SplitFn,
    Tap,
    WeightsFn,
)
from jaxcam._src.checks import check_explained_by
from jaxcam._src.conventions.paper import paper
from jaxcam._src.cut.frameworks import check_apply_fn
from jaxcam._src.explain import explanation_of, fusion, listed, taps_of
from jaxcam._src.explanations import one_map
from jaxcam._src.frames import with_room
from jaxcam._src.maps import is_flat, unit_range, upsample
from jaxcam._src.metrics.trial import MetricFn, Trial
from jaxcam._src.names import brief
from jaxcam._src.scores import logit, probability

Show: TypeAlias = Callable[[list[Tap]], tuple[Array, Array]]  # the heatmap, and why it is flat


class Evaluation(NamedTuple):
    """What was measured on one image.

    Attributes:
      numbers: of each method, by its name, each metric by its name: a scalar, or what the metric
        returns.
      flat: of each method why its map is flat, as in an `Explanation`; 0 where it is not.
      target: what was explained.
      score: of the image, by which the maps are judged.
    """

    numbers: dict[str, dict[str, Any]]
    flat: dict[str, Array]
    target: Any
    score: Array


def evaluator(
    apply_fn: ApplyFn,
    layer: str | SplitFn | Sequence[str | SplitFn],
    methods: Mapping[str, WeightsFn],
    metrics: Mapping[str, MetricFn],
    *,
    score_fn: ScoreFn = logit,
    judge_fn: ScoreFn = probability,
    fuse: FuseFn | None = None,
    convention: Convention = paper,
) -> Callable[..., Evaluation]:
    """Makes a pure function that judges maps of one image.

        methods = {"grad_cam": jaxcam.grad_cam, "uniform": jaxcam.uniform}
        metrics = {"drop": jaxcam.metrics.drop, "insertion": jaxcam.metrics.insertion}
        evaluate = jax.jit(jaxcam.evaluator(model.apply_fn, "stage3", methods, metrics))
        evaluate(model.variables, image).numbers["grad_cam"]["drop"]

    Args:
      apply_fn: `(variables, image) -> logits`, with tagged layers.
      layer: the name of a layer, or what `jaxcam.split` returns; or several, to be fused.
      methods: `Tap -> weights`, by name. Put floors among them: `jaxcam.uniform`.
      metrics: `Trial -> number`, by name: those of `jaxcam.metrics`, or your own.
      score_fn: what is explained.
      judge_fn: `(logits, target) -> scalar`, the score that metrics look at.
      fuse: heatmaps of several layers to one, as for `explainer`.
      convention: how maps are made; those of libraries that leave them at the layer's size, or
        beyond [0, 1], are resized and scaled, as metrics want them.

    Returns:
      `evaluate(variables, image, target=None, *, inside=None, key=None) -> Evaluation`, to be
      jitted, vmapped and, by `jaxcam.sharded`, spread over devices by the caller. `inside` is True
      on the object, `[*size]`; `key` is for metrics with random numbers, and 0 where none is given.
      Under `jit` the forward pass and the activations are computed once for all methods.

    Raises:
      ValueError: there is no method or no metric, or `apply_fn` or a method is none; by `evaluate`,
        as `explain` does, and where a metric needs to know where the object is.

    >>> methods = {"grad_cam": jaxcam.grad_cam, "floor": jaxcam.uniform}
    >>> metrics = {"drop": jaxcam.metrics.drop}
    >>> evaluate = jax.jit(jaxcam.evaluator(apply_fn, "stage3", methods, metrics))
    >>> evaluate(variables, image).numbers["grad_cam"]["drop"].shape
    ()
    """
    check_apply_fn(apply_fn)
    _check_named(methods, metrics)
    for method, score in itertools.product(methods.values(), (score_fn, judge_fn)):
        check_explained_by(method, score, fuse, convention)
    chosen, score_fn = listed(layer), convention.variant(score_fn)
    shows = _shows(methods, convention, fusion(layer, fuse, convention))

    @with_room
    def evaluate(
        variables: PyTree,
        image: Any,
        target: Any = None,
        *,
        inside: ArrayLike | None = None,
        key: Key | None = None,
    ) -> Evaluation:
        tapped = functools.partial(taps_of, apply_fn, chosen, variables, score_fn)
        first, *_ = taps = tapped(image, target)
        score = judge_fn(first.logits, first.target)
        trial_of = _trial_of(first, judge_fn, score, key, inside)
        found = {name: show(taps) for name, show in shows.items()}
        numbers = _measured(shows, metrics, trial_of, found, taps, tapped)
        flat = {name: reason for name, (_, reason) in found.items()}
        return Evaluation(numbers, flat, first.target, score)

    return evaluate


def _check_named(methods: Any, metrics: Any) -> None:
    for kind, given in {"method": methods, "metric": metrics}.items():
        if not isinstance(given, Mapping) or not given:
            raise ValueError(
                f"evaluator got no {kind} in {brief(given)}; give a mapping from names to functions"
            )


def _shows(
    methods: Mapping[str, WeightsFn], convention: Convention, fuse_fn: FuseFn | None
) -> dict[str, Show]:
    """What makes the heatmap of each method."""
    return {
        name: functools.partial(_shown, convention.variant(method), convention, fuse_fn)
        for name, method in methods.items()
    }


def _trial_of(
    explained: Tap, judge_fn: ScoreFn, score: Array, key: Key | None, inside: ArrayLike | None
) -> Callable[..., Trial]:
    """A trial of the image, but for its heatmap and the functions that make it again."""
    return functools.partial(
        Trial,
        image=explained.image,
        logits=explained.logits,
        target=explained.target,
        score=score,
        score_image=explained.at_score(judge_fn).score_image,
        key=jax.random.key(0) if key is None else key,
        inside=_checked(inside, explained.image.shape[:-1]),
    )


def _measured(
    shows: Mapping[str, Show],
    metrics: Mapping[str, MetricFn],
    trial_of: Callable[..., Trial],
    found: Mapping[str, tuple[Array, Array]],
    taps: list[Tap],
    tapped: Callable[[Any, Any], list[Tap]],
) -> dict[str, dict[str, Any]]:
    """The numbers of each method, one after the other: so each metric is in the program once.

    Args:
      shows: what makes the heatmap of a tap, for each method.
      metrics: by name.
      trial_of: a trial of a heatmap, and of the functions that make it again.
      found: the heatmap of each method, and why it is flat.
      taps: those of the image, one for each layer.
      tapped: image and target -> their taps.
    """

    def of_one(which: Array, heatmap: Array) -> dict[str, Any]:
        trial = trial_of(
            heatmap=heatmap,
            heatmap_of=lambda image: _shown_by(shows, which, [t.at_image(image) for t in taps]),
            heatmap_for=lambda target: _shown_by(shows, which, tapped(taps[0].image, target)),
        )
        return _numbers(metrics, trial)

    heatmaps = jnp.stack([heatmap for heatmap, _ in found.values()])
    each = jax.lax.map(lambda pair: of_one(*pair), (jnp.arange(len(shows)), heatmaps))
    return {name: jax.tree.map(operator.itemgetter(i), each) for i, name in enumerate(shows)}


def _shown_by(shows: Mapping[str, Show], which: Array, taps: list[Tap]) -> Array:
    """The heatmap of taps by one of the methods; the others do not run."""

    def heatmap(show: Show) -> Array:
        return show(taps)[0]

    return jax.lax.switch(which, [functools.partial(heatmap, show) for show in shows.values()])


def _numbers(metrics: Mapping[str, MetricFn], trial: Trial) -> dict[str, Any]:
    """Each number; NaN where the map is, which a comparison would hide."""
    finite = jnp.isfinite(trial.heatmap).all()
    found = {name: metric_fn(trial) for name, metric_fn in metrics.items()}
    return jax.tree.map(lambda x: jnp.where(finite, x, jnp.nan), found)


def _checked(inside: ArrayLike | None, size: tuple[int, ...]) -> Array | None:
    if inside is not None and jnp.shape(inside) != size:
        raise ValueError(
            f"inside has the shape {jnp.shape(inside)}; wanted {size}, that of the image without "
            "its channels"
        )
    return None if inside is None else jnp.asarray(inside, bool)


def _shown(
    method: WeightsFn, convention: Convention, fuse_fn: FuseFn | None, taps: list[Tap]
) -> tuple[Array, Array]:
    """The heatmap of taps, and why its map is flat."""
    found = one_map(explanation_of(taps, method, convention, fuse_fn))
    heatmap, size = found.heatmap, taps[0].image.shape[:-1]
    if heatmap.shape != size:  # as torchcam leaves it
        heatmap = upsample(heatmap, size)
    return jnp.where(is_flat(found.cam), jnp.zeros_like(heatmap), unit_range(heatmap)), found.flat
