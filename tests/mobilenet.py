"""MobileNetV1 (alpha 0.25, 224 x 224) with its ImageNet weights, as the command line takes it.

Howard et al. 2017, https://arxiv.org/abs/1704.04861, in the layout of Keras. The folder
../shared/imagenet beside the repository holds the weights; it is no part of the project.
"""

import json
from functools import partial
from pathlib import Path

import flax.linen as nn
import numpy as np
from flax import traverse_util
from PIL import Image
from safetensors.numpy import load_file

import jaxcam
from jaxcam._src.demo.efficientnet import ConvNorm, Depthwise

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


class MobileNet(nn.Module):
    """Layers carry the names of Keras and return what follows their ReLU6."""

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(partial(nn.Conv, 8, (3, 3), 2, use_bias=False), name="conv1")(x)
        for block, features in enumerate(_FEATURES, start=1):
            stride = 2 if block in _STRIDED else 1
            x = ConvNorm(partial(Depthwise, 3, stride), name=f"conv_dw_{block}")(x)
            pointwise = partial(nn.Conv, features, (1, 1), use_bias=False)
            x = ConvNorm(pointwise, name=f"conv_pw_{block}")(x)
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


def photographs(model: jaxcam.Model, count: int | None = None) -> np.ndarray:
    """The photographs as a model takes them, `[n, H, W, 3]`: the first ones, or all."""
    paths = sorted((FOLDER / "images").iterdir())[:count]
    return np.stack([model.preprocess(Image.open(path).convert("RGB")) for path in paths])


def preprocess(picture: Image.Image) -> np.ndarray:
    """Resizes the short side to 256, crops 224 x 224 in the centre, scales to [-1, 1]."""
    scale = _SIDE / min(picture.size)
    width, height = (round(scale * side) for side in picture.size)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    cropped = resized.crop((left, top, left + _CROP, top + _CROP))
    return np.asarray(cropped, np.float32) / 127.5 - 1


def _variable(key: str, value: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """`conv_pw_13_bn/gamma` of Keras becomes `params/conv_pw_13/norm/scale`."""
    layer, leaf = key.split("/")
    collection, name = _LEAVES[leaf]
    if layer == "conv_preds":
        return (collection, layer, name), value
    part = "norm" if layer.endswith("_bn") else "conv"
    value = value.swapaxes(2, 3) if leaf == "depthwise_kernel" else value
    return (collection, layer.removesuffix("_bn"), part, name), value
