"""How long until a newcomer sees a map? Imports, and a first and a second `jaxcam explain`.

Each run is a process of its own. The first explanation finds an empty cache of programs, the second
the cache that the first left. MobileNet, as tests/mobilenet.py knows it, is left out where its
weights are not at hand.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timing
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
DIGIT = ROOT / "jaxcam" / "_src" / "demo" / "data" / "canvas0.png"
REPEATS = 3
MODELS = {
    "jaxcam:digits_relu": ("stage3", DIGIT),
    "tests.mobilenet:model": ("conv_pw_13", ROOT.parent / "shared" / "imagenet" / "images"),
}
METHODS = ("grad_cam", "grad_cam_plus_plus", "score_cam")


def main() -> None:
    """Prints the tables and writes them to `results/`."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [_imports()]
    for model, (layer, images) in MODELS.items():
        if images.exists():
            image = min(images.iterdir()) if images.is_dir() else images
            rows += [_explanations(model, layer, method, image) for method in METHODS]
    _print(rows)
    print(timing.save("start-up", rows))


def _imports() -> dict[str, Any]:
    samples = timing.in_turns(
        {name: lambda name=name: _python("-c", f"import {name}") for name in ("jax", "jaxcam")},
        repeats=2 * REPEATS,
    )
    rows = {name: timing.median(taken) for name, taken in samples.items()}
    ratio = timing.ratio(samples["jaxcam"], samples["jax"])
    return {"of": "import", "seconds": rows, "ratio": ratio, "samples_s": samples}


def _explanations(model: str, layer: str, method: str, image: Path) -> dict[str, Any]:
    samples = {"first": [], "second": []}
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--model", model, "--layer", layer, "--method", method, "--out", folder]
            command = ["-m", "jaxcam", "explain", str(image), *options]
            for run in samples:
                start = time.perf_counter()
                _python(*command, JAX_COMPILATION_CACHE_DIR=f"{folder}/programs")
                samples[run].append(time.perf_counter() - start)
    seconds = {run: timing.median(taken) for run, taken in samples.items()}
    ratio = timing.ratio(samples["first"], samples["second"])
    name = f"{model}, {method}"
    return {"of": name, "seconds": seconds, "ratio": ratio, "samples_s": samples}


def _python(*arguments: str, **environment: str) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | environment,
    )


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("", "s", "ratio", title="import: jaxcam over jax; explain: first over second")
    for row in rows:
        seconds = ", ".join(f"{name} {taken:.2f}" for name, taken in row["seconds"].items())
        table.add_row(
            row["of"], seconds, "{ratio:.2f} ({lowest:.2f} to {highest:.2f})".format(**row["ratio"])
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
