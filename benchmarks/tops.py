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


def weights(*shape: int, fan_in: int) -> np.ndarray:
    """Random numbers, scaled so that what they are applied to keeps its size."""
    return (_rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def activations(*shape: int) -> np.ndarray:
    """Random numbers, normal."""
    return _rng.normal(size=shape).astype(np.float32)


def tensors(*arrays: np.ndarray) -> list[Any]:
    """The same arrays for PyTorch."""
    import torch

    return [torch.from_numpy(a) for a in arrays]


def resnet50() -> Top:
    """Global average pool and dense layer on 7x7x2048, after a ReLU."""
    dense = weights(2048, CLASSES, fan_in=2048)

    def in_torch(a):
        return a.mean((0, 1)) @ tensors(dense)[0]

    return Top(np.maximum(activations(7, 7, 2048), 0), lambda a: a.mean((0, 1)) @ dense, in_torch)


def vgg16() -> Top:
    """Max-pool and three dense layers with ReLU on conv5_3, 14x14x512."""
    shapes = [(25088, 4096), (4096, 4096), (4096, CLASSES)]
    layers = [weights(*shape, fan_in=shape[0] // 2) for shape in shapes]

    def in_jax(a):
        x = lax.reduce_window(a, -jnp.inf, lax.max, (2, 2, 1), (2, 2, 1), "VALID").reshape(-1)
        return jax.nn.relu(jax.nn.relu(x @ layers[0]) @ layers[1]) @ layers[2]

    def in_torch(a):
        import torch.nn.functional as F

        first, second, third = tensors(*layers)
        x = F.max_pool2d(a.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0).reshape(-1)
        return F.relu(F.relu(x @ first) @ second) @ third

    return Top(np.maximum(activations(14, 14, 512), 0), in_jax, in_torch)


def efficientnet_b0() -> Top:
    """1x1 convolution to 1280, SiLU, pool and dense layer on 7x7x320."""
    mix, dense = weights(320, 1280, fan_in=320), weights(1280, CLASSES, fan_in=1280)

    def in_torch(a):
        import torch.nn.functional as F

        wide, last = tensors(mix, dense)
        return F.silu(a @ wide).mean((0, 1)) @ last

    in_jax = lambda a: jax.nn.silu(a @ mix).mean((0, 1)) @ dense  # noqa: E731
    return Top(activations(7, 7, 320), in_jax, in_torch)


def bit_resnet50() -> Top:
    """Group norm in 32 groups, ReLU, pool and dense layer on 7x7x2048."""
    dense, shape = weights(2048, CLASSES, fan_in=2048), (7, 7, 32, 64)

    def in_jax(a):
        groups = a.reshape(shape)
        mean, square = (x.mean((0, 1, 3), keepdims=True) for x in (groups, groups**2))
        normed = (groups - mean) * lax.rsqrt(square - mean**2 + 1e-5)
        return jax.nn.relu(normed).reshape(a.shape).mean((0, 1)) @ dense

    def in_torch(a):
        import torch.nn.functional as F

        normed = F.group_norm(a.permute(2, 0, 1)[None], 32)[0]
        return F.relu(normed).mean((1, 2)) @ tensors(dense)[0]

    return Top(activations(7, 7, 2048), in_jax, in_torch)


def convnext_tiny() -> Top:
    """Pool, LayerNorm and dense layer on 7x7x768."""
    dense = weights(768, CLASSES, fan_in=768)

    def in_torch(a):
        import torch.nn.functional as F

        return F.layer_norm(a.mean((0, 1)), (768,), eps=1e-6) @ tensors(dense)[0]

    return Top(activations(7, 7, 768), lambda a: _norm(a.mean((0, 1))) @ dense, in_torch)


def silu_block() -> Top:
    """A residual block of two 3x3 convolutions with SiLU, pool and dense layer on 14x14x64."""
    kernels = [weights(3, 3, 64, 64, fan_in=576) for _ in range(2)]
    dense = weights(64, CLASSES, fan_in=64)

    def in_jax(a):
        hidden = jax.nn.silu(convolved(a, kernels[0]))
        return jax.nn.silu(a + convolved(hidden, kernels[1])).mean((0, 1)) @ dense

    def in_torch(a):
        import torch.nn.functional as F

        hidden = F.silu(convolved_in_torch(a, kernels[0]))
        x = F.silu(a + convolved_in_torch(hidden, kernels[1]))
        return x.mean((0, 1)) @ tensors(dense)[0]

    return Top(activations(14, 14, 64), in_jax, in_torch)


def vit_base() -> Top:
    """The last block of a ViT-B/16 and its class-token head on 197x768."""
    width, heads = 768, 12
    qkv, project = (weights(width, n * width, fan_in=width) for n in (3, 1))
    up = weights(width, 4 * width, fan_in=width)
    down = weights(4 * width, width, fan_in=4 * width)
    dense = weights(width, CLASSES, fan_in=width)

    def in_jax(x):
        q, k, v = jnp.moveaxis((_norm(x) @ qkv).reshape(len(x), 3, heads, -1), 0, 2)
        scores = jax.nn.softmax(jnp.einsum("hqd,hkd->hqk", q, k) / np.float32(8.0))
        x = x + jnp.moveaxis(scores @ v, 0, 1).reshape(len(x), width) @ project
        x = x + jax.nn.gelu(_norm(x) @ up, approximate=False) @ down
        return _norm(x)[0] @ dense

    def in_torch(x):
        import torch
        import torch.nn.functional as F

        w_qkv, w_project, w_up, w_down, last = tensors(qkv, project, up, down, dense)
        norm = lambda x: F.layer_norm(x, (width,), eps=1e-6)  # noqa: E731
        q, k, v = (norm(x) @ w_qkv).reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)
        scores = torch.softmax(q @ k.transpose(1, 2) / 8, -1)
        x = x + (scores @ v).permute(1, 0, 2).reshape(len(x), width) @ w_project
        x = x + F.gelu(norm(x) @ w_up) @ w_down
        return norm(x)[0] @ last

    return Top(activations(197, width), in_jax, in_torch)


def vit_base_class_token() -> Top:
    """The same of the grid 14x14x768 alone: the class token stays as it is."""
    block, token = vit_base(), activations(1, 768)

    def in_jax(a):
        return block.in_jax(jnp.concatenate([token, a.reshape(-1, 768)]))

    def in_torch(a):
        import torch

        return block.in_torch(torch.cat([*tensors(token), a.reshape(-1, 768)]))

    return Top(activations(14, 14, 768), in_jax, in_torch, timed_channels=24)


def convolved(a, kernel):
    """By a kernel `[height, width, channels of a group, features]`."""
    return lax.conv_general_dilated(
        a[None],
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=a.shape[-1] // kernel.shape[2],
    )[0]


def convolved_in_torch(a, kernel):
    """The same in PyTorch, of the same layouts."""
    import torch.nn.functional as F

    weight, groups = tensors(kernel)[0].permute(3, 2, 0, 1), a.shape[-1] // kernel.shape[2]
    return F.conv2d(a.permute(2, 0, 1)[None], weight, padding="same", groups=groups)[0].permute(
        1, 2, 0
    )


def _norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


TOPS: dict[str, Callable[[], Top]] = {
    "ResNet-50, 7x7x2048": resnet50,
    "VGG-16 conv5_3, 14x14x512": vgg16,
    "EfficientNet-B0, 7x7x320": efficientnet_b0,
    "BiT-R50x1, before its last norm, 7x7x2048": bit_resnet50,
    "ConvNeXt-T, 7x7x768": convnext_tiny,
    "residual SiLU block, 14x14x64": silu_block,
    "ViT-B, last block, 197x768": vit_base,
    "ViT-B, last block, behind its class token, 14x14x768": vit_base_class_token,
}
