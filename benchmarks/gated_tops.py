"""Tops of known networks with squeeze-and-excitation, as in `tops.py`."""

from collections.abc import Callable

import jax
import numpy as np
from tops import (
    CLASSES,
    Top,
    activations,
    convolved,
    convolved_in_torch,
    efficientnet_b0,
    tensors,
    weights,
)


def efficientnet_b0_gate() -> Top:
    """Squeeze-and-excitation on 7x7x1152, the 1x1 convolution of its block, and what follows."""
    squeeze, excite = weights(1152, 48, fan_in=1152), weights(48, 1152, fan_in=48)
    project = weights(1152, 320, fan_in=1152)
    after = efficientnet_b0()

    def in_jax(a):
        gate = jax.nn.sigmoid(jax.nn.silu(a.mean((0, 1)) @ squeeze) @ excite)
        return after.in_jax((a * gate) @ project)

    def in_torch(a):
        import torch
        import torch.nn.functional as F

        down, up, last = tensors(squeeze, excite, project)
        return after.in_torch((a * torch.sigmoid(F.silu(a.mean((0, 1)) @ down) @ up)) @ last)

    return Top(activations(7, 7, 1152), in_jax, in_torch)


def efficientnet_b0_silu_gate() -> Top:
    """The SiLU before that gate, and all that follows, on 7x7x1152."""
    after = efficientnet_b0_gate()

    def in_torch(a):
        import torch.nn.functional as F

        return after.in_torch(F.silu(a))

    return Top(activations(7, 7, 1152), lambda a: after.in_jax(jax.nn.silu(a)), in_torch)


def efficientnet_b0_block() -> Top:
    """The whole last block, and what follows, on 7x7x192."""
    expand, kernel = weights(192, 1152, fan_in=192), weights(3, 3, 1, 1152, fan_in=9)
    after = efficientnet_b0_silu_gate()

    def in_jax(a):
        return after.in_jax(convolved(jax.nn.silu(a @ expand), kernel))

    def in_torch(a):
        import torch.nn.functional as F

        wide = F.silu(a @ tensors(expand)[0])
        return after.in_torch(convolved_in_torch(wide, kernel))

    return Top(activations(7, 7, 192), in_jax, in_torch)


def mobilenet_v3_block() -> Top:
    """The last block of MobileNetV3-Large, the 1x1 convolution to 960, and what follows."""
    expand, kernel = weights(160, 960, fan_in=160), weights(5, 5, 1, 960, fan_in=25)
    squeeze, excite = weights(960, 240, fan_in=960), weights(240, 960, fan_in=240)
    project, mix = weights(960, 160, fan_in=960), weights(160, 960, fan_in=160)
    wide, dense = weights(960, 1280, fan_in=960), weights(1280, CLASSES, fan_in=1280)

    def in_jax(a):
        x = jax.nn.hard_swish(convolved(jax.nn.hard_swish(a @ expand), kernel))
        gate = jax.nn.hard_sigmoid(jax.nn.relu(x.mean((0, 1)) @ squeeze) @ excite)
        x = jax.nn.hard_swish((a + (x * gate) @ project) @ mix).mean((0, 1))
        return jax.nn.hard_swish(x @ wide) @ dense

    def in_torch(a):
        # PyTorch's own have no derivatives forward of those backward.
        sigmoid = lambda x: (x + 3).clamp(0, 6) / 6  # noqa: E731
        swish = lambda x: x * sigmoid(x)  # noqa: E731
        up, down, out, back, last, head = tensors(expand, squeeze, excite, project, mix, wide)
        x = swish(convolved_in_torch(swish(a @ up), kernel))
        gate = sigmoid((x.mean((0, 1)) @ down).relu() @ out)
        x = swish((a + (x * gate) @ back) @ last).mean((0, 1))
        return swish(x @ head) @ tensors(dense)[0]

    return Top(activations(7, 7, 160), in_jax, in_torch)


def se_resnet50() -> Top:
    """The last block of SE-ResNet-50, pool and dense layer on 7x7x2048."""
    down, up = weights(2048, 512, fan_in=2048), weights(512, 2048, fan_in=512)
    kernel, dense = weights(3, 3, 512, 512, fan_in=4608), weights(2048, CLASSES, fan_in=2048)
    squeeze, excite = weights(2048, 128, fan_in=2048), weights(128, 2048, fan_in=128)

    def in_jax(a):
        x = jax.nn.relu(convolved(jax.nn.relu(a @ down), kernel)) @ up
        gate = jax.nn.sigmoid(jax.nn.relu(x.mean((0, 1)) @ squeeze) @ excite)
        return jax.nn.relu(a + x * gate).mean((0, 1)) @ dense

    def in_torch(a):
        w_down, w_up, w_squeeze, w_excite, last = tensors(down, up, squeeze, excite, dense)
        x = convolved_in_torch((a @ w_down).relu(), kernel).relu() @ w_up
        gate = ((x.mean((0, 1)) @ w_squeeze).relu() @ w_excite).sigmoid()
        return (a + x * gate).relu().mean((0, 1)) @ last

    return Top(np.maximum(activations(7, 7, 2048), 0), in_jax, in_torch)


def regnet_y() -> Top:
    """The last block of RegNetY-4GF, of groups of 64, pool and dense layer on 7x7x1088."""
    width = 1088
    first, last = (weights(width, width, fan_in=width) for _ in range(2))
    kernel, dense = weights(3, 3, 64, width, fan_in=576), weights(width, CLASSES, fan_in=width)
    squeeze, excite = weights(width, 272, fan_in=width), weights(272, width, fan_in=272)

    def in_jax(a):
        x = jax.nn.relu(convolved(jax.nn.relu(a @ first), kernel))
        gate = jax.nn.sigmoid(jax.nn.relu(x.mean((0, 1)) @ squeeze) @ excite)
        return jax.nn.relu(a + (x * gate) @ last).mean((0, 1)) @ dense

    def in_torch(a):
        w_first, w_last, w_squeeze, w_excite, head = tensors(first, last, squeeze, excite, dense)
        x = convolved_in_torch((a @ w_first).relu(), kernel).relu()
        gate = ((x.mean((0, 1)) @ w_squeeze).relu() @ w_excite).sigmoid()
        return (a + (x * gate) @ w_last).relu().mean((0, 1)) @ head

    return Top(np.maximum(activations(7, 7, width), 0), in_jax, in_torch)


GATED_TOPS: dict[str, Callable[[], Top]] = {
    "EfficientNet-B0, before its last gate, 7x7x1152": efficientnet_b0_gate,
    "EfficientNet-B0, before the SiLU of its last gate, 7x7x1152": efficientnet_b0_silu_gate,
    "EfficientNet-B0, its last block, 7x7x192": efficientnet_b0_block,
    "MobileNetV3-Large, its last block, 7x7x160": mobilenet_v3_block,
    "SE-ResNet-50, its last block, 7x7x2048": se_resnet50,
    "RegNetY-4GF, its last block, 7x7x1088": regnet_y,
}
