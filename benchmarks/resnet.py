"""ResNet-18 and ResNet-50 (He et al. 2016, https://arxiv.org/abs/1512.03385), in evaluation.

Random weights as torchvision draws them, the same in both frameworks; in PyTorch: resnet_torch.py.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

CLASSES = 1000
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}  # in each stage, by depth
WIDTHS = (64, 128, 256, 512)
STAGES = range(1, len(WIDTHS) + 1)
EPSILON = 1e-5  # of the batch norms


class Conv(NamedTuple):
    """A convolution without bias, and a batch norm after it."""

    name: str
    window: int
    before: int
    after: int
    stride: int


def convolutions(depth: int) -> Iterator[Conv]:
    """Every convolution, in order."""
    yield Conv("stem", 7, 3, 64, 2)
    before, expansion = 64, 1 if depth == 18 else 4
    for stage, blocks, inner in zip(STAGES, BLOCKS[depth], WIDTHS, strict=True):
        for block in range(blocks):
            name, after = f"layer{stage}.{block}", inner * expansion
            stride = 2 if stage > 1 and block == 0 else 1
            if expansion == 1:
                yield Conv(f"{name}.conv1", 3, before, inner, stride)
                yield Conv(f"{name}.conv2", 3, inner, after, 1)
            else:
                yield Conv(f"{name}.conv1", 1, before, inner, 1)
                yield Conv(f"{name}.conv2", 3, inner, inner, stride)
                yield Conv(f"{name}.conv3", 1, inner, after, 1)
            if before != after or stride > 1:
                yield Conv(f"{name}.shortcut", 1, before, after, stride)
            before = after


def weights(depth: int, *, seed: int = 0) -> dict[str, Any]:
    """By name: kernels `[h, w, in, out]`, and scale, bias, mean and variance of the norms."""
    rng = np.random.default_rng(seed)
    found, after = {}, 0
    for name, window, before, after, _ in convolutions(depth):
        kernel = rng.standard_normal((window, window, before, after), np.float32)
        ones, zeros = np.ones(after, np.float32), np.zeros(after, np.float32)
        found[name] = {
            "kernel": kernel * np.float32((2 / (window * window * after)) ** 0.5),
            "scale": ones,
            "bias": zeros,
            "mean": zeros,
            "variance": ones,
        }
    dense = rng.uniform(-1, 1, (after, CLASSES)).astype(np.float32) / np.float32(after**0.5)
    return found | {"dense": dense}


def apply_fn(w: dict[str, Any], image: jax.Array) -> jax.Array:
    """Logits of one image `[H, W, 3]`; the four stages are tagged."""
    x = jax.nn.relu(_conv(w["stem"], image, 2))
    around = [(1, 1), (1, 1), (0, 0)]
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 3, 1), (2, 2, 1), around)
    depth = 50 if "layer1.0.conv3" in w else 18
    strides = {conv.name: conv.stride for conv in convolutions(depth)}
    for stage, blocks in zip(STAGES, BLOCKS[depth], strict=True):
        for block in range(blocks):
            x = _block(w, f"layer{stage}.{block}", strides, x)
        x = jaxcam.tag(x, f"layer{stage}")
    return x.mean((0, 1)) @ w["dense"]


def _block(w: dict[str, Any], name: str, strides: dict[str, int], x: jax.Array) -> jax.Array:
    names = [f"{name}.conv{i}" for i in (1, 2, 3) if f"{name}.conv{i}" in w]
    y, shortcut = x, f"{name}.shortcut"
    for conv in names[:-1]:
        y = jax.nn.relu(_conv(w[conv], y, strides[conv]))
    y = _conv(w[names[-1]], y, 1)
    return jax.nn.relu(y + (_conv(w[shortcut], x, strides[shortcut]) if shortcut in w else x))


def _conv(w: dict[str, jax.Array], x: jax.Array, stride: int) -> jax.Array:
    around = w["kernel"].shape[0] // 2
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
        x[None], w["kernel"], (stride, stride), [(around, around)] * 2, dimension_numbers=numbers
    )
    return (y[0] - w["mean"]) * (w["scale"] * jax.lax.rsqrt(w["variance"] + EPSILON)) + w["bias"]
