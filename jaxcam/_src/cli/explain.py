"""`jaxcam explain`: a model's answers for images, as pictures and numbers."""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxcam._src import files
from jaxcam._src.base import Explanation, Model
from jaxcam._src.cli import choices
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.makers import Maker, makers_of
from jaxcam._src.cli.model import classes_of, displayed, target_of, tracked
from jaxcam._src.cli.streams import complain, say
from jaxcam._src.explanations import why_flat
from jaxcam._src.files import UsageError
from jaxcam._src.maps import unit_range, upsample
from jaxcam._src.render import overlay, save_gallery, save_panels

_TOP = 5
_WIDEST = 8  # pictures beside each other, from which on those of one layer are wrapped
_SETTINGS = ("model", "layer", "occurrence", "method", "seed")


def run(options: argparse.Namespace) -> None:
    """Explains images, and writes an overlay and a map for each, and a record of all."""
    model = load_model(options.model)
    makers = makers_of(options, model)
    model = dataclasses.replace(model, class_names=classes_of(model, options.score))
    files.check_images(options.images)
    folder = files.writable_folder(options.out)
    records, figures = {}, []
    with files.all_or_none(folder) as part:
        for place, maker in makers.items():
            inside = part / place.relative_to(folder)
            inside.mkdir(exist_ok=True)
            records[place] = _explained(options, model, maker, inside)
        if len(makers) > 1:
            figures = [_side_by_side(part, makers, model, path) for path in options.images]
    if len(makers) == 1:
        _say(records[folder], folder)
    else:
        _say_several(records, folder, figures)


def _explained(
    options: argparse.Namespace, model: Model, maker: Maker, folder: Path
) -> list[dict[str, Any]]:
    """Explains all images by one method at one layer, and writes what there is to say of them."""
    target = target_of(options, model.class_names)
    settings = {name: getattr(options, name) for name in _SETTINGS}
    settings |= {**maker.names, **choices.more_settings(options)}
    records = []
    for path in tracked(options.images, f"explaining by {maker.names['method']}"):
        image = files.preprocessed(model, path)
        with files.one_line(f"cannot explain {path}"):
            explanation = jax.device_get(maker.explain(model.variables, image, target))
        records.append(_write(folder, path, image, explanation, model))
    with files.whole_file(folder / "explanations.json") as file:
        file.write(json.dumps({**settings, "images": records}, indent=1).encode())
    return records


def _side_by_side(folder: Path, makers: Mapping[Path, Maker], model: Model, path: Path) -> str:
    """Draws the overlays of one image together: a row for each layer, a column for each method."""
    name = f"{path.stem}_side_by_side.png"
    shown = displayed(model, path, files.preprocessed(model, path))
    rows: dict[str, dict[str, np.ndarray]] = {}
    for place, maker in makers.items():
        picture = np.asarray(Image.open(folder / place.name / f"{path.stem}_overlay.png"))
        rows.setdefault(maker.names["layer"], {})[maker.names["method"]] = picture
    titles = [*next(iter(rows.values()))]
    with files.whole_file(folder / name) as file:
        if len(rows) == 1 and len(titles) > _WIDEST:
            save_gallery({"image": shown} | next(iter(rows.values())), file)
        else:
            pictures = [[shown, *row.values()] for row in rows.values()]
            save_panels(pictures, ["image", *titles], file, captions=[*rows])
    return name


def _write(
    folder: Path, path: Path, image: np.ndarray, explanation: Explanation, model: Model
) -> dict[str, Any]:
    """Writes the overlay and the raw map of one image, and returns what there is to say of it."""
    if not np.isfinite(explanation.heatmap).all():
        raise UsageError(f"the map of {path} is not finite; look at what the model makes of it")
    shown = displayed(model, path, image)
    with files.one_line(f"display of {path}"):
        picture = overlay(shown, _fitted(np.asarray(explanation.heatmap), shown.shape[:2]))
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


def _fitted(heatmap: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A heatmap that a convention leaves at the layer's size, or beyond [0, 1], as a picture is."""
    if heatmap.shape == size and heatmap.min() >= 0 and heatmap.max() <= 1:
        return heatmap
    return np.asarray(unit_range(upsample(heatmap, size)))


def _say(records: Sequence[dict[str, Any]], folder: Path) -> None:
    for record in records:
        written = ", ".join(str(folder / record[kind]) for kind in ("overlay", "cam"))
        _warn_if_flat(record, "the map")
        say(f"{_answers(record)}; {written}")
    say(f"numbers: {folder / 'explanations.json'}")


def _say_several(
    records: Mapping[Path, Sequence[dict[str, Any]]], folder: Path, figures: Sequence[str]
) -> None:
    """What was answered, once for all methods and layers."""
    for place, of_place in records.items():
        for record in of_place:
            _warn_if_flat(record, f"the map {place.name}")
    for record, figure in zip(next(iter(records.values())), figures, strict=True):
        say(f"{_answers(record)}; {folder / figure}")
    say(f"maps and numbers, in {folder}: {', '.join(place.name for place in records)}")


def _warn_if_flat(record: dict[str, Any], which: str) -> None:
    if record["flat"]:
        complain(f"warning: {which} of {record['image']} is flat: {record['flat']}")


def _answers(record: dict[str, Any]) -> str:
    found = ", ".join(map(_answer, record["top"]))
    return f"{record['image']}: {found}; explained: {record['target']['name']}"


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
