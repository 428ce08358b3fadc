"""`jaxcam evaluate`: which map to trust, on the user's model and images."""

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, PyTree

from jaxcam._src import files, methods, scores
from jaxcam._src.base import Model, ScoreFn, WeightsFn
from jaxcam._src.cli import batches
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import METHODS, blank, target_of, try_shapes
from jaxcam._src.cli.streams import results, say
from jaxcam._src.evaluation import Evaluation, evaluator, report
from jaxcam._src.evaluation.measures import CHEAP, MEASURES, ON_OBJECTS
from jaxcam._src.explain import explainer
from jaxcam._src.files import UsageError
from jaxcam._src.names import no_such
from jaxcam._src.pipeline import Job, listing, store
from jaxcam._src.pipeline.numbers import PARTS, Setting, judged, judging, kinds_of
from jaxcam._src.weights.activation import random_cam, uniform
from jaxcam._src.weights.floors import centre, edges

FLOORS: dict[str, Callable[..., Any]] = {
    "uniform": uniform,
    "random_cam": random_cam,
    "centre": centre,
    "edges": edges,
}
SCORES = [
    "logit",
    "probability",
    "log_probability",
    "margin",
    "rest",
    "finer",
    "binary_logit",
    "binary_probability",
    "binary_log_probability",
    "label_probability",
    "label_log_probability",
]
_OFTEN = ["grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam"]
_SETTINGS = tuple("model layer score judge method metric seed target batch_size".split())


def run(options: argparse.Namespace) -> int:
    """Judges maps of images, and writes numbers, a summary and a figure."""
    batches.check_packages("evaluate")
    index, shares = batches.share(options.share)
    model = load_model(options.model)
    maps = _methods(options.method, options.seed)
    job, kinds = _job(options, model, maps)
    folder = files.writable_folder(options.out)
    settings = batches.settings_of(options, _SETTINGS, job.images)
    store.begin(folder, settings, f"{index}-of-{shares}", parts=PARTS)
    count = batches.count(job)
    own = range(index, count, shares)
    left = store.unfinished(folder, own, parts=PARTS)
    work = judged(job, left, folder, options.threads, [*maps], kinds)
    code = batches.go_through(job, own, left, work, folder, "judging", "judged")
    if store.unfinished(folder, range(count), parts=PARTS):
        say("other shares are not done; the last of them writes the summary")
        return code
    return _report(folder, count) or code


def _job(
    options: argparse.Namespace, model: Model, maps: dict[str, WeightsFn]
) -> tuple[Job, dict[str, type]]:
    """What the options ask for, tried on shapes, and the columns of its index.

    Of all methods those go out of `maps` that no layer of the model takes.
    """
    target = target_of(options, model)
    images = batches.images_of(options, model, target, with_objects=True)
    if options.boxes:
        images = listing.with_boxes(images, options.boxes)
    chosen = _metrics(options.metric, images.objects is not None)
    judges = {name: MEASURES[name].metric for name in chosen}
    pairs = itertools.product(options.layer, options.score or ["logit"])
    settings = [Setting(layer, score) for layer, score in pairs]
    _try_methods(options, model, target, settings, maps)

    def make(setting: Setting, maps: Mapping[str, WeightsFn]) -> Callable[..., Evaluation]:
        score_fn, judge_fn = _score(setting.score), _score(options.judge)
        return evaluator(
            model.apply_fn, setting.layer, maps, judges, score_fn=score_fn, judge_fn=judge_fn
        )

    def numbers(variables: PyTree, image: Array, inside: Array | None) -> dict[str, Array]:
        tried = make(settings[0], {"uniform": uniform})
        return tried(variables, image, target, inside=inside).numbers["uniform"]

    like = blank(model)
    inside = jax.ShapeDtypeStruct(like.shape[:-1], bool) if images.objects else None
    with files.one_line("cannot judge"):
        shapes = jax.eval_shape(numbers, model.variables, like, inside)
    batches.check_counts(options)
    evaluators = {setting: make(setting, maps) for setting in settings}
    step = judging(evaluators, model.variables, options.seed)
    return Job(model, step, like, images, options.batch_size), kinds_of(shapes)


def _try_methods(
    options: argparse.Namespace,
    model: Model,
    target: int | None,
    settings: Sequence[Setting],
    maps: dict[str, WeightsFn],
) -> None:
    """Refuses what cannot be explained; of all methods those that cannot are left out, and said."""
    for (layer, score), name in itertools.product(settings, [*maps]):
        if name not in maps:
            continue
        explain = explainer(model.apply_fn, layer, maps[name], score_fn=_score(score))
        try:
            try_shapes(explain, model, target)
        except UsageError as error:
            if "all" not in options.method or name in FLOORS:
                raise
            del maps[name]
            say(f"left out: {name}: {error}")


def _methods(names: Sequence[str], seed: int) -> dict[str, WeightsFn]:
    """The methods that the user named, and the floors behind them."""
    wanted = METHODS.keys() if "all" in names else names or _OFTEN
    for name in wanted:
        if name not in METHODS | FLOORS:
            raise UsageError(no_such("method", name, [*METHODS, *FLOORS, "all"]))
    chosen = {n: f for n, f in METHODS.items() if n in wanted and n not in FLOORS} | FLOORS
    return {name: methods.seeded(method, seed) for name, method in chosen.items()}


def _metrics(names: Sequence[str], has_objects: bool) -> list[str]:
    every = [n for n, measure in MEASURES.items() if has_objects or not measure.wants_object]
    wanted = names or [*CHEAP, *(ON_OBJECTS if has_objects else [])]
    for name in wanted:
        if name not in (*MEASURES, "all"):
            raise UsageError(no_such("metric", name, [*MEASURES, "all"]))
        if name in MEASURES and name not in every:
            raise UsageError(
                f"{name} asks where the object is; give --boxes, or a .csv with the columns xmin, "
                "ymin, xmax, ymax or mask"
            )
    return every if "all" in wanted else [n for n in every if n in wanted or n == "tied"]


def _score(name: str) -> ScoreFn:
    if name not in SCORES:
        raise UsageError(no_such("score", name, SCORES))
    return getattr(scores, name)


def _report(folder: Path, count: int) -> int:
    rows = store.read_index(folder, range(count)).to_pydict()
    numbers = report.numbers_of(rows)
    if numbers is None:
        raise UsageError("every image was skipped, so there is nothing to judge")
    found = report.summary(numbers)
    with files.all_or_none(folder) as part:
        report.write(found, [*FLOORS], part)
    for table in report.tables(found, [*FLOORS], width=min(results.width, 100)):
        results.print(table)
    say(f"{numbers.images} images, {report.DECIDED}; floors last; + higher is better, - lower")
    say(f"summary: {folder / 'summary.json'}")
    say(f"figure: {folder / 'evaluation.png'}")
    return 0
