"""How much of the speed of its compiled step does `jaxcam run` keep, on a folder of photographs?

MobileNetV1 0.25, as tests/mobilenet.py knows it, on 50 photographs over and over. Both sides run in
one process, in turns: the step alone on images that are decoded already, and all that the command
does after its start. "One by one" is what would be left of the speed of the step if each batch were
decoded, then explained, with nothing else to do: where both share the same cores, not much more can
be had. With `--apart` the step has one core, and decoding the others: as beside an accelerator.

    python benchmarks/pipeline.py [--apart] [METHOD ...]
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing
from rich.console import Console
from rich.table import Table

from jaxcam._src.cli import METHODS
from jaxcam._src.cli.model import blank
from jaxcam._src.pipeline import Given, Job, loading, store
from jaxcam._src.pipeline.listing import Listing
from jaxcam._src.pipeline.maps import LAYOUT, explained
from jaxcam._src.pipeline.step import stepper

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet

BATCH, REPEATS = 32, 4
METHOD_IMAGES = {"grad_cam": 1024, "integrated_grad_cam": 128}


def main() -> None:
    """Prints the table and writes it to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", choices=[*METHOD_IMAGES, []], metavar="METHOD")
    parser.add_argument("--apart", action="store_true", help="the step on a core of its own")
    options = parser.parse_args()
    if options.apart:  # threads stay on the cores of the thread that starts them
        first, *others = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {first})
        jax.devices()
        os.sched_setaffinity(0, others)
    if not mobilenet.FOLDER.is_dir():
        parser.exit(1, f"the weights and photographs are not at {mobilenet.FOLDER}\n")
    rows = [_row(name) for name in options.methods or METHOD_IMAGES]
    _print(rows)
    if not options.methods:
        print(timing.save("pipeline-apart" if options.apart else "pipeline", rows))


def _row(name: str) -> dict[str, Any]:
    job, threads = _job(name), len(os.sched_getaffinity(0))
    count = len(job.images.names)
    samples = timing.in_turns(_parts(job, threads), repeats=REPEATS)
    seconds = {part: timing.median(taken) for part, taken in samples.items()}
    return {
        "method": name,
        "images": count,
        "batch": BATCH,
        "threads": threads,
        "images_per_s": {part: count / taken for part, taken in seconds.items()},
        "share_of_step": timing.ratio(samples["step"], samples["pipeline"]),
        "share_one_by_one": seconds["step"] / (seconds["step"] + seconds["decoding"]),
        "samples_s": samples,
    }


def _job(name: str) -> Job:
    model, folder = mobilenet.model(), mobilenet.FOLDER / "images"
    photographs = sorted(path.name for path in folder.iterdir())
    names = [photographs[i % len(photographs)] for i in range(METHOD_IMAGES[name])]
    step = stepper(model.apply_fn, model.variables, [(mobilenet.LAYER, METHODS[name])])
    return Job(model, step, blank(model), Listing(folder, names, None), BATCH)


def _parts(job: Job, threads: int) -> dict[str, Callable[[], Any]]:
    """The step alone, the decoding alone, and both with all else, of all images."""
    names = job.images.names
    batches = range(-(-len(names) // BATCH))

    def decode() -> list[np.ndarray]:
        every = range(len(names))
        loaded = loading.batches(job.model, job.like, job.images, every, BATCH, threads)
        return [batch.images for batch in loaded]

    decoded = decode()

    def step_alone() -> None:
        for images in decoded:
            jax.device_get(job.step(Given(images, None, None, None)))

    def whole() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store.begin(folder, {}, "0-of-1", LAYOUT)
            assert sum(explained(job, batches, [folder], threads)) == len(names)

    return {"step": step_alone, "decoding": decode, "pipeline": whole}


def _print(rows: list[dict[str, Any]]) -> None:
    title = f"MobileNet, batches of {BATCH}; images per second"
    table = Table(
        "method", "step alone", "decoding alone", "pipeline", "of step", "one by one", title=title
    )
    for row in rows:
        speeds = (f"{row['images_per_s'][part]:.0f}" for part in ("step", "decoding", "pipeline"))
        share = "{ratio:.2f} ({lowest:.2f} to {highest:.2f})".format(**row["share_of_step"])
        table.add_row(row["method"], *speeds, share, f"{row['share_one_by_one']:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
