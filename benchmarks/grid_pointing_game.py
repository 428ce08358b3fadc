"""Which methods find the class that they explain? The grid pointing game on a real network.

Grids of 2 x 2 photographs of four classes, each of which the network names correctly with a
probability above 1/2 on its own. For each of the four classes: the share of the positive map that
lies in the photograph of that class. Chance is 1/4 (Boehle et al. 2021,
https://arxiv.org/abs/2104.00032). Before that every method explains every photograph, and the maps
must be finite.

The network and the photographs are those of tests/mobilenet.py, and no part of the project.
"""

import argparse
import csv
import functools
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import timing
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import jaxcam
from jaxcam._src.cli import METHODS
from jaxcam._src.methods import seeded

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet

SCORES = {  # those of the papers; the others explain the logit
    "shapley_cam": jaxcam.rest,
    "recipro_cam": jaxcam.probability,
    "group_cam": jaxcam.probability,
    "score_cam": jaxcam.probability,
    "ss_cam": jaxcam.probability,
    "is_cam": jaxcam.probability,
}
SLOW = {"score_cam", "ss_cam", "is_cam", "opti_cam"}  # hundreds of forward passes
# 35 and 4000 in the papers: an hour on two cores.
KNOBS = {"ss_cam": {"samples": 2}, "rise": {"samples": 500}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="default: all", metavar="METHOD")
    parser.add_argument("--grids", type=int, default=60)
    parser.add_argument("--slow-grids", type=int, default=6, help="for methods of many passes")
    options = parser.parse_args()
    if not mobilenet.FOLDER.is_dir():
        parser.exit(1, f"the weights and photographs are not at {mobilenet.FOLDER}\n")
    model = mobilenet.load(mobilenet.FOLDER)
    images, labels = _photographs(model)
    sure = _sure(model, images, labels)
    rows = []
    for name in track(options.methods or METHODS, "explaining"):
        start = time.perf_counter()
        explain = _explainer(model, name)
        _check_finite(name, explain, images, labels)
        count = options.slow_grids if name in SLOW else options.grids
        shares = _shares(name, explain, images[sure], labels[sure], count)
        rows.append({**_row(name, shares), "seconds": time.perf_counter() - start})
    rows.sort(key=lambda row: -row["share"])
    _print(rows, len(images), int(sure.sum()))
    if not options.methods:
        timing.save("grid-pointing-game", rows)


def _photographs(model: jaxcam.Model) -> tuple[np.ndarray, np.ndarray]:
    entries = list(csv.DictReader((mobilenet.FOLDER / "labels.csv").read_text().splitlines()))
    images = []
    for entry in entries:
        with Image.open(mobilenet.FOLDER / "images" / entry["file"]) as picture:
            images.append(np.asarray(model.preprocess(picture.convert("RGB"))))
    return np.stack(images), np.array([int(entry["class_index"]) for entry in entries])


def _sure(model: jaxcam.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = jax.jit(jax.vmap(functools.partial(model.apply_fn, model.variables)))(images)
    chances = jax.nn.softmax(logits)[np.arange(len(labels)), labels]
    return np.asarray((logits.argmax(1) == labels) & (chances > 0.5))


def _explainer(model: jaxcam.Model, name: str):
    """All targets of an image at once: they share the forward passes."""
    method = seeded(functools.partial(METHODS[name], **KNOBS.get(name, {})), seed=0)
    score_fn = SCORES.get(name, jaxcam.logit)
    explain = jaxcam.explainer(model.apply_fn, mobilenet.LAYER, method, score_fn=score_fn)
    mapped = jax.jit(jax.vmap(explain, in_axes=(None, None, 0)))
    return functools.partial(mapped, model.variables)


def _check_finite(name: str, explain, images: np.ndarray, labels: np.ndarray) -> None:
    for image, label in zip(images, labels, strict=True):
        heatmap = explain(image, jnp.array([label])).heatmap
        if not np.isfinite(heatmap).all():
            raise SystemExit(f"{name}: a map is not finite")


def _shares(name: str, explain, images: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The share of each map in its cell, `[grids, 4]`; the same grids for every method."""
    shares = []
    for chosen in jaxcam.metrics.draw_grids(labels, count=count):
        cams = explain(jaxcam.metrics.mosaic(images[chosen]), jnp.asarray(labels[chosen])).cam
        if name == "recipro_cam":  # scores, of which the paper takes the lowest off
            cams = cams - cams.min(axis=(1, 2), keepdims=True)
        cells = jax.vmap(jaxcam.metrics.cell_shares)(cams)
        shares.append(np.asarray(cells)[np.arange(4), np.arange(4)])
    return np.array(shares)


def _row(name: str, shares: np.ndarray) -> dict:
    return {
        "method": name,
        "score": SCORES.get(name, jaxcam.logit).__name__,
        "share": float(shares.mean()),
        "standard_error": float(shares.mean(axis=1).std(ddof=1)) / len(shares) ** 0.5,
        "maps": shares.size,
        **KNOBS.get(name, {}),
    }


def _print(rows: list[dict], photographs: int, sure: int) -> None:
    title = f"{photographs} photographs, of which {sure} are in grids; chance is 0.25"
    table = Table("method", "score", "share in its cell", "maps", "seconds", title=title)
    for row in rows:
        share = f"{row['share']:.3f} ± {row['standard_error']:.3f}"
        cells = (row["method"], row["score"], share, str(row["maps"]), f"{row['seconds']:.0f}")
        table.add_row(*cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
