"""`jaxcam audit`: does the closed form of Grad-CAM++ hold for a model?"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxcam._src import files
from jaxcam._src.audit import report
from jaxcam._src.audit.record import Audit
from jaxcam._src.audit.verdict import verdict
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import (
    check_picture,
    displayed,
    target_of,
    tracked,
    try_shapes,
)
from jaxcam._src.cli.streams import results, say
from jaxcam._src.files import UsageError
from jaxcam._src.names import printable


def run(options: argparse.Namespace) -> None:
    """Audits images, and prints tables and a verdict for each layer."""
    model = load_model(options.model)
    target = target_of(options, model)
    auditors = report.auditors(model, options.layer)
    proved = {
        layer: try_shapes(audited, model, target).structure for layer, audited in auditors.items()
    }
    check_picture(model)
    paths = files.find_images(options.images)
    images = [files.preprocessed(model, path) for path in paths]
    _check_alike(images, paths)
    pictures = [displayed(model, path, i) for path, i in zip(paths, images, strict=True)]
    folder = files.writable_folder(options.out)
    found = {}
    for layer, audited in auditors.items():
        steps = tracked(images, f"auditing {layer} ({proved[layer]})")
        with files.one_line(f"the audit of {layer} stopped"):
            found[layer] = [jax.device_get(audited(model.variables, x, target)) for x in steps]
        _check_finite(found[layer], paths)
        say(f"{layer}: {proved[layer]}")
        for table in report.tables(printable(layer), found[layer]):
            results.print(table)
        say(verdict(report.stacked(found[layer])))
    settings = {"model": options.model, "target": options.target}
    with files.all_or_none(folder) as part:
        report.write(found, [str(path) for path in paths], pictures, settings, part)
    say(f"figure: {folder / 'audit.png'}")
    say(f"numbers: {folder / 'audit.json'}")


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
