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
from jaxcam._src.cli.model import (
    displayed,
    results,
    target_of,
    tracked,
    try_shapes,
)
from jaxcam._src.files import UsageError


def run(options: argparse.Namespace) -> None:
    """Audits images, and prints tables and a verdict for each layer."""
    model = files.load_model(options.model)
    target = target_of(options, model)
    auditors = report.auditors(model, options.layer)
    proved = {
        layer: try_shapes(audited, model, target).structure for layer, audited in auditors.items()
    }
    paths = files.find_images(options.images)
    images = [files.preprocessed(model, path) for path in paths]
    pictures = [displayed(model, path, i) for path, i in zip(paths, images, strict=True)]
    folder = files.writable_folder(options.out)
    found = {}
    for layer, audited in auditors.items():
        steps = tracked(images, f"auditing {layer} ({proved[layer]})")
        found[layer] = [jax.device_get(audited(model.variables, x, target)) for x in steps]
        _check_finite(found[layer], paths)
        print(f"{layer}: {proved[layer]}")
        for table in report.tables(layer, found[layer]):
            results.print(table)
        print(verdict(report.stacked(found[layer])), flush=True)
    settings = {"model": options.model, "target": options.target}
    report.write(found, [str(path) for path in paths], pictures, settings, folder)
    print(f"figure: {folder / 'audit.png'}\nnumbers: {folder / 'audit.json'}")


def _check_finite(found: Sequence[Audit], paths: Sequence[Path]) -> None:
    for path, each in zip(paths, found, strict=True):
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(each)):
            raise UsageError(
                f"the audit of {path} is not finite; look at what the model makes of it"
            )
