"""What the commands share: methods, the user's model and its images, and what they print to."""

import argparse
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from jaxcam._src import files, methods
from jaxcam._src.base import Model, WeightsFn
from jaxcam._src.derivatives import closed_form
from jaxcam._src.files import UsageError
from jaxcam._src.names import no_such
from jaxcam._src.render import rgb
from jaxcam._src.weights.curvature import grad_cam_plus_plus

METHODS: dict[str, Callable[..., Any]] = methods.METHODS | {
    "grad_cam_plus_plus_closed": functools.partial(grad_cam_plus_plus, derivatives_fn=closed_form)
}
console = Console(stderr=True)  # for progress
results = Console()


def tracked(items: Sequence[Any], title: str) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    return track(items, title, console=console) if console.is_terminal else items


def method_of(options: argparse.Namespace) -> WeightsFn:
    """The method that the user named, with a key of the seed where it takes one."""
    if options.method not in METHODS:
        raise UsageError(no_such("method", options.method, METHODS))
    return methods.seeded(METHODS[options.method], options.seed)


def target_of(options: argparse.Namespace, model: Model) -> int | None:
    """The class that the user named; None for the top class."""
    if options.target is None:
        return None
    return files.find_class(options.target, model.class_names)


def displayed(model: Model, path: Path, image: np.ndarray) -> np.ndarray:
    """The picture that heatmaps are laid over, `[H, W, 3]`."""
    with files.one_line(f"display of {path}"):
        return rgb(np.asarray((model.display or _stretched)(image)))


def _stretched(image: np.ndarray) -> np.ndarray:  # in NumPy, which compiles nothing
    low, high = image.min(), image.max()
    return (image - low) / (high - low or 1)


def blank(model: Model) -> jax.ShapeDtypeStruct:
    """The shape of every image of the model."""
    image = np.asarray(model.preprocess(Image.new("RGB", (256, 256))))
    return jax.ShapeDtypeStruct(image.shape, image.dtype)


def try_shapes(explain: Callable[..., Any], model: Model, target: int | None) -> Any:
    """What `explain` returns, without its numbers. If jitted, its trace serves the images too."""
    with files.one_line("cannot explain"):
        shapes = jax.eval_shape(explain, model.variables, blank(model), target)
    logits = shapes.logits
    if logits.shape != (len(model.class_names),):
        raise UsageError(
            f"the model returns logits {list(logits.shape)} and has {len(model.class_names)} "
            "class names; give one name per logit"
        )
    return shapes
