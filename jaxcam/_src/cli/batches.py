"""What the commands share that go through many images: the images, shares, progress, the end."""

import argparse
import importlib.util
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

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
from jaxcam._src.cli.choices import more_settings
from jaxcam._src.cli.streams import complain, console, say
from jaxcam._src.files import UsageError
from jaxcam._src.pipeline import Job, listing, store
from jaxcam._src.pipeline.listing import Listing

_MOST_LISTED = 20
_A_WEEK = 7 * 24 * 3600


def add_options(command: argparse.ArgumentParser, where: str) -> None:
    """The options of a command that goes through many images."""
    command.add_argument("--images", type=Path, required=True, help=where)
    command.add_argument("--batch-size", type=int, default=32, help="images at once, and in a file")
    affine = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1
    decode = "that decode images (default: one for a core)"
    command.add_argument("--threads", type=int, default=cores, help=decode)
    parts = "which part this process takes: I/N, or auto, which asks jax.distributed"
    command.add_argument("--share", default="0/1", help=parts)


def check_packages(command: str, packages: Sequence[str] = ("grain", "pyarrow")) -> None:
    """Refuses to begin where a package is missing."""
    for package in packages:
        if not importlib.util.find_spec(package):
            raise UsageError(f"{command} needs {package}; pip install 'jaxcam-xai[run]'")


def images_of(
    options: argparse.Namespace, model: Model, target: int | None, *, with_objects: bool = False
) -> Listing:
    """The images that the options name, each with the one target where one is given."""
    if options.images.is_dir() and options.out.absolute() == options.images.absolute():
        raise UsageError(f"--out {options.out} is the folder of the images; give another")
    names, out = model.class_names, options.out
    images = listing.read(options.images, names, with_objects=with_objects, without=out)
    if target is None:
        return images
    if images.targets is not None:
        raise UsageError(f"{options.images} has a column target; leave out --target")
    return images._replace(targets=[target] * len(images.names))


def check_counts(options: argparse.Namespace) -> None:
    """Refuses threads that are none, and batches that the devices do not divide."""
    devices = len(jax.local_devices())
    if options.threads < 1:
        raise UsageError(f"--threads is {options.threads}; wanted 1 or more")
    if options.batch_size < 1 or options.batch_size % devices:
        raise UsageError(
            f"--batch-size is {options.batch_size}; wanted 1 or more, and a multiple of "
            f"{devices}, the devices of this process"
        )


def share(text: str) -> tuple[int, int]:
    """Which part of the batches this process takes: `(index, count)`."""
    if text == "auto":
        with files.one_line("--share auto needs a cluster that JAX knows; else give --share I/N"):
            # Shares end at times of their own, and none waits for another.
            jax.distributed.initialize(shutdown_timeout_seconds=_A_WEEK)
        return jax.process_index(), jax.process_count()
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UsageError(f"--share is {text!r}; wanted I/N with I from 0 to N - 1, or auto")
    return int(index), int(count)


def settings_of(options: argparse.Namespace, names: Sequence[str], images: Listing) -> dict:
    """What two runs must have alike, so that one can go on with the other's files."""
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    settings |= more_settings(options)
    settings |= {"images": str(images.root.resolve()), "count": len(images.names)}
    return settings | {"digest": images.digest()}


def say_columns(options: argparse.Namespace, images: Listing) -> None:
    """Says which columns of a table are read, and which are not."""
    if images.columns:
        used = [name for name, is_used in images.columns.items() if is_used]
        left = [name for name, is_used in images.columns.items() if not is_used]
        more = f"; not used: {', '.join(left)}" if left else ""
        say(f"{options.images}: columns {', '.join(used)}{more}")


# Does these batches, of which some of the folders lack files; yields how many images each had.
Work: TypeAlias = Callable[[Sequence[int], Sequence[Path]], Iterable[int]]


def go_through(
    options: argparse.Namespace,
    job: Job,
    own_share: tuple[int, int],
    folders: Mapping[Path, Mapping[str, Any]],
    layout: store.Layout,
    work: Work,
    *,
    done: str,
) -> int:
    """Does what is left of this process's share under a progress bar, and says what was skipped.

    Args:
      options: with `out` and `images`.
      job: of which batches.
      own_share: what `share` returned, before anything else asked JAX for its devices.
      folders: to write to, with the settings of the run that each holds.
      layout: of the files of each.
      work: what is done.
      done: what has been done to an image, as "explained".

    Returns:
      1 where images were skipped.
    """
    index, shares = own_share
    _check_as_many(options.out, folders)
    files.writable_folder(options.out)
    say_columns(options, job.images)
    own = range(index, job.batches, shares)
    sizes = {batch: len(job.names(batch)) for batch in own}
    lacking = {
        folder: _begun(folder, settings, f"{index}-of-{shares}", layout, job, own)
        for folder, settings in folders.items()
    }
    left = sorted({batch for batches in lacking.values() for batch in batches})
    images, before = sum(sizes.values()), sum(sizes[batch] for batch in own if batch not in left)
    with _progress() as progress:
        task = progress.add_task("images", total=images, completed=before)
        with files.one_line(f"the run in {options.out} stopped"):
            for count in work(left, [folder for folder in folders if lacking[folder]]):
                progress.advance(task, count)
    skipped = {name: e for each in folders for name, e in store.errors(each, own).items()}
    said = f" ({before} were done before)" if before else ""
    say(f"{done}: {images - len(skipped)} of {images} images{said}, in {options.out}")
    return _say_skipped(skipped)


def _check_as_many(out: Path, folders: Collection[Path]) -> None:
    """Refuses one run beside several: a report would show the one alone."""
    is_one = out in folders
    if not is_one and (out / "run.json").exists():
        raise UsageError(f"{out} holds a run of one map; choose another --out for several")
    if is_one and any(out.glob("*@*/run.json")):
        raise UsageError(f"{out} holds runs of several maps; choose another --out for one")


def _begun(
    folder: Path,
    settings: Mapping[str, Any],
    share: str,
    layout: store.Layout,
    job: Job,
    own: Sequence[int],
) -> list[int]:
    """The batches that the folder of a run lacks, which is begun or goes on."""
    store.begin(files.writable_folder(folder), settings, share, layout)
    left = store.unfinished(folder, {i: job.names(i) for i in own}, layout)
    store.clear(folder, left)
    return left


def _say_skipped(skipped: Mapping[str, str]) -> int:
    for name, error in [*skipped.items()][:_MOST_LISTED]:
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
