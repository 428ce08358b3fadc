"""`jaxcam run`: a folder of images or a list of them, in batches; it goes on where it stopped."""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcam._src.base import Model
from jaxcam._src.cli import batches, choices
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.makers import Maker, makers_of
from jaxcam._src.cli.model import blank, classes_of, target_of
from jaxcam._src.pipeline import Job
from jaxcam._src.pipeline.maps import LAYOUT, explained
from jaxcam._src.pipeline.step import Step, stepper

_SETTINGS = ("model", "layer", "occurrence", "method", "seed", "target", "batch_size")


def run(options: argparse.Namespace) -> int:
    """Explains images and writes maps and an index. Returns 1 where images were skipped."""
    batches.check_packages("run")
    own_share = batches.share(options.share)  # first, since a cluster is joined before all else
    model = load_model(options.model)
    makers = makers_of(options, model)
    job = _job(options, model)
    common = batches.settings_of(options, _SETTINGS, job.images)
    folders = {place: {**common, **maker.names} for place, maker in makers.items()}

    def work(left: Sequence[int], lacking: Sequence[Path]) -> Iterator[int]:
        step = _step(options, model, {place: makers[place] for place in lacking})
        return explained(job._replace(step=step), left, lacking, options.threads)

    return batches.go_through(options, job, own_share, folders, LAYOUT, work, done="explained")


def _job(options: argparse.Namespace, model: Model) -> Job:
    """Which images are explained; what is done to them is said later."""
    named = dataclasses.replace(model, class_names=classes_of(model, options.score))
    images = batches.images_of(options, named, target_of(options, named.class_names))
    batches.check_counts(options)
    return Job(named, lambda given: None, blank(model), images, options.batch_size)


def _step(options: argparse.Namespace, model: Model, makers: Mapping[Path, Maker]) -> Step:
    places = [(maker.at, maker.method) for maker in makers.values()]
    how: dict[str, Any] = choices.how(options)
    return stepper(model.apply_fn, model.variables, places, **how)
