"""EfficientNet-Lite0 in Flax linen, and its variables out of the file of PyTorch."""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from itertools import product, starmap
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float


class Stage(NamedTuple):
    """What the blocks of one stage share.

    Attributes:
      blocks: how many there are.
      expansion: how many times as many channels a block has inside.
      features: channels that leave a block.
      stride: of the first block; that of the others is 1.
      side: of the depthwise kernels.
    """

    blocks: int
    expansion: int
    features: int
    stride: int
    side: int


STAGES = (
    Stage(1, 1, 16, 1, 3),
    Stage(2, 6, 24, 2, 3),
    Stage(2, 6, 40, 2, 5),
    Stage(3, 6, 80, 2, 3),
    Stage(3, 6, 112, 1, 5),
    Stage(4, 6, 192, 2, 5),
    Stage(1, 6, 320, 1, 3),
)
BLOCKS = {  # with the stride of each
    f"block{number}_{index}": (stage, 1 if index else stage.stride)
    for number, stage in enumerate(STAGES, start=1)
    for index in range(stage.blocks)
}
_ENDS = {  # layers before and after the blocks, in the file and here
    "_conv_stem": ("stem", "conv"),
    "_bn0": ("stem", "norm"),
    "_conv_head": ("head", "conv"),
    "_bn1": ("head", "norm"),
    "_fc": ("classifier",),
}
_INSIDE = {  # layers of a block
    "_expand_conv": ("expand", "conv"),
    "_bn0": ("expand", "norm"),
    "_depthwise_conv": ("depthwise", "conv"),
    "_bn1": ("depthwise", "norm"),
    "_project_conv": ("project", "conv"),
    "_bn2": ("project", "norm"),
}
_LEAVES = {  # but for kernels
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


class Depthwise(nn.Module):
    """A convolution of each channel alone, padded as "SAME".

    A sum of shifted products: XLA's grouped convolution takes six times as long on a CPU.
    """

    side: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.side, self.side, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        height, width = x.shape[1:3]
        strides = (self.stride, self.stride)
        rows, columns = jax.lax.padtype_to_pads((height, width), shape[:2], strides, "SAME")
        x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))

        def shifted(i: int, j: int) -> jax.Array:
            window = x[:, i : i + height : self.stride, j : j + width : self.stride]
            return window * kernel[i : i + 1, j : j + 1]

        return reduce(jnp.add, starmap(shifted, product(range(self.side), repeat=2)))


class ConvNorm(nn.Module):
    """A convolution, a batch norm and what follows them."""

    conv: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array] = nn.relu6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="norm")
        return self.activation(norm(self.conv(name="conv")(x)))


class Block(nn.Module):
    """Channels are made more, each is convolved alone, and they are made fewer; with a shortcut.

    Inverted residuals: Sandler et al. 2018, https://arxiv.org/abs/1801.04381.
    """

    stage: Stage
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.stage.expansion > 1:
            y = ConvNorm(_pointwise(self.stage.expansion * x.shape[-1]), name="expand")(y)
        y = ConvNorm(partial(Depthwise, self.stage.side, self.stride), name="depthwise")(y)
        y = ConvNorm(_pointwise(self.stage.features), _identity, name="project")(y)
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 with ReLU6 and without squeeze-and-excitation.

    Tan and Le 2019, https://arxiv.org/abs/1905.11946; made lite in
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n 1000"]:
        """Returns the logits of ImageNet's classes."""
        stem = partial(nn.Conv, 32, (3, 3), (2, 2), use_bias=False)
        x = ConvNorm(stem, name="stem")(images)
        for name, (stage, stride) in BLOCKS.items():
            x = Block(stage, stride, name=name)(x)
        x = ConvNorm(_pointwise(1280), name="head")(x)
        return nn.Dense(1000, name="classifier")(x.mean(axis=(1, 2)))


def variables_of(tensors: Mapping[str, np.ndarray]) -> dict:
    """The tensors of the file, by the names of PyTorch, as the collections of the module."""
    used = {name: x for name, x in tensors.items() if not name.endswith("num_batches_tracked")}
    return traverse_util.unflatten_dict(dict(map(_variable, used, used.values())))


def _pointwise(features: int) -> Callable[..., nn.Module]:
    return partial(nn.Conv, features, (1, 1), use_bias=False)


def _identity(x: jax.Array) -> jax.Array:
    return x


def _variable(name: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """`_blocks.1._bn0.weight` becomes `params/block2_0/expand/norm/scale`."""
    *place, leaf = name.split(".")
    collection, leaf = _LEAVES[leaf]
    if value.ndim > 1:  # [out, in, h, w] or [out, in]
        leaf, value = "kernel", np.moveaxis(value, (0, 1), (-1, -2))
    return (collection, *_layer(*place), leaf), np.array(value)


def _layer(part: str, *inside: str) -> tuple[str, ...]:
    """The path of a layer; the file numbers the blocks of all stages together."""
    if part != "_blocks":
        return _ENDS[part]
    number, part = inside
    return (list(BLOCKS)[int(number)], *_INSIDE[part])
