"""The network of resnet.py as a PyTorch module, channels first."""

from typing import Any

import torch
from resnet import BLOCKS, WIDTHS, convolutions
from torch import nn


class Block(nn.Module):
    def __init__(self, convs: dict[str, nn.Module], name: str):
        super().__init__()
        self.conv1, self.conv2 = convs[f"{name}.conv1"], convs[f"{name}.conv2"]
        self.shortcut = convs.get(f"{name}.shortcut", nn.Identity())
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv2(self.relu(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """In evaluation, with the weights of `resnet.weights`."""

    def __init__(self, weights: dict[str, Any]):
        super().__init__()
        convs = {row[0]: _conv(weights, *row) for row in convolutions()}
        self.stem, self.relu, self.pool = convs["stem"], nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for stage in range(1, len(WIDTHS) + 1):
            blocks = [Block(convs, f"layer{stage}.{block}") for block in range(BLOCKS)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.dense = nn.Linear(*weights["dense"].shape, bias=False)
        with torch.no_grad():
            self.dense.weight.copy_(torch.from_numpy(weights["dense"]).T)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.dense(x.mean((2, 3)))


def _conv(
    weights: dict[str, Any], name: str, window: int, before: int, after: int, stride: int
) -> nn.Conv2d:
    module = nn.Conv2d(before, after, window, stride, window // 2)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weights[name]["kernel"]).permute(3, 2, 0, 1))
        module.bias.copy_(torch.from_numpy(weights[name]["bias"]))
    return module
