"""What the commands share: the user's model, its images and its classes."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.markup import escape
from rich.progress import track

from jaxcam._src import files
from jaxcam._src.base import Model
from jaxcam._src.cli.streams import console
from jaxcam._src.files import UsageError
from jaxcam._src.names import printable
from jaxcam._src.render import rgb


def tracked(items: Sequence[Any], title: str) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    return track(items, escape(printable(title)), console=console) if console.is_terminal else items


def classes_of(model: Model, score: str) -> Sequence[str]:
    """The names of the targets of a score; a binary one has two, though the model has one logit."""
    if not score.startswith("binary_") or len(model.class_names) != 1:
        return model.class_names
    (name,) = model.class_names
    return (f"not {name}", name)


def target_of(options: argparse.Namespace, classes: Sequence[str]) -> int | None:
    """The class that the user named; None for the top class."""
    return None if options.target is None else files.find_class(options.target, classes)


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
