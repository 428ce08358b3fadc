"""The networks of resnet.py as a PyTorch module, channels first."""

from typing import Any

import torch
from resnet import BLOCKS, EPSILON, STAGES, Conv, convolutions
from torch import nn


class Block(nn.Module):
    """Convolutions with a ReLU between them, and a shortcut around them."""

    def __init__(self, convs: dict[str, nn.Module], name: str):
        super().__init__()
        names = [f"{name}.conv{i}" for i in (1, 2, 3) if f"{name}.conv{i}" in convs]
        self.convs = nn.ModuleList(convs[conv] for conv in names)
        self.shortcut = convs.get(f"{name}.shortcut", nn.Identity())
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convs[0](x)
        for conv in self.convs[1:]:
            y = conv(self.relu(y))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """In evaluation, with the weights of `resnet.weights`."""

    def __init__(self, depth: int, weights: dict[str, Any]):
        super().__init__()
        convs = {conv.name: _conv(weights[conv.name], conv) for conv in convolutions(depth)}
        self.stem, self.relu, self.pool = convs["stem"], nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for stage, count in zip(STAGES, BLOCKS[depth], strict=True):
            blocks = [Block(convs, f"layer{stage}.{block}") for block in range(count)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.dense = nn.Linear(*weights["dense"].shape, bias=False)
        with torch.no_grad():
            self.dense.weight.copy_(torch.from_numpy(weights["dense"]).T)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.stem(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.dense(x.mean((2, 3)))


def _conv(weights: dict[str, Any], row: Conv) -> nn.Module:
    _, window, before, after, stride = row
    conv = nn.Conv2d(before, after, window, stride, window // 2, bias=False)
    norm = nn.BatchNorm2d(after, EPSILON)
    kept = {"scale": norm.weight, "bias": norm.bias}
    kept |= {"mean": norm.running_mean, "variance": norm.running_var}
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(weights["kernel"]).permute(3, 2, 0, 1))
        for name, own in kept.items():
            own.copy_(torch.from_numpy(weights[name]))
    return nn.Sequential(conv, norm)
