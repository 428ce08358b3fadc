"""`jaxcam explain`: a model's answers for images, as pictures and numbers."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxcam._src import files
from jaxcam._src.base import Explanation, Model
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import (
    displayed,
    method_of,
    target_of,
    tracked,
    try_shapes,
)
from jaxcam._src.cli.streams import complain, say
from jaxcam._src.compiling import compiler_options
from jaxcam._src.cut import split
from jaxcam._src.explain import explainer, why_flat
from jaxcam._src.files import UsageError
from jaxcam._src.render import overlay

_TOP = 5


def run(options: argparse.Namespace) -> None:
    """Explains images, and writes an overlay and a map for each, and a record of all."""
    method = method_of(options)
    model = load_model(options.model)
    target = target_of(options, model)
    split_fn = split(model.apply_fn, options.layer, occurrence=options.occurrence)
    explain = explainer(model.apply_fn, split_fn, method)
    explain = jax.jit(explain, compiler_options=compiler_options())
    try_shapes(explain, model, target)
    files.check_images(options.images)
    folder = files.writable_folder(options.out)
    kept = ("model", "layer", "occurrence", "method", "seed")
    settings = {name: getattr(options, name) for name in kept}
    records = []
    with files.all_or_none(folder) as part:
        for path in tracked(options.images, "explaining"):
            image = files.preprocessed(model, path)
            with files.one_line(f"cannot explain {path}"):
                explanation = jax.device_get(explain(model.variables, image, target))
            records.append(_write(part, path, image, explanation, model))
        with files.whole_file(part / "explanations.json") as file:
            file.write(json.dumps({**settings, "images": records}, indent=1).encode())
    for record in records:
        _say(record, folder)
    say(f"numbers: {folder / 'explanations.json'}")


def _write(
    folder: Path, path: Path, image: np.ndarray, explanation: Explanation, model: Model
) -> dict[str, Any]:
    """Writes the overlay and the raw map of one image, and returns what there is to say of it."""
    if not np.isfinite(explanation.heatmap).all():
        raise UsageError(f"the map of {path} is not finite; look at what the model makes of it")
    shown = displayed(model, path, image)
    with files.one_line(f"display of {path}"):
        picture = overlay(shown, explanation.heatmap)
    overlay_path, cam_path = folder / f"{path.stem}_overlay.png", folder / f"{path.stem}_cam.npy"
    with files.whole_file(overlay_path) as file:
        Image.fromarray(picture).save(file, "PNG")
    with files.whole_file(cam_path) as file:
        np.save(file, np.asarray(explanation.cam, np.float32))  # NumPy cannot read bfloat16
    target = int(explanation.target)
    return {
        "image": str(path),
        "target": {"class": target, "name": model.class_names[target]},
        "top": _likeliest(explanation.logits, model),
        "overlay": overlay_path.name,
        "cam": cam_path.name,
        "cam_shape": list(explanation.cam.shape),
        "cam_max": float(explanation.cam.max()),
        "flat": why_flat(explanation),
    }


def _say(record: dict[str, Any], folder: Path) -> None:
    answers = ", ".join(map(_answer, record["top"]))
    written = ", ".join(str(folder / record[kind]) for kind in ("overlay", "cam"))
    if record["flat"]:
        complain(f"warning: the map of {record['image']} is flat: {record['flat']}")
    say(f"{record['image']}: {answers}; explained: {record['target']['name']}; {written}")


def _answer(found: dict[str, Any]) -> str:
    probability = found["probability"]
    number = f"{probability:.1%}" if probability is not None else f"has logit {found['logit']:.3f}"
    return f"{found['name']} {number}"


def _likeliest(logits: np.ndarray, model: Model) -> list[dict[str, Any]]:
    """The classes of the highest probability; of a single logit a softmax says nothing."""
    if len(logits) == 1:
        logit = float(logits[0])
        return [{"class": 0, "name": model.class_names[0], "probability": None, "logit": logit}]
    # In NumPy, which compiles nothing.
    odds = np.exp(np.float64(logits - logits.max()))
    probabilities = odds / odds.sum()
    return [
        {"class": int(c), "name": model.class_names[c], "probability": float(probabilities[c])}
        for c in np.argsort(-probabilities)[:_TOP]
    ]
