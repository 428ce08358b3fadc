"""A residual network as deep as ResNet-18, the same in linen, NNX and Equinox."""

import itertools
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
from flax import nnx

WIDTHS = (3, 32, 32, 64, 64, 128, 128, 256, 256)
CLASSES = 10


def stride(before: int, after: int) -> int:
    """Of a block: it halves the grid where it widens."""
    return 1 if before == after else 2


class LinenBlock(nn.Module):
    """From an activation `[n, H, W, C]` to one of `after` channels."""

    after: int

    @nn.compact
    def __call__(self, x):
        strides = stride(x.shape[-1], self.after)
        y = nn.relu(nn.Conv(self.after, (3, 3), strides, padding=1)(x))
        y = nn.Conv(self.after, (3, 3), padding=1)(y)
        return nn.relu(y + nn.Conv(self.after, (1, 1), strides)(x))


class LinenNet(nn.Module):
    """Layers "block0" to "block7"."""

    @nn.compact
    def __call__(self, x):
        for number, after in enumerate(WIDTHS[1:]):
            x = LinenBlock(after, name=f"block{number}")(x)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class NNXBlock(nnx.Module):
    """As `LinenBlock`."""

    def __init__(self, before: int, after: int, rngs: nnx.Rngs):
        strides = stride(before, after)
        self.conv0 = nnx.Conv(before, after, (3, 3), strides, padding=1, rngs=rngs)
        self.conv1 = nnx.Conv(after, after, (3, 3), padding=1, rngs=rngs)
        self.shortcut = nnx.Conv(before, after, (1, 1), strides, rngs=rngs)

    def __call__(self, x):
        y = self.conv1(nnx.relu(self.conv0(x)))
        return nnx.relu(y + self.shortcut(x))


class NNXNet(nnx.Module):
    """Layers "blocks/layers/0" to "blocks/layers/7"."""

    def __init__(self, rngs: nnx.Rngs):
        pairs = itertools.pairwise(WIDTHS)
        self.blocks = nnx.Sequential(*(NNXBlock(*pair, rngs) for pair in pairs))
        self.dense = nnx.Linear(WIDTHS[-1], CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.blocks(x).mean((1, 2)))


class EquinoxBlock(eqx.Module):
    """As `LinenBlock`, with channels first."""

    convs: list[eqx.nn.Conv2d]
    shortcut: eqx.nn.Conv2d

    def __init__(self, before: int, after: int, key: Any):
        keys, strides = jax.random.split(key, 3), stride(before, after)
        self.convs = [
            eqx.nn.Conv2d(before, after, 3, strides, 1, key=keys[0]),
            eqx.nn.Conv2d(after, after, 3, 1, 1, key=keys[1]),
        ]
        self.shortcut = eqx.nn.Conv2d(before, after, 1, strides, key=keys[2])

    def __call__(self, x):
        y = self.convs[1](jax.nn.relu(self.convs[0](x)))
        return jax.nn.relu(y + self.shortcut(x))


class EquinoxNet(eqx.Module):
    """Layers "blocks/0" to "blocks/7"."""

    blocks: list[EquinoxBlock]
    dense: eqx.nn.Linear

    def __init__(self, key: Any):
        keys = jax.random.split(key, len(WIDTHS))
        pairs = itertools.pairwise(WIDTHS)
        self.blocks = [EquinoxBlock(*pair, k) for pair, k in zip(pairs, keys[1:], strict=True)]
        self.dense = eqx.nn.Linear(WIDTHS[-1], CLASSES, key=keys[0])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))
