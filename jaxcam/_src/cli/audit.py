"""`jaxcam audit`: does the closed form of Grad-CAM++ hold for a model?"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxcam._src import files
from jaxcam._src.audit import report
from jaxcam._src.audit.price import Price, price
from jaxcam._src.audit.record import Audit
from jaxcam._src.audit.verdict import verdict
from jaxcam._src.base import Model
from jaxcam._src.cli import choices
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import (
    check_picture,
    classes_of,
    displayed,
    target_of,
    tracked,
    try_shapes,
)
from jaxcam._src.cli.streams import console, results, say
from jaxcam._src.derivatives import Structure
from jaxcam._src.files import UsageError
from jaxcam._src.names import printable

_UNTOLD = 60.0  # seconds that a command may take without saying so before
_SAMPLE = 1000  # activations of an image, where all would take longer


def run(options: argparse.Namespace) -> None:
    """Audits images, and prints tables and a verdict for each layer."""
    model = load_model(options.model)
    target = target_of(options, classes_of(model, options.score))
    score_fn = choices.named("score", options.score, choices.SCORES)
    auditor = functools.partial(report.auditor, model, score_fn=score_fn)
    cuts = choices.named_places(options, model)
    tried = {x: try_shapes(auditor(cuts[x], options.samples), model, target) for x in cuts}
    paths, images, pictures = _images(model, options.images)
    folder = files.writable_folder(options.out)
    found = {}
    untold = _UNTOLD / len(cuts)
    for layer, at in cuts.items():
        with files.one_line(f"the audit of {layer} stopped"):
            with console.status("timing it"):
                enough = 0.0 if options.samples else untold / len(images)
                cost = price(model, at, images[0], target, score_fn, enough=enough)
            samples = _samples(options, layer, cost, len(images), untold)
            audited, proved = auditor(at, samples), tried[layer].structure
            steps = tracked(images, f"auditing {layer} ({proved})")
            found[layer] = [jax.device_get(audited(model.variables, x, target)) for x in steps]
        _check_finite(found[layer], paths)
        _say(layer, proved, found[layer])
    settings = {"model": options.model, "target": options.target}
    settings |= {} if options.score == "logit" else {"score": options.score}
    with files.all_or_none(folder) as part:
        report.write(found, [str(path) for path in paths], pictures, settings, part)
    say(f"figure: {folder / 'audit.png'}")
    say(f"numbers: {folder / 'audit.json'}")


def _images(
    model: Model, given: Sequence[Path]
) -> tuple[list[Path], list[np.ndarray], list[np.ndarray]]:
    """Where the images are, as the model takes them, and as a user sees them."""
    check_picture(model)
    paths = files.find_images(given)
    images = [files.preprocessed(model, path) for path in paths]
    _check_alike(images, paths)
    return paths, images, [displayed(model, path, i) for path, i in zip(paths, images, strict=True)]


def _samples(
    options: argparse.Namespace, layer: str, cost: Price, images: int, untold: float
) -> int | None:
    """How many activations to look at, None for all; says what takes longer than `untold`."""
    samples = options.samples
    least, most = (2 * cost.start + images * each for each in (cost.least, cost.most))
    sampled = cost.start + images * (samples or _SAMPLE) * cost.direction
    if not (samples or options.exact) and least > max(untold, 2 * sampled):
        samples = _SAMPLE
        say(f"{layer}: a whole audit would take {_about(least)} or more; --exact insists on it")
    if samples:
        say(f"{layer}: a sample of {samples:,} activations takes {_about(sampled)}")
    elif most > untold:
        say(f"{layer}: takes up to {_about(most)}; --samples {_SAMPLE} looks at some activations")
    return samples


def _about(seconds: float) -> str:
    """A time, in words, beside that of compiling."""
    for unit, size in {"hours": 3600, "minutes": 60, "seconds": 1}.items():
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return "about a second"


def _say(layer: str, proved: Structure, found: Sequence[Audit]) -> None:
    say(f"{layer}: {proved}")
    for table in report.tables(printable(layer), found):
        results.print(table)
    say(verdict(report.stacked(found)))


def _check_alike(images: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
    for path, image in zip(paths, images, strict=True):
        if (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise UsageError(
                f"preprocess gave {images[0].dtype}{list(images[0].shape)} for {paths[0]} and "
                f"{image.dtype}{list(image.shape)} for {path}; an audit wants one shape, so resize "
                "in preprocess"
            )


def _check_finite(found: Sequence[Audit], paths: Sequence[Path]) -> None:
    for path, each in zip(paths, found, strict=True):
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(each)):
            raise UsageError(
                f"the audit of {path} is not finite; look at what the model makes of it"
            )
