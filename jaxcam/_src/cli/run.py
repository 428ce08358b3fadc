"""`jaxcam run`: a folder of images or a list of them, in batches; it goes on where it stopped."""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

from jaxcam._src import files
from jaxcam._src.base import Model
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import blank, method_of, target_of, try_shapes
from jaxcam._src.cli.streams import complain, console, say
from jaxcam._src.cut import split
from jaxcam._src.explain import explainer
from jaxcam._src.files import UsageError
from jaxcam._src.pipeline import Job, explained, listing, store
from jaxcam._src.pipeline.step import stepper

_SETTINGS = ("model", "layer", "occurrence", "method", "seed", "target", "batch_size")
_MOST_LISTED = 20
_A_WEEK = 7 * 24 * 3600


def run(options: argparse.Namespace) -> int:
    """Explains images and writes maps and an index. Returns 1 where images were skipped."""
    for package in ("grain", "pyarrow"):
        if not importlib.util.find_spec(package):
            raise UsageError(f"run needs {package}; pip install 'jaxcam-xai[run]'")
    index, shares = _share(options.share)
    model = load_model(options.model)
    job = _job(options, model)
    folder = files.writable_folder(options.out)
    settings = {name: getattr(options, name) for name in _SETTINGS}
    if job.images.columns:
        say(f"{options.images}: {_use(job.images.columns)}")
    settings |= {"images": str(job.images.root.resolve()), "count": len(job.images.names)}
    settings["digest"] = job.images.digest()
    store.begin(folder, settings, f"{index}-of-{shares}")
    own = range(index, -(-len(job.images.names) // job.batch_size), shares)
    left = store.unfinished(folder, own)
    sizes = {batch: len(job.part(job.images.names, batch)) for batch in own}
    with _progress() as progress:
        done = sum(sizes.values()) - sum(sizes[batch] for batch in left)
        task = progress.add_task("explaining", total=sum(sizes.values()), completed=done)
        with files.one_line(f"the run in {folder} stopped"):
            for count in explained(job, left, folder, options.threads):
                progress.advance(task, count)
    return _report(folder, own, sum(sizes.values()), done)


def _use(columns: Sequence[str]) -> str:
    """Which columns of a table are read, and which are not."""
    used = [name for name in columns if name in listing.COLUMNS]
    left = [name for name in columns if name not in listing.COLUMNS]
    return f"columns {', '.join(used)}" + (f"; not used: {', '.join(left)}" if left else "")


def _job(options: argparse.Namespace, model: Model) -> Job:
    """What the options ask for, tried on shapes."""
    target = target_of(options, model)
    method = method_of(options)
    split_fn = split(model.apply_fn, options.layer, occurrence=options.occurrence)
    try_shapes(explainer(model.apply_fn, split_fn, method), model, target)
    images = listing.read(options.images, model.class_names)
    if target is not None:
        if images.targets is not None:
            raise UsageError(f"{options.images} has a column target; leave out --target")
        images = images._replace(targets=[target] * len(images.names))
    _check_counts(options)
    step = stepper(model.apply_fn, model.variables, split_fn, method)
    return Job(model, step, blank(model), images, options.batch_size)


def _check_counts(options: argparse.Namespace) -> None:
    """Refuses threads that are none, and batches that the devices do not divide."""
    devices = len(jax.local_devices())
    if options.threads < 1:
        raise UsageError(f"--threads is {options.threads}; wanted 1 or more")
    if options.batch_size < 1 or options.batch_size % devices:
        raise UsageError(
            f"--batch-size is {options.batch_size}; wanted 1 or more, and a multiple of "
            f"{devices}, the devices of this process"
        )


def _share(text: str) -> tuple[int, int]:
    """Which part of the batches this process explains: `(index, count)`."""
    if text == "auto":
        with files.one_line("--share auto needs a cluster that JAX knows; else give --share I/N"):
            # Shares end at times of their own, and none waits for another.
            jax.distributed.initialize(shutdown_timeout_seconds=_A_WEEK)
        return jax.process_index(), jax.process_count()
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--share is {text!r}; wanted I/N with I from 0 to N - 1, or auto")
    return int(index), int(count)


def _report(folder: Path, own: range, images: int, done: int) -> int:
    skipped = [*store.errors(folder, own)]
    before = f" ({done} were done before)" if done else ""
    say(f"explained: {images - len(skipped)} of {images} images{before}, in {folder}")
    for name, error in skipped[:_MOST_LISTED]:
        complain(f"skipped {name}: {error}")
    if len(skipped) > _MOST_LISTED:
        complain(f"skipped {len(skipped)} images; the index has them all")
    return int(bool(skipped))


class _Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> str:
        return f"{task.speed:.1f} images/s" if task.speed else ""


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(
        *columns, _Rate(), TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
