"""The explainers of three PyTorch libraries, each as a call without arguments."""

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1] / "tests" / "golden"))
from make_torch import stub_torchvision

stub_torchvision()

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_default_device(DEVICE)
torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in JAX and in PyTorch's convolutions


def explainer(
    library: str,
    method: str,
    model: torch.nn.Module,
    layer: str,
    images: torch.Tensor,
    targets: Sequence[int],
    *,
    chunk_size: int = 16,
) -> Callable[[], np.ndarray]:
    """The maps `[n, h, w]` that a class of a library makes of `images [n, C, H, W]`.

    `chunk_size` is how many masked images a method like Score-CAM runs at once.
    """
    make = {"pytorch_grad_cam": _pytorch_grad_cam, "torchcam": _torchcam, "captum": _captum}
    return make[library](method, model, layer, images, list(targets), chunk_size)


def versions() -> dict[str, str]:
    """Of all libraries, to be kept with results."""
    packages = {"pytorch_grad_cam": "grad-cam", "torchcam": "torchcam", "captum": "captum"}
    found = {library: version(package) for library, package in packages.items()}
    return {"torch": torch.__version__, **found}


def _pytorch_grad_cam(method, model, layer, images, targets, chunk_size):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    wanted = [ClassifierOutputTarget(target) for target in targets]
    maker = getattr(pytorch_grad_cam, method)

    def run():
        bars = contextlib.redirect_stderr(io.StringIO())  # one for each image
        with bars, maker(model=model, target_layers=[getattr(model, layer)]) as explain:
            explain.batch_size = chunk_size
            return explain(input_tensor=images, targets=wanted)

    return run


def _torchcam(method, model, layer, images, targets, chunk_size):
    from torchcam import methods

    def run():
        with getattr(methods, method)(model, layer) as explain:
            explain.bs = chunk_size
            return explain(targets, model(images))[0].detach().cpu().numpy()

    return run


def _captum(method, model, layer, images, targets, chunk_size):
    from captum.attr import LayerAttribution, LayerGradCam

    explain = LayerGradCam(model, getattr(model, layer))

    def run():
        maps = explain.attribute(images, target=targets)
        return LayerAttribution.interpolate(maps, images.shape[2:])[:, 0].detach().cpu().numpy()

    return run
