"""MobileNetV1 (alpha 0.25, 224 x 224) with its ImageNet weights, as the command line takes it.

Howard et al. 2017, https://arxiv.org/abs/1704.04861, in the layout of Keras. The folder
../shared/imagenet beside the repository holds the weights; it is no part of the project.
"""

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from PIL import Image
from safetensors.numpy import load_file

import jaxcam

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "imagenet"
LAYER = "conv_pw_13"  # the last before the global average pool
_SIDE, _CROP = 256, 224
_FEATURES = (16, 32, 32, 64, 64, *[128] * 6, 256, 256)
_STRIDED = (2, 4, 6, 12)  # blocks whose depthwise convolution halves the sides
_LEAVES = {  # of Keras, to the collection and the name in Flax
    "kernel": ("params", "kernel"),
    "depthwise_kernel": ("params", "kernel"),
    "bias": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


class Depthwise(nn.Module):
    """A 3 x 3 convolution of every channel alone, with the padding "SAME" for even sizes.

    As nine shifted products, since XLA's grouped convolution takes nine times as long on a CPU.
    """

    stride: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], 1))
        height, width = x.shape[1:3]
        before = 2 - self.stride  # strided layers are padded below and to the right alone
        x = jnp.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
        return sum(
            x[:, i : i + height : self.stride, j : j + width : self.stride]
            * kernel[i, j].reshape(1, 1, 1, -1)
            for i, j in itertools.product(range(3), range(3))
        )


class ConvBnRelu6(nn.Module):
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x):
        norm = nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")
        return nn.relu6(norm(self.conv(name="conv")(x)))


class MobileNet(nn.Module):
    """Layers carry the names of Keras and return what follows their ReLU6."""

    @nn.compact
    def __call__(self, x):
        x = ConvBnRelu6(partial(nn.Conv, 8, (3, 3), 2, use_bias=False), name="conv1")(x)
        for block, features in enumerate(_FEATURES, start=1):
            stride = 2 if block in _STRIDED else 1
            x = ConvBnRelu6(partial(Depthwise, stride), name=f"conv_dw_{block}")(x)
            pointwise = partial(nn.Conv, features, (1, 1), use_bias=False)
            x = ConvBnRelu6(pointwise, name=f"conv_pw_{block}")(x)
        x = x.mean(axis=(1, 2), keepdims=True)
        return nn.Conv(1000, (1, 1), name="conv_preds")(x)[:, 0, 0]


def model() -> jaxcam.Model:
    """The factory for `--model tests.mobilenet:model`."""
    return load(FOLDER)


def load(folder: Path) -> jaxcam.Model:
    """Reads the weights and the class names from a folder."""
    weights = load_file(folder / "mobilenet_v1_025_224.safetensors")
    return jaxcam.Model(
        apply_fn=jaxcam.from_linen(MobileNet()),
        variables=traverse_util.unflatten_dict(dict(map(_variable, weights, weights.values()))),
        preprocess=preprocess,
        class_names=json.loads((folder / "classes.json").read_text()),
        display=lambda image: (image + 1) / 2,
    )


def preprocess(picture: Image.Image) -> np.ndarray:
    """Resizes the short side to 256, crops 224 x 224 in the centre, scales to [-1, 1]."""
    scale = _SIDE / min(picture.size)
    width, height = (round(scale * side) for side in picture.size)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    cropped = resized.crop((left, top, left + _CROP, top + _CROP))
    return np.asarray(cropped, np.float32) / 127.5 - 1


def _variable(key: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """`conv_pw_13_bn/gamma` of Keras becomes `params/conv_pw_13/bn/scale`."""
    layer, leaf = key.split("/")
    collection, name = _LEAVES[leaf]
    if layer == "conv_preds":
        return (collection, layer, name), value
    part = "bn" if layer.endswith("_bn") else "conv"
    return (collection, layer.removesuffix("_bn"), part, name), value
