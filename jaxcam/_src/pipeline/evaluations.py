"""A run that judges maps: the compiled step, and what is written of each batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxcam._src.base import Key
from jaxcam._src.evaluation import Evaluation
from jaxcam._src.maps import REASONS
from jaxcam._src.metrics.removal import area
from jaxcam._src.pipeline import Finished, Given, Job, finished, store
from jaxcam._src.pipeline.step import Step, on_all_devices, one_by_one

_COLUMNS = {
    "image": str,
    "error": str,
    "layer": str,
    "score": str,
    "method": str,
    "target": int,
    "target_name": str,
    "target_score": float,
    "flat": str,
}


class Setting(NamedTuple):
    """What maps are made of: a layer and a score, by name."""

    layer: str
    score: str


def evaluation_stepper(
    evaluator_of: Callable[[Setting, Key], Callable[..., Evaluation]],
    settings: Sequence[Setting],
    variables: PyTree,
    seed: int,
) -> Step:
    """Makes the compiled step whose batches are evaluations by setting, one image at a time.

    Each image has a key of its own, of the seed and its place in the list.
    """

    def one(variables: PyTree, given: Given, target: Any) -> list[Evaluation]:
        key = jax.random.fold_in(jax.random.key(seed), given.places)
        evaluators = [evaluator_of(setting, key) for setting in settings]
        return [
            f(variables, given.images, target, inside=given.inside, key=key) for f in evaluators
        ]

    step = on_all_devices(one_by_one(one), variables)

    def named(given: Given) -> dict[Setting, Evaluation]:
        return dict(zip(settings, step(given._replace(targets=None), given.targets), strict=True))

    return named


def layout_of(numbers: Mapping[str, Any]) -> store.Layout:
    """What the index holds, from the numbers of one method: those of a curve are kept."""
    curves = {f"{name}_curve": list[float] for name, value in numbers.items() if value.ndim}
    return store.Layout(_COLUMNS | dict.fromkeys(numbers, float) | curves)


def evaluated(
    job: Job,
    batches: Sequence[int],
    folder: Path,
    threads: int,
    settings: Sequence[Setting],
    methods: Sequence[str],
    layout: store.Layout,
) -> Iterator[int]:
    """Judges batches by such a step, writes each, and yields how many images it had.

    The rows of an image have the order of the settings, and of the names of methods; that of a
    dictionary is lost in a compiled function.
    """
    for done in finished(job, batches, threads):
        images = range(len(done.names))
        rows = [row for index in images for row in _rows(job, done, index, settings, methods)]
        columns = {name: [row.get(name) for row in rows] for name in layout.columns}
        store.write_index(folder, done.batch, columns, layout)
        yield len(done.names)


def _rows(
    job: Job, done: Finished, index: int, settings: Sequence[Setting], methods: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The rows of one image: for each setting and method its numbers, or what is wrong."""
    for setting in settings:
        (layer, score), evaluation = setting, done.found[setting]
        own = jax.tree.map(lambda x: x[index], evaluation)
        for method in methods:
            row = {"image": done.names[index], "layer": layer, "score": score, "method": method}
            if error := done.errors[index] or _not_finite(own.numbers[method]):
                yield row | {"error": error}
                continue
            target = int(own.target)
            names = job.model.class_names  # of a binary score the targets are 0 and 1
            row |= {"target": target, "target_name": names[target] if len(names) > 1 else None}
            row |= {"target_score": float(own.score), "flat": REASONS[own.flat[method]]}
            for name, value in own.numbers[method].items():
                curve = {f"{name}_curve": value.tolist()} if value.ndim else {}
                row |= curve | {name: float(area(value) if value.ndim else value)}
            yield row


def _not_finite(numbers: Mapping[str, Any]) -> str | None:
    bad = [name for name, value in numbers.items() if not np.isfinite(value).all()]
    said = f"{', '.join(bad)} not finite; look at what the model makes of the image"
    return said if bad else None
