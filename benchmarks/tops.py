"""What follows a late layer of known networks, in JAX and in PyTorch, with random weights.

Each top is made as `(activations, logits in JAX, the same in PyTorch)`. Activations are
channels-last; the PyTorch functions take them so too, and permute where PyTorch wants channels
first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CLASSES = 1000
_rng = np.random.default_rng(0)


class Top(NamedTuple):
    """The end of a network: logits as a function of the activations of a layer."""

    activations: np.ndarray
    in_jax: Callable[[Any], Any]
    in_torch: Callable[[Any], Any]
    timed_channels: int | None = None  # so many are timed, and stand for all


def _weights(*shape: int, fan_in: int) -> np.ndarray:
    return (_rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def _activations(*shape: int) -> np.ndarray:
    return _rng.normal(size=shape).astype(np.float32)


def _tensors(*arrays: np.ndarray) -> list[Any]:
    import torch

    return [torch.from_numpy(a) for a in arrays]


def resnet50() -> Top:
    """Global average pool and dense layer on 7x7x2048, after a ReLU."""
    dense = _weights(2048, CLASSES, fan_in=2048)

    def in_torch(a):
        return a.mean((0, 1)) @ _tensors(dense)[0]

    activations = np.maximum(_activations(7, 7, 2048), 0)
    return Top(activations, lambda a: a.mean((0, 1)) @ dense, in_torch)


def vgg16() -> Top:
    """Max-pool and three dense layers with ReLU on conv5_3, 14x14x512."""
    shapes = [(25088, 4096), (4096, 4096), (4096, CLASSES)]
    layers = [_weights(*shape, fan_in=shape[0] // 2) for shape in shapes]

    def in_jax(a):
        x = lax.reduce_window(a, -jnp.inf, lax.max, (2, 2, 1), (2, 2, 1), "VALID").reshape(-1)
        return jax.nn.relu(jax.nn.relu(x @ layers[0]) @ layers[1]) @ layers[2]

    def in_torch(a):
        import torch.nn.functional as F

        first, second, third = _tensors(*layers)
        x = F.max_pool2d(a.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0).reshape(-1)
        return F.relu(F.relu(x @ first) @ second) @ third

    return Top(np.maximum(_activations(14, 14, 512), 0), in_jax, in_torch)


def efficientnet_b0() -> Top:
    """1x1 convolution to 1280, SiLU, pool and dense layer on 7x7x320."""
    mix, dense = _weights(320, 1280, fan_in=320), _weights(1280, CLASSES, fan_in=1280)

    def in_torch(a):
        import torch.nn.functional as F

        wide, last = _tensors(mix, dense)
        return F.silu(a @ wide).mean((0, 1)) @ last

    in_jax = lambda a: jax.nn.silu(a @ mix).mean((0, 1)) @ dense  # noqa: E731
    return Top(_activations(7, 7, 320), in_jax, in_torch)


def efficientnet_b0_gate() -> Top:
    """Squeeze-and-excitation on 7x7x1152, the 1x1 convolution of its block, and what follows."""
    squeeze, excite = _weights(1152, 48, fan_in=1152), _weights(48, 1152, fan_in=48)
    project = _weights(1152, 320, fan_in=1152)
    after = efficientnet_b0()

    def in_jax(a):
        gate = jax.nn.sigmoid(jax.nn.silu(a.mean((0, 1)) @ squeeze) @ excite)
        return after.in_jax((a * gate) @ project)

    def in_torch(a):
        import torch
        import torch.nn.functional as F

        down, up, last = _tensors(squeeze, excite, project)
        return after.in_torch((a * torch.sigmoid(F.silu(a.mean((0, 1)) @ down) @ up)) @ last)

    return Top(_activations(7, 7, 1152), in_jax, in_torch)


def efficientnet_b0_silu_gate() -> Top:
    """The SiLU before that gate, and all that follows, on 7x7x1152."""
    after = efficientnet_b0_gate()

    def in_torch(a):
        import torch.nn.functional as F

        return after.in_torch(F.silu(a))

    return Top(_activations(7, 7, 1152), lambda a: after.in_jax(jax.nn.silu(a)), in_torch)


def bit_resnet50() -> Top:
    """Group norm in 32 groups, ReLU, pool and dense layer on 7x7x2048."""
    dense, shape = _weights(2048, CLASSES, fan_in=2048), (7, 7, 32, 64)

    def in_jax(a):
        groups = a.reshape(shape)
        mean, square = (x.mean((0, 1, 3), keepdims=True) for x in (groups, groups**2))
        normed = (groups - mean) * lax.rsqrt(square - mean**2 + 1e-5)
        return jax.nn.relu(normed).reshape(a.shape).mean((0, 1)) @ dense

    def in_torch(a):
        import torch.nn.functional as F

        normed = F.group_norm(a.permute(2, 0, 1)[None], 32)[0]
        return F.relu(normed).mean((1, 2)) @ _tensors(dense)[0]

    return Top(_activations(7, 7, 2048), in_jax, in_torch)


def convnext_tiny() -> Top:
    """Pool, LayerNorm and dense layer on 7x7x768."""
    dense = _weights(768, CLASSES, fan_in=768)

    def in_torch(a):
        import torch.nn.functional as F

        return F.layer_norm(a.mean((0, 1)), (768,), eps=1e-6) @ _tensors(dense)[0]

    return Top(_activations(7, 7, 768), lambda a: _norm(a.mean((0, 1))) @ dense, in_torch)


def silu_block() -> Top:
    """A residual block of two 3x3 convolutions with SiLU, pool and dense layer on 14x14x64."""
    kernels = [_weights(3, 3, 64, 64, fan_in=576) for _ in range(2)]
    dense = _weights(64, CLASSES, fan_in=64)

    def conv(a, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(a[None], kernel, (1, 1), "SAME", dimension_numbers=numbers)[
            0
        ]

    def in_jax(a):
        hidden = jax.nn.silu(conv(a, kernels[0]))
        return jax.nn.silu(a + conv(hidden, kernels[1])).mean((0, 1)) @ dense

    def in_torch(a):
        import torch.nn.functional as F

        first, second = (k.permute(3, 2, 0, 1) for k in _tensors(*kernels))
        x = a.permute(2, 0, 1)[None]
        x = F.silu(x + F.conv2d(F.silu(F.conv2d(x, first, padding=1)), second, padding=1))
        return x[0].mean((1, 2)) @ _tensors(dense)[0]

    return Top(_activations(14, 14, 64), in_jax, in_torch)


def vit_base() -> Top:
    """The last block of a ViT-B/16 and its class-token head on 197x768."""
    width, heads = 768, 12
    qkv, project = (_weights(width, n * width, fan_in=width) for n in (3, 1))
    up = _weights(width, 4 * width, fan_in=width)
    down = _weights(4 * width, width, fan_in=4 * width)
    dense = _weights(width, CLASSES, fan_in=width)

    def in_jax(x):
        q, k, v = jnp.moveaxis((_norm(x) @ qkv).reshape(len(x), 3, heads, -1), 0, 2)
        scores = jax.nn.softmax(jnp.einsum("hqd,hkd->hqk", q, k) / np.float32(8.0))
        x = x + jnp.moveaxis(scores @ v, 0, 1).reshape(len(x), width) @ project
        x = x + jax.nn.gelu(_norm(x) @ up, approximate=False) @ down
        return _norm(x)[0] @ dense

    def in_torch(x):
        import torch
        import torch.nn.functional as F

        w_qkv, w_project, w_up, w_down, last = _tensors(qkv, project, up, down, dense)
        norm = lambda x: F.layer_norm(x, (width,), eps=1e-6)  # noqa: E731
        q, k, v = (norm(x) @ w_qkv).reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)
        scores = torch.softmax(q @ k.transpose(1, 2) / 8, -1)
        x = x + (scores @ v).permute(1, 0, 2).reshape(len(x), width) @ w_project
        x = x + F.gelu(norm(x) @ w_up) @ w_down
        return norm(x)[0] @ last

    return Top(_activations(197, width), in_jax, in_torch)


def vit_base_class_token() -> Top:
    """The same of the grid 14x14x768 alone: the class token stays as it is."""
    block, token = vit_base(), _activations(1, 768)

    def in_jax(a):
        return block.in_jax(jnp.concatenate([token, a.reshape(-1, 768)]))

    def in_torch(a):
        import torch

        return block.in_torch(torch.cat([*_tensors(token), a.reshape(-1, 768)]))

    return Top(_activations(14, 14, 768), in_jax, in_torch, timed_channels=24)


def _norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


TOPS: dict[str, Callable[[], Top]] = {
    "ResNet-50, 7x7x2048": resnet50,
    "VGG-16 conv5_3, 14x14x512": vgg16,
    "EfficientNet-B0, 7x7x320": efficientnet_b0,
    "EfficientNet-B0, before its last gate, 7x7x1152": efficientnet_b0_gate,
    "EfficientNet-B0, before the SiLU of its last gate, 7x7x1152": efficientnet_b0_silu_gate,
    "BiT-R50x1, before its last norm, 7x7x2048": bit_resnet50,
    "ConvNeXt-T, 7x7x768": convnext_tiny,
    "residual SiLU block, 14x14x64": silu_block,
    "ViT-B, last block, 197x768": vit_base,
    "ViT-B, last block, behind its class token, 14x14x768": vit_base_class_token,
}
