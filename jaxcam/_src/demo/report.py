"""The demonstration: every method on bundled canvases, as a figure and a table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import jax
import numpy as np

from jaxcam._src.base import Model, WeightsFn
from jaxcam._src.compiling import compiler_options
from jaxcam._src.demo.bundle import NAMES, digits_relu, digits_silu, load_canvases
from jaxcam._src.demo.canvases import Canvases
from jaxcam._src.explain import explainer
from jaxcam._src.files import whole_file
from jaxcam._src.metrics.localization import energy_inside
from jaxcam._src.render import overlay, save_panels

LAYER = "stage3"
FLOOR = "all ones (floor)"
_ROWS = 6  # canvases in the figure


def run(methods: Mapping[str, WeightsFn], folder: Path) -> dict[str, dict[str, float]]:
    """Explains the bundled canvases and writes `figure.png` and `energy.json` to `folder`.

    Returns:
      For each method and for a heatmap of ones: the mean share of the heatmap's energy inside
      the digit's box, per network.
    """
    canvases = load_canvases()
    networks = {"ReLU network": digits_relu(), "SiLU network": digits_silu()}
    heatmaps = {
        network: {name: _heatmaps(model, method, canvases) for name, method in methods.items()}
        for network, model in networks.items()
    }
    ones = np.ones_like(canvases.images[..., 0])
    energy = {
        name: {
            network: _energy(maps.get(name, ones), canvases) for network, maps in heatmaps.items()
        }
        for name in (*methods, FLOOR)
    }
    with whole_file(folder / "figure.png") as file:
        _draw(heatmaps["ReLU network"], canvases, file)
    with whole_file(folder / "energy.json") as file:
        file.write(json.dumps(energy, indent=1).encode())
    return energy


def _heatmaps(model: Model, method: WeightsFn, canvases: Canvases) -> np.ndarray:
    explain = jax.vmap(explainer(model.apply_fn, LAYER, method), in_axes=(None, 0, 0))
    explain = jax.jit(explain, compiler_options=compiler_options())
    return np.asarray(explain(model.variables, canvases.images, canvases.labels).heatmap)


def _energy(heatmaps: np.ndarray, canvases: Canvases) -> float:
    inside = np.stack([box.mask() for box in canvases.boxes])
    return float(jax.vmap(energy_inside)(heatmaps, inside).mean())


def _draw(heatmaps: Mapping[str, np.ndarray], canvases: Canvases, file: IO[bytes]) -> None:
    _, shown = np.unique(canvases.labels, return_index=True)  # one canvas of each digit
    shown = shown[:_ROWS]
    rows = [
        [canvases.images[i, ..., 0]]
        + [overlay(canvases.images[i], maps[i]) for maps in heatmaps.values()]
        for i in shown
    ]
    save_panels(
        rows,
        ["image and box", *heatmaps],
        file,
        captions=[NAMES[label] for label in canvases.labels[shown]],
        boxes=[canvases.boxes[i] for i in shown],
    )
