"""What does Grad-CAM cost over a plain forward pass, and against two PyTorch libraries?

Last stage of ResNet-18 and of ResNet-50 at 224 pixels, random weights, a batch of 8 images. Forward
passes are timed beside the explanations, in turns.
"""

import functools
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

LAYER, BATCH, REPEATS = "layer4", 8, 15
METHODS = {
    "grad_cam": jaxcam.grad_cam,
    "grad_cam_plus_plus": jaxcam.grad_cam_plus_plus,
    "layer_cam": jaxcam.layer_cam,
}


def main() -> None:
    """Prints the tables and writes them to `results/`."""
    rows = [row for depth in resnet.BLOCKS for row in _rows(depth)]
    print(timing.save("gradient", rows, **rivals.versions()))


def _rows(depth: int) -> list[dict[str, Any]]:
    images = np.random.default_rng(0).random((BATCH, 224, 224, 3), np.float32)
    targets = list(range(BATCH))
    runs = _ours(depth, jnp.asarray(images), jnp.array(targets))
    x = torch.from_numpy(images).to(rivals.DEVICE).permute(0, 3, 1, 2)
    for name, memory_format in {"": torch.contiguous_format, ", last": torch.channels_last}.items():
        model = ResNet(depth, resnet.weights(depth)).to(memory_format=memory_format)
        batch = x.contiguous(memory_format=memory_format)
        runs[f"torch forward{name}"] = functools.partial(_logits, model, batch)
        for library in ("pytorch_grad_cam", "torchcam"):
            run = rivals.explainer(library, "GradCAM", model, LAYER, batch, targets)
            runs[f"{library}{name}"] = run
    samples = timing.in_turns(runs, repeats=REPEATS)
    rows = [
        {
            "depth": depth,
            "of": name,
            "seconds": timing.median(taken),
            "over_forward": timing.ratio(taken, samples["forward"]),
            "grad_cam_over_it": timing.ratio(samples["grad_cam"], taken),
            "samples_s": taken,
        }
        for name, taken in samples.items()
    ]
    _print(depth, rows)
    return rows


def _ours(depth: int, images: jax.Array, targets: jax.Array) -> dict[str, Any]:
    weights = jax.device_put(resnet.weights(depth))
    forward = jax.vmap(resnet.apply_fn, in_axes=(None, 0))
    runs = {"forward": timing.compiled(forward, weights, images)[0]}
    for name, method in METHODS.items():
        explain = jax.vmap(jaxcam.explainer(resnet.apply_fn, LAYER, method), in_axes=(None, 0, 0))
        runs[name] = timing.compiled(explain, weights, images, targets)[0]
    return runs


def _logits(model: torch.nn.Module, batch: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return model(batch).cpu().numpy()


def _print(depth: int, rows: list[dict[str, Any]]) -> None:
    title = f"ResNet-{depth}, batch {BATCH}; last: PyTorch with channels last"
    table = Table("", "s", "over jaxcam's forward pass", "grad_cam over it", title=title)
    for row in rows:
        spread = "{ratio:.2f} ({lowest:.2f} to {highest:.2f})"
        ratios = (spread.format(**row[key]) for key in ("over_forward", "grad_cam_over_it"))
        table.add_row(row["of"], f"{row['seconds']:.3f}", *ratios)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
