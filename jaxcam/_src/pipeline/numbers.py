"""A run that judges maps: the compiled step, and what is written of each batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from jaxcam._src.evaluation import Evaluation
from jaxcam._src.maps import REASONS
from jaxcam._src.metrics.removal import area
from jaxcam._src.pipeline import Done, Job, computed, store
from jaxcam._src.pipeline.step import Step, on_all_devices, one_by_one

PARTS = ("index",)
_KINDS = {
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


def judging(
    evaluators: Mapping[Setting, Callable[..., Evaluation]], variables: PyTree, seed: int
) -> Step:
    """Makes the compiled step whose batches are evaluations by setting, one image at a time."""

    def one(variables: PyTree, given: tuple[Array, Array | None], target: Any) -> list[Evaluation]:
        image, inside = given
        key = jax.random.key(seed)
        return [
            evaluate(variables, image, target, inside=inside, key=key)
            for evaluate in evaluators.values()
        ]

    step = on_all_devices(one_by_one(one), variables)

    def named(images: ArrayLike, targets: Any, inside: Any) -> dict[Setting, Evaluation]:
        return dict(zip(evaluators, step((images, inside), targets), strict=True))

    return named


def kinds_of(numbers: Mapping[str, Any]) -> dict[str, type]:
    """The columns of the index, from the numbers of one method: those of a curve are kept."""
    curves = {f"{name}_curve": list for name, value in numbers.items() if value.ndim}
    return _KINDS | dict.fromkeys(numbers, float) | curves


def judged(
    job: Job,
    batches: Sequence[int],
    folder: Path,
    threads: int,
    methods: Sequence[str],
    kinds: Mapping[str, type],
) -> Iterator[int]:
    """Judges batches by such a step, writes each, and yields its images' number.

    `methods` are the names in the order of the rows, which is lost in a compiled function.
    """
    for done in computed(job, batches, threads):
        images = range(len(done.names))
        rows = [row for index in images for row in _rows(job, done, index, methods)]
        columns = {name: [row.get(name) for row in rows] for name in kinds}
        store.write_index(folder, done.batch, columns, kinds)
        yield len(done.names)


def _rows(job: Job, done: Done, index: int, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one image: for each setting and method its numbers, or what is wrong."""
    for (layer, score), evaluation in done.found.items():
        own = jax.tree.map(lambda x: x[index], evaluation)
        for method in methods:
            numbers = own.numbers[method]
            row = {"image": done.names[index], "layer": layer, "score": score, "method": method}
            finite = all(np.isfinite(x).all() for x in jax.tree.leaves(numbers))
            error = done.errors[index] or (None if finite else _NOT_FINITE)
            if error:
                yield row | {"error": error}
                continue
            target = int(own.target)
            row |= {"target": target, "target_name": job.model.class_names[target]}
            row |= {"target_score": float(own.score), "flat": REASONS[own.flat[method]]}
            for name, value in numbers.items():
                if np.ndim(value):
                    row |= {f"{name}_curve": value.tolist(), name: float(area(value))}
                else:
                    row[name] = float(value)
            yield row


_NOT_FINITE = "a number is not finite; look at what the model makes of the image"
