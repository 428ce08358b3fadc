"""Canvases: one whole handwritten digit among pieces of other digits, with its box known."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SIDE = 64
_PIECES = 5
_DIGIT_SIDES = (24, 30)  # smallest and largest side of a digit, in pixels
_PIECE_OF_DIGIT = 1 / 2  # a piece is cut from a corner and keeps this share of each side
_TRIES = 20


class Box(NamedTuple):
    """The rectangle of the whole digit: pixels `[top, bottom)` by `[left, right)`."""

    top: int
    left: int
    bottom: int
    right: int

    def mask(self) -> np.ndarray:
        """Returns the box as a boolean image `[64, 64]`, True inside."""
        inside = np.zeros((SIDE, SIDE), bool)
        inside[self.top : self.bottom, self.left : self.right] = True
        return inside

    def overlaps(self, other: "Box") -> bool:
        """Tells whether the two boxes share a pixel."""
        rows = self.top < other.bottom and other.top < self.bottom
        columns = self.left < other.right and other.left < self.right
        return rows and columns


class Digits(NamedTuple):
    """Handwritten digits: images `[n, 8, 8]` in [0, 1] and labels `[n]`."""

    images: np.ndarray
    labels: np.ndarray


class Canvases(NamedTuple):
    """Images `[n, 64, 64, 1]` in [0, 1], labels `[n]` and one box per image."""

    images: np.ndarray
    labels: np.ndarray
    boxes: list[Box]


def load_digits(seed: int = 0) -> tuple[Digits, Digits]:
    """Loads scikit-learn's digits, split into 1437 to train on and 360 never trained on.

    The digits are those of 43 people, in the UCI collection
    https://archive.ics.uci.edu/dataset/80. Needs the `train` extra.
    """
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images = pixels[order].reshape(-1, 8, 8).astype(np.float32) / 16
    labels = labels[order]
    return Digits(images[:1437], labels[:1437]), Digits(images[1437:], labels[1437:])


def draw(digits: Digits, count: int, seed: int) -> Canvases:
    """Draws `count` canvases. The same seed draws the same canvases."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    drawn = [_canvas(digits, label, rng) for label in labels.tolist()]
    images = np.stack([image for image, _ in drawn])[..., None]
    return Canvases(images, labels, [box for _, box in drawn])


def batches(digits: Digits, size: int, seed: int) -> Iterator[Canvases]:
    """Yields fresh canvases without end, `size` at a time."""
    while True:
        yield draw(digits, size, seed)
        seed += 1


def _canvas(digits: Digits, label: int, rng: np.random.Generator) -> tuple[np.ndarray, Box]:
    canvas = np.zeros((SIDE, SIDE), np.float32)
    picture = _picture(rng.choice(digits.images[digits.labels == label]), rng)
    box = _place(picture.shape, rng)
    _paint(canvas, picture, box)
    others = digits.images[digits.labels != label]
    for _ in range(_PIECES):
        piece = _piece(_picture(rng.choice(others), rng), rng)
        # A crowded canvas may leave no room beside the digit: then it has a piece less.
        places = (_place(piece.shape, rng) for _ in range(_TRIES))
        place = next((place for place in places if not place.overlaps(box)), None)
        if place is not None:
            _paint(canvas, piece, place)
    return canvas, box


def _picture(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    side = int(rng.integers(_DIGIT_SIDES[0], _DIGIT_SIDES[1] + 1))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(large.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR))


def _piece(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = round(len(picture) * _PIECE_OF_DIGIT)
    top, left = rng.integers(0, 2, 2) * (len(picture) - side)
    return picture[top : top + side, left : left + side]


def _place(shape: tuple[int, ...], rng: np.random.Generator) -> Box:
    height, width = shape
    top, left = rng.integers(0, SIDE - height + 1), rng.integers(0, SIDE - width + 1)
    return Box(int(top), int(left), int(top) + height, int(left) + width)


def _paint(canvas: np.ndarray, picture: np.ndarray, box: Box) -> None:
    window = canvas[box.top : box.bottom, box.left : box.right]
    np.maximum(window, picture, out=window)
