"""`jaxcam run`: a folder of images or a list of them, in batches; it goes on where it stopped."""

import argparse
from collections.abc import Iterator, Sequence

from jaxcam._src.base import Model
from jaxcam._src.cli import batches
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import blank, method_of, target_of, try_shapes
from jaxcam._src.cut import split
from jaxcam._src.explain import explainer
from jaxcam._src.pipeline import Job
from jaxcam._src.pipeline.maps import LAYOUT, explained
from jaxcam._src.pipeline.step import stepper

_SETTINGS = ("model", "layer", "occurrence", "method", "seed", "target", "batch_size")


def run(options: argparse.Namespace) -> int:
    """Explains images and writes maps and an index. Returns 1 where images were skipped."""
    batches.check_packages("run")
    own_share = batches.share(options.share)  # first, since a cluster is joined before all else
    job = _job(options, load_model(options.model))
    settings = batches.settings_of(options, _SETTINGS, job.images)

    def work(left: Sequence[int]) -> Iterator[int]:
        return explained(job, left, options.out, options.threads)

    return batches.go_through(options, job, own_share, settings, LAYOUT, work, done="explained")


def _job(options: argparse.Namespace, model: Model) -> Job:
    """What the options ask for, tried on shapes."""
    target = target_of(options, model)
    method = method_of(options)
    split_fn = split(model.apply_fn, options.layer, occurrence=options.occurrence)
    try_shapes(explainer(model.apply_fn, split_fn, method), model, target)
    images = batches.images_of(options, model, target)
    batches.check_counts(options)
    step = stepper(model.apply_fn, model.variables, split_fn, method)
    return Job(model, step, blank(model), images, options.batch_size)
