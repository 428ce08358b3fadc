"""`jaxcam evaluate`: which map to trust, on the user's model and images."""

import argparse
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from jaxcam._src import files, methods
from jaxcam._src.base import Convention, FuseFn, Key, Model
from jaxcam._src.cli import batches, choices
from jaxcam._src.cli.choices import KNOWN, SCORES, Place
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import blank, classes_of, target_of, try_shapes
from jaxcam._src.cli.streams import results, say
from jaxcam._src.evaluation import Evaluation, evaluator, report
from jaxcam._src.evaluation.measures import CHEAP, MEASURES, ON_OBJECTS
from jaxcam._src.explain import explainer
from jaxcam._src.files import UsageError
from jaxcam._src.methods.activation import random_cam, uniform
from jaxcam._src.methods.floors import centred_gaussian, edge_map
from jaxcam._src.names import no_such
from jaxcam._src.pipeline import Job, listing, store
from jaxcam._src.pipeline.evaluations import (
    Setting,
    evaluated,
    evaluation_stepper,
    layout_of,
)
from jaxcam._src.pipeline.listing import Listing

Method = Callable[..., Any]
FLOORS: dict[str, Method] = {
    f.__name__: f for f in (uniform, random_cam, centred_gaussian, edge_map)
}
OFTEN = ["grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam"]
DEAR = re.compile(r"(\d+ )?K (forward|times)|\d{3,} forward")  # of what a method says of its cost
_PROBABILITIES = ["probability", "binary_probability", "label_probability"]
_WIDEST = 100  # characters of a table
_SETTINGS = ("model", "layer", "judge", "seed", "target", "batch_size")


class _Choice(NamedTuple):
    """What is judged by what, by name."""

    places: Mapping[str, Place | list[Place]]
    settings: list[Setting]
    methods: dict[str, Method]
    metrics: list[str]
    judge: str
    convention: Convention
    fuse: FuseFn | None

    def evaluator_of(self, model: Model, setting: Setting, key: Key) -> Callable[..., Evaluation]:
        return evaluator(
            model.apply_fn,
            self.places[setting.layer],
            {name: methods.seeded(method, key) for name, method in self.methods.items()},
            {name: MEASURES[name].metric for name in self.metrics},
            score_fn=SCORES[setting.score],
            judge_fn=SCORES[self.judge],
            convention=self.convention,
            fuse=self.fuse,
        )


def run(options: argparse.Namespace) -> int:
    """Judges maps of images, and writes numbers, a summary and a figure."""
    batches.check_packages("evaluate")
    own_share = batches.share(options.share)  # first, since a cluster is joined before all else
    model = load_model(options.model)
    images = _images(options, model)
    choice = _choice(options, model, images)
    job, layout = _job(options, model, images, choice)
    settings = batches.settings_of(options, _SETTINGS, images)
    settings |= {"layer": [*dict.fromkeys(setting.layer for setting in choice.settings)]}
    settings |= {"score": [setting.score for setting in choice.settings]}
    settings |= {"method": [*choice.methods], "metric": choice.metrics}

    def work(left: Sequence[int], _: Sequence[Path]) -> Iterator[int]:
        named = choice.settings, [*choice.methods]
        return evaluated(job, left, options.out, options.threads, *named, layout)

    folders = {options.out: settings}
    code = batches.go_through(options, job, own_share, folders, layout, work, done="judged")
    if store.unfinished(options.out, {i: job.names(i) for i in range(job.batches)}, layout):
        say("other shares are not done; the last of them writes the summary")
    else:
        _report(options.out, job.batches, choice.judge)
    return code


def _images(options: argparse.Namespace, model: Model) -> Listing:
    """The images with their classes and objects."""
    classes = classes_of(model, options.judge)
    target = target_of(options, classes)
    images = batches.images_of(options, model, target, with_objects=True)
    if not options.boxes:
        return images
    if images.objects is not None:
        raise UsageError(f"{options.images} says where the objects are; leave out --boxes")
    return listing.with_boxes(images, options.boxes)


def _choice(options: argparse.Namespace, model: Model, images: Listing) -> _Choice:
    """What the options ask for, which the model can do."""
    for score in (*(options.score or []), options.judge):
        choices.named("score", score, SCORES)
    for score in options.score or ["logit"]:
        if score.startswith("binary_") != options.judge.startswith("binary_"):
            raise UsageError(
                f"--score {score} and --judge {options.judge} have not the same targets: those of "
                "binary scores are 0 and 1, of one logit; take both of one kind"
            )
    places = choices.places_of(options, choices.named_places(options, model))
    settings = [*itertools.starmap(Setting, itertools.product(places, options.score or ["logit"]))]
    metrics = _metrics(options.metric, options.judge, images.objects is not None)
    how: dict[str, Any] = {
        "convention": choices.convention_of(options),
        "fuse": choices.fuse_of(options),
    }
    chosen = _methods(options, model, places, settings, how)
    return _Choice(places, settings, chosen, metrics, options.judge, **how)


