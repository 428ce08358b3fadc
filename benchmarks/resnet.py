"""ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385); in PyTorch: resnet_torch.py.

Random weights, the same in both; batch norms are folded into the convolutions, as in deployment.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

CLASSES = 1000
WIDTHS = (64, 128, 256, 512)
BLOCKS = 2  # in each stage


def convolutions() -> Iterator[tuple[str, int, int, int, int]]:
    """Name, window, channels in and out, and stride of every convolution."""
    yield "stem", 7, 3, 64, 2
    width = 64
    for stage, after in enumerate(WIDTHS, start=1):
        for block in range(BLOCKS):
            stride = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}.{block}"
            yield f"{name}.conv1", 3, width, after, stride
            yield f"{name}.conv2", 3, after, after, 1
            if stride > 1:
                yield f"{name}.shortcut", 1, width, after, stride
            width = after


def weights(seed: int) -> dict[str, Any]:
    """Kernels `[h, w, in, out]` and biases by name, scaled to keep the size of activations."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, window, before, after, _ in convolutions():
        scale = (2 / (window * window * before)) ** 0.5 * (0.5 if "conv2" in name else 1)
        kernel = rng.standard_normal((window, window, before, after), np.float32)
        bias = rng.standard_normal(after, np.float32)
        found[name] = {"kernel": np.float32(scale) * kernel, "bias": np.float32(0.1) * bias}
    dense = rng.standard_normal((WIDTHS[-1], CLASSES), np.float32) / np.float32(WIDTHS[-1] ** 0.5)
    return found | {"dense": dense}


def apply_fn(w: dict[str, Any], image: jax.Array) -> jax.Array:
    """Logits of one image `[H, W, 3]`; the four stages are tagged."""
    strides = {name: stride for name, *_, stride in convolutions()}

    def conv(name: str, x: jax.Array) -> jax.Array:
        kernel, stride = w[name]["kernel"], strides[name]
        pad = (kernel.shape[0] - 1) // 2
        numbers, padding = ("NHWC", "HWIO", "NHWC"), [(pad, pad)] * 2
        x = jax.lax.conv_general_dilated(
            x[None], kernel, (stride, stride), padding, dimension_numbers=numbers
        )
        return x[0] + w[name]["bias"]

    x = jax.nn.relu(conv("stem", image))
    around = [(1, 1), (1, 1), (0, 0)]
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3, 3, 1), (2, 2, 1), around)
    for stage in range(1, len(WIDTHS) + 1):
        for block in range(BLOCKS):
            name = f"layer{stage}.{block}"
            y = conv(f"{name}.conv2", jax.nn.relu(conv(f"{name}.conv1", x)))
            skipped = conv(f"{name}.shortcut", x) if f"{name}.shortcut" in w else x
            x = jax.nn.relu(y + skipped)
        x = jaxcam.tag(x, f"layer{stage}")
    return x.mean((0, 1)) @ w["dense"]
