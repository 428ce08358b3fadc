"""The same maps as the PyTorch libraries, live: how far apart, and how long?

One network of ResNet-18's shape with random weights, in PyTorch and in JAX, one batch of images,
every method that both sides have, under the library's convention. Times are of the whole batch,
compiled, on the same threads.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import resnet
import rivals
import timing
import torch
from resnet_torch import ResNet
from rich.console import Console
from rich.table import Table

import jaxcam

LAYER = "layer4"
BATCH = 4
METHODS = {
    "pytorch_grad_cam": {
        "GradCAM": "grad_cam",
        "GradCAMPlusPlus": "grad_cam_plus_plus",
        "HiResCAM": "hires_cam",
        "GradCAMElementWise": "elementwise_grad_cam",
        "XGradCAM": "xgrad_cam",
        "LayerCAM": "layer_cam",
        "FEM": "fem",
        "AblationCAM": "ablation_cam",
        "ScoreCAM": "score_cam",
    },
    "torchcam": {
        "GradCAM": "grad_cam",
        "GradCAMpp": "grad_cam_plus_plus",
        "XGradCAM": "xgrad_cam",
        "LayerCAM": "layer_cam",
        "ScoreCAM": "score_cam",
    },
    "captum": {"LayerGradCam": "grad_cam"},
}
SLOW = {"score_cam", "ablation_cam"}  # hundreds of passes: one image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="default: all", metavar="METHOD")
    options = parser.parse_args()
    weights = resnet.weights(18)
    images = np.random.default_rng(0).random((BATCH, 224, 224, 3), np.float32)
    targets = [1, 7, 7, 400]
    model = ResNet(18, weights)
    x = torch.from_numpy(images).to(rivals.DEVICE).permute(0, 3, 1, 2).contiguous()
    rows = []
    for library, methods in METHODS.items():
        for theirs, ours in methods.items():
            if options.methods and ours not in options.methods:
                continue
            n = 1 if ours in SLOW else BATCH
            run = rivals.explainer(library, theirs, model, LAYER, x[:n], targets[:n])
            mine = _ours(library, ours, weights, images[:n], targets[:n])
            rows.append({"images": n, **_row(library, ours, run, mine)})
    _print(rows)
    if not options.methods:
        timing.save("against-torch", rows, **rivals.versions())


def _ours(
    library: str, name: str, weights: Any, images: np.ndarray, targets: list[int]
) -> Callable[[], jax.Array]:
    convention = getattr(jaxcam.conventions, library)
    method = getattr(jaxcam, name)
    explain = jaxcam.explainer(resnet.apply_fn, LAYER, method, convention=convention)
    mapped = jax.vmap(explain, in_axes=(None, 0, 0))
    run, _, _ = timing.compiled(mapped, weights, jnp.asarray(images), jnp.array(targets))
    return lambda: run().heatmap


def _row(library: str, name: str, theirs: Callable, ours: Callable) -> dict[str, Any]:
    wanted, found = theirs(), np.asarray(ours())
    repeats = 2 if name in SLOW else 5
    samples = timing.in_turns({"theirs": theirs, "ours": ours}, repeats=repeats)
    return {
        "library": library,
        "method": name,
        "difference": float(abs(found - wanted).max() / abs(wanted).max()),
        "jaxcam_s": timing.median(samples["ours"]),
        "library_s": timing.median(samples["theirs"]),
        **timing.ratio(samples["ours"], samples["theirs"]),
        "samples_s": samples,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    title = "ResNet-18; difference as a share of the map's maximum"
    headings = ("library", "method", "images", "difference", "jaxcam s", "library s", "ratio")
    table = Table(*headings, title=title)
    for row in rows:
        numbers = (f"{row[key]:.3g}" for key in ("difference", "jaxcam_s", "library_s", "ratio"))
        table.add_row(row["library"], row["method"], str(row["images"]), *numbers)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
