"""How much of the speed of its compiled step does `jaxcam run` keep, on a folder of photographs?

MobileNetV1 0.25, as tests/mobilenet.py knows it, on 50 photographs over and over. Both sides run in
one process, in turns: the step alone on images that are decoded already, and the command whole,
less its start (it explains what is left of a run that was begun). Where the step and the decoding
share the same cores, they cannot overlap: "at best" says what is left of the speed of the step if
decoding cost what it costs alone, and all else nothing. With `--apart` the step has one thread, and
decoding the other cores: as beside an accelerator.

    python benchmarks/pipeline.py [--apart] [METHOD ...]
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timing
from rich.console import Console
from rich.table import Table

from jaxcam._src import pipeline
from jaxcam._src.cli import METHODS
from jaxcam._src.cli.model import blank
from jaxcam._src.pipeline import Job, loading, store
from jaxcam._src.pipeline.listing import Listing
from jaxcam._src.pipeline.step import stepper

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet

BATCH, REPEATS = 32, 5
IMAGES = {"score_cam": 128}  # elsewhere:
MANY = 1024


def main() -> None:
    """Prints the table and writes it to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=["grad_cam", "score_cam"])
    parser.add_argument("--apart", action="store_true", help="the step on one thread")
    options = parser.parse_args()
    if options.apart:  # read when JAX first looks for devices
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if not mobilenet.FOLDER.is_dir():
        parser.exit(1, f"the weights and photographs are not at {mobilenet.FOLDER}\n")
    rows = [_row(name) for name in options.methods]
    _print(rows)
    print(timing.save("pipeline-apart" if options.apart else "pipeline", rows))


def _row(name: str) -> dict[str, Any]:
    model, threads = mobilenet.model(), len(os.sched_getaffinity(0))
    count = IMAGES.get(name, MANY)
    photographs = sorted(path.name for path in (mobilenet.FOLDER / "images").iterdir())
    names = [photographs[i % len(photographs)] for i in range(count)]
    listing = Listing(mobilenet.FOLDER / "images", names, None)
    step = stepper(model.apply_fn, model.variables, mobilenet.LAYER, METHODS[name])
    job = Job(model, step, blank(model), listing, BATCH)
    batches = range(-(-count // BATCH))

    def decode() -> list[np.ndarray]:
        loaded = loading.batches(model, job.like, listing.root, names, BATCH, threads)
        return [images for images, _ in loaded]

    decoded = decode()

    def step_alone() -> None:
        for images in decoded:
            jax.device_get(step(images, None))

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store.begin(Path(folder), {}, "0-of-1")
            assert sum(pipeline.explained(job, batches, Path(folder), threads)) == count

    samples = timing.in_turns(
        {"step": step_alone, "decoding": decode, "pipeline": whole}, repeats=REPEATS
    )
    seconds = {part: timing.median(taken) for part, taken in samples.items()}
    return {
        "method": name,
        "images": count,
        "batch": BATCH,
        "images_per_s": {part: count / taken for part, taken in seconds.items()},
        "share_of_step": timing.ratio(samples["step"], samples["pipeline"]),
        "share_at_best": seconds["step"] / (seconds["step"] + seconds["decoding"]),
        "samples_s": samples,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    title = f"MobileNet, batches of {BATCH}; images per second"
    table = Table(
        "method", "step alone", "decoding alone", "pipeline", "of step", "at best", title=title
    )
    for row in rows:
        speeds = (f"{row['images_per_s'][part]:.0f}" for part in ("step", "decoding", "pipeline"))
        share = "{ratio:.2f} ({lowest:.2f} to {highest:.2f})".format(**row["share_of_step"])
        table.add_row(row["method"], *speeds, share, f"{row['share_at_best']:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
