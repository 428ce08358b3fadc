"""The audit on the command line: a table, numbers and a figure, over images and layers."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from jaxcam._src.audit import EXACT, MAPS, MEASURES, Audit, audit
from jaxcam._src.audit.verdict import summary, verdict
from jaxcam._src.base import Model
from jaxcam._src.compiling import compiler_options
from jaxcam._src.files import whole_file
from jaxcam._src.render import save_audit

_ROWS = 6  # of the figure


def auditors(model: Model, layers: Sequence[str]) -> dict[str, Callable[..., Audit]]:
    """A compiled audit for each layer, `(variables, image, target) -> Audit`."""

    def auditor(layer: str) -> Callable[..., Audit]:
        audited = functools.partial(audit, model.apply_fn, layer)
        return jax.jit(audited, compiler_options=compiler_options())

    return {layer: auditor(layer) for layer in layers}


def write(
    found: Mapping[str, Sequence[Audit]],
    names: Sequence[str],
    pictures: Sequence[np.ndarray],
    settings: dict[str, Any],
    folder: Path,
) -> None:
    """Writes `audit.json` and `audit.png`.

    Args:
      found: for each layer the audits of all images.
      names: of the images.
      pictures: the images to show, `[H, W, 3]` or `[H, W, 1]` in [0, 1].
      settings: what the user asked for, to stand in the numbers.
      folder: to write to.
    """
    layers = {
        layer: {
            "verdict": verdict(stacked(audits)),
            "mean": summary(stacked(audits)),
            "images": {n: summary(each) for n, each in zip(names, audits, strict=True)},
        }
        for layer, audits in found.items()
    }
    with whole_file(folder / "audit.json") as file:
        file.write(json.dumps({**settings, "layers": layers}, indent=1).encode())
    rows = [
        (f"{layer}, {name}", picture, each)
        for layer, audits in found.items()
        for name, picture, each in zip(names, pictures, audits, strict=True)
    ]
    with whole_file(folder / "audit.png") as file:
        save_audit(
            [
                (label, picture, {name: each.maps[name] for name in MAPS})
                for label, picture, each in rows[:_ROWS]
            ],
            [(each.alpha_closed, each.alpha_exact) for *_, each in rows[:_ROWS]],
            file,
        )


def tables(layer: str, audits: Sequence[Audit]) -> list[Table]:
    """The numbers of one layer, means over its images, and what the maps have in common."""
    numbers = summary(stacked(audits))
    first = Table(layer, "closed form", "exact")
    for name, words in {"second": "error of Y''", "third": "error of Y'''"}.items():
        first.add_row(words, f"{numbers[f'{name}_error']:.2e}", "")
    first.add_row("error of alpha", f"{numbers['alpha_error']:.2e}", "")
    for share in numbers["closed"]:
        values = (f"{numbers[side][share]:.2%}" for side in ("closed", "exact"))
        first.add_row(f"alpha {share.replace('_', ' ')}", *values)
    for quantile, value in numbers["sum_gradient"].items():
        first.add_row(f"|Sigma g|, quantile {quantile}", f"{value:.3g}", "")
    second = Table(f"against {EXACT}", *(name.replace("_", " ") for name in MEASURES))
    for name in MAPS:
        values = (numbers["agreement"][measure][EXACT][name] for measure in MEASURES)
        second.add_row(name, *(f"{value:.3f}" for value in values))
    return [first, second]


def stacked(audits: Sequence[Audit]) -> Audit:
    """Several audits of one layer as one, with a first axis for the images."""
    return jax.tree.map(lambda *values: np.stack(values), *audits)
