"""What the commands share: methods, the user's model and its images, and what they print to."""

import argparse
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.markup import escape
from rich.progress import track

from jaxcam._src import files, methods
from jaxcam._src.base import Model, WeightsFn
from jaxcam._src.cli.streams import console
from jaxcam._src.derivatives import closed_form
from jaxcam._src.files import UsageError
from jaxcam._src.names import no_such, printable
from jaxcam._src.render import rgb
from jaxcam._src.weights.curvature import grad_cam_plus_plus

METHODS: dict[str, Callable[..., Any]] = methods.METHODS | {
    "grad_cam_plus_plus_closed": functools.partial(grad_cam_plus_plus, derivatives_fn=closed_form)
}


def tracked(items: Sequence[Any], title: str) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    return track(items, escape(printable(title)), console=console) if console.is_terminal else items


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
    image = files.as_the_model_takes_it(model, Image.new("RGB", (256, 256)))
    return jax.ShapeDtypeStruct(image.shape, image.dtype)


def check_picture(model: Model) -> None:
    """Refuses a model of something else than pictures, over which no heatmap can be laid."""
    shape = blank(model).shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UsageError(
            f"preprocess returns an image {list(shape)}; wanted a picture [H, W, 3] or [H, W, 1], "
            "over which maps can be laid; in Python jaxcam.explainer takes signals and volumes too"
        )


def try_shapes(explain: Callable[..., Any], model: Model, target: int | None) -> Any:
    """What `explain` returns, without its numbers. If jitted, its trace serves the images too."""
    with files.one_line("cannot explain"):
        shapes = jax.eval_shape(explain, model.variables, blank(model), target)
    logits = shapes.logits
    if getattr(logits, "shape", None) != (len(model.class_names),):
        raise UsageError(
            f"the model returns logits {jax.tree.map(jnp.shape, logits)} and has "
            f"{len(model.class_names)} class names; give one name per logit"
        )
    return shapes