def _methods(
    options: argparse.Namespace,
    model: Model,
    places: Mapping[str, Place | list[Place]],
    settings: Sequence[Setting],
    how: Mapping[str, Any],
) -> dict[str, Method]:
    """The methods that the user named, or all that every layer and score takes, and the floors."""
    given = choices.methods_of(options, KNOWN | FLOORS, OFTEN)
    wanted = {name: given[name] for name in KNOWN if name in given and name not in FLOORS}
    target = target_of(options, classes_of(model, settings[0].score))

    def tried(name: str, method: Method) -> Method:
        seeded = methods.seeded(method, 0)
        for layer, score in settings:
            score_fn = SCORES[score]
            explain = explainer(model.apply_fn, places[layer], seeded, score_fn=score_fn, **how)
            try_shapes(explain, model, target)
        return method

    taken = choices.taken(options, wanted | FLOORS, tried, always=FLOORS)
    if choices.ALL in options.method:
        costs = {name: methods.describe(name).cost for name in taken if name in methods.METHODS}
        dear = [f"{name} ({cost})" for name, cost in costs.items() if DEAR.match(cost)]
        if dear:
            say(f"these take most of the time (K: the layer's channels): {', '.join(dear)}")
    return taken


def _metrics(names: Sequence[str], judge: str, has_objects: bool) -> list[str]:
    """The metrics that the user named, or all that mean something here."""
    for name in names:
        if name not in (*MEASURES, "all"):
            raise UsageError(no_such("metric", name, [*MEASURES, "all"]))
        if name != "all" and MEASURES[name].wants_object and not has_objects:
            raise UsageError(
                f"{name} asks where the object is; give --boxes, or a .csv with the columns xmin, "
                "ymin, xmax, ymax or mask"
            )
        if name != "all" and MEASURES[name].wants_probability and judge not in _PROBABILITIES:
            raise UsageError(
                f"{name} means nothing of {judge}, which is not from 0 to 1; leave out --judge, or "
                f"give one of {', '.join(_PROBABILITIES)}"
            )
    usual = names or [*CHEAP, *ON_OBJECTS]
    return [
        name
        for name, measure in MEASURES.items()
        if ("all" in usual or name in usual)
        and (has_objects or not measure.wants_object)
        and (judge in _PROBABILITIES or not measure.wants_probability)
    ]


def _job(
    options: argparse.Namespace, model: Model, images: Listing, choice: _Choice
) -> tuple[Job, store.Layout]:
    """What is done to each batch, tried on shapes, and what the index holds."""
    if not any(MEASURES[name].wants_object for name in choice.metrics):
        images = images._replace(objects=None)
    target = target_of(options, classes_of(model, choice.judge))
    one = choice._replace(methods={"uniform": uniform})  # by which the columns are known

    def numbers(variables: PyTree, image: Array, inside: Array | None) -> dict[str, Array]:
        evaluate = one.evaluator_of(model, one.settings[0], jax.random.key(0))
        return evaluate(variables, image, target, inside=inside).numbers["uniform"]

    like = blank(model)
    inside = jax.ShapeDtypeStruct(like.shape[:-1], bool) if images.objects else None
    with files.one_line("cannot judge"):
        shapes = jax.eval_shape(numbers, model.variables, like, inside)
    batches.check_counts(options)

    def evaluator_of(setting: Setting, key: Key) -> Callable[..., Evaluation]:
        return choice.evaluator_of(model, setting, key)

    step = evaluation_stepper(evaluator_of, choice.settings, model.variables, options.seed)
    return Job(model, step, like, images, options.batch_size), layout_of(shapes)


def _report(folder: Path, count: int, judge: str) -> None:
    rows: Mapping[str, Sequence[Any]] = store.read_index(folder, range(count)).to_pydict()
    numbers = report.numbers_of(rows, [*FLOORS])
    if numbers is None:
        raise UsageError("every image was skipped, so there is nothing to judge")
    found = report.summary(numbers, judge)
    with files.all_or_none(folder) as part:
        report.write(found, part)
    for table in report.tables(found, min(results.width, _WIDEST)):
        results.print(table)
    say(report.legend(found))
    say(f"summary: {folder / 'summary.json'}")
    say(f"figure: {folder / 'evaluation.png'}")
