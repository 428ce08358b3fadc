"""Where the object of a picture lies, by boxes or by a mask, followed through `preprocess`."""

from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxcam._src.base import Model
from jaxcam._src.files import UsageError, as_the_model_takes_it, one_line, open_image

_DARK = 127  # of 255: no part of an object
Box: TypeAlias = tuple[float, float, float, float]


class Object(NamedTuple):
    """The ground truth of a picture: boxes or a mask.

    Attributes:
      boxes: `(xmin, ymin, xmax, ymax)`, edges in pixels of the upright picture, so that its whole
        is `(0, 0, width, height)`; the object is what any of them holds.
      mask: path of a picture of the same size, bright on the object; in place of boxes.
    """

    boxes: tuple[Box, ...] = ()
    mask: str = ""


def inside_of(truth: Object, model: Model, picture: Any, root: Path) -> np.ndarray:
    """Where the object lies in the image as the model takes it: True inside, `[*size]`.

    A picture that is white on the object and black elsewhere goes through `preprocess` as the
    picture itself does, so that whatever resizes or crops one does so with the other.

    Raises:
      UsageError: a box reaches out of the picture, the mask is of another size, `preprocess` does
        not tell white from black, or leaves nothing of the object.
    """
    drawn = _mask(root / truth.mask, picture) if truth.mask else _drawn(truth.boxes, picture)
    black, white, found = (
        _prepared(model, shown) for shown in (np.zeros_like(drawn), np.ones_like(drawn), drawn)
    )
    to_white, to_black = (abs(found - end).sum(-1) for end in (white, black))
    tells = np.isfinite(to_white + to_black) & (black != white).any(-1)
    if not tells.any():  # where some pixels do not, they are padding
        raise UsageError(
            "preprocess makes the same of a white and of a black picture, so that no object can be "
            "followed through it; leave out the boxes or masks"
        )
    inside = tells & (to_white < to_black)
    if not inside.any():
        raise UsageError("preprocess leaves nothing of the object; leave out the image")
    return inside


def _prepared(model: Model, shown: np.ndarray) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray((255 * shown).astype(np.uint8)).convert("RGB")
    with one_line("preprocess of a mask"):
        return as_the_model_takes_it(model, picture).astype(np.float64)


def _drawn(boxes: tuple[Box, ...], picture: Any) -> np.ndarray:
    drawn = np.zeros((picture.height, picture.width), bool)
    for box in boxes:
        xmin, ymin, xmax, ymax = box
        if not (0 <= xmin < xmax <= picture.width and 0 <= ymin < ymax <= picture.height):
            raise UsageError(
                f"the box {_text(box)} does not lie in the picture of {picture.width} x "
                f"{picture.height} pixels; wanted xmin < xmax and ymin < ymax inside it"
            )
        rows, columns = slice(floor(ymin), ceil(ymax)), slice(floor(xmin), ceil(xmax))
        drawn[rows, columns] = True
    return drawn


def _text(box: Box) -> str:
    return ", ".join(f"{x:g}" for x in box)


def _mask(path: Path, picture: Any) -> np.ndarray:
    mask = open_image(path)
    if mask.size != picture.size:
        wide, high = mask.size
        raise UsageError(
            f"the mask {path} has {wide} x {high} pixels, and the picture {picture.width} x "
            f"{picture.height}; give one of the same size"
        )
    bright = np.asarray(mask).max(-1)
    if bright.max() <= _DARK:
        raise UsageError(
            f"the mask {path} is nowhere brighter than {bright.max()} of 255; wanted white on the "
            "object and black elsewhere"
        )
    return bright > _DARK
