"""Folders as `jaxcam run` and `evaluate` leave them, made without a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxcam._src.evaluation.report import Numbers, summary
from jaxcam._src.pipeline import store
from jaxcam._src.pipeline.maps import LAYOUT

MODEL = "elsewhere:load"  # of no package here: photographs are shown whole
CLASSES = ["cat", "dog", "cow"]
SIZE = (5, 6)
BATCH = 4


def draw_photographs(folder: Path, names, side=40) -> Path:
    """A smooth picture of its own for each name."""
    y, x = np.mgrid[:side, :side] / side
    for i, name in enumerate(names):
        picture = np.stack([x, y, (x * y * (i + 1)) % 1], -1)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * picture).astype(np.uint8)).save(folder / name)
    return folder


def write_run(out: Path, images: Path, names, **changed) -> np.ndarray:
    """A run, and its maps, random ones; `changed` are settings, cams, or columns of the index."""
    settings: dict[str, Any] = {
        "model": MODEL, "layer": "last", "occurrence": None, "method": "grad_cam", "seed": 0,
        "target": None, "batch_size": BATCH, "images": str(images), "count": len(names),
    }  # fmt: skip
    settings |= {key: changed.pop(key) for key in ({*settings} - {"target"}) & {*changed}}
    cams = changed.pop("cams", None)
    if cams is None:
        cams = np.random.default_rng(0).random((len(names), *SIZE), np.float32)
    columns = answers(names) | changed
    out.mkdir()
    store.begin(out, settings, "0-of-1", LAYOUT)
    size = settings["batch_size"]
    for batch in range(-(-len(names) // size)):
        part = slice(batch * size, (batch + 1) * size)
        kept = {name: column[part] for name, column in columns.items()}
        store.write_index(out, batch, kept | store.write_maps(out, batch, cams[part]), LAYOUT)
    return cams


def answers(names):
    """Columns of an index in which image i is a class i % 3, with a probability of its own."""
    count = len(names)
    classes = [i % len(CLASSES) for i in range(count)]
    sure = [0.5 + 0.4 * i / count for i in range(count)]
    return {
        "image": [*names],
        "prediction": classes,
        "prediction_name": [CLASSES[c] for c in classes],
        "prediction_probability": sure,
        "target": classes,
        "target_name": [CLASSES[c] for c in classes],
        "target_probability": sure,
        "target_logit": [1.0] * count,
        "flat": [None] * count,
        "top_names": [[CLASSES[c], CLASSES[(c + 1) % 3]] for c in classes],
        "top_probabilities": [[s, 0.9 - s] for s in sure],
        "error": [None] * count,
    }


def write_evaluation(out: Path, names, drops, target=None) -> None:
    """An evaluation of grad_cam and a floor by drop."""
    columns = {"image": str, "error": str, "layer": str, "score": str, "method": str}
    layout = store.Layout(columns | {"target": int, "drop": float})
    settings = {"model": MODEL, "count": len(names), "batch_size": len(names), "metric": ["drop"]}
    out.mkdir()
    store.begin(out, settings, "0-of-1", layout)
    rows = {name: [] for name in layout.columns}
    for i, name in enumerate(names):
        for method in ("grad_cam", "uniform"):
            own = i % len(CLASSES) if target is None else target
            row = [name, None, "last", "logit", method, own, drops[i]]
            for column, value in zip(rows.values(), row, strict=True):
                column.append(value)
    store.write_index(out, 0, rows, layout)
    values = {"drop": np.repeat(np.array(drops)[:, None], 2, 1)}
    labels = ["grad_cam", "uniform"]
    numbers = Numbers(values, {}, np.zeros(2), labels, ["uniform"], len(names))
    (out / "summary.json").write_text(json.dumps(summary(numbers, "probability")))
