"""The grid pointing game: of several photographs side by side, which one does the map show?

One photograph of each of several classes, each of which the model names correctly on its own; for
each class the share of its positive map in its own cell (Boehle et al. 2021,
https://arxiv.org/abs/2104.00032). Chance is one divided by the number of cells.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from jaxcam._src.arithmetic import as_floats, quotient


def draw_grids(
    labels: Int[np.ndarray, " images"], *, count: int, side: int = 2, seed: int = 0
) -> Int[np.ndarray, "grids cells"]:
    """Which images make each grid: one of each of `side ** 2` classes.

    Args:
      labels: the class of each image that the model is sure of.
      count: how many grids.
      side: of a grid, in photographs.
      seed: of the draws.

    Returns:
      Indices into the labels, each row of a grid.

    Raises:
      ValueError: there are not as many classes as cells.
    """
    rng, classes = np.random.default_rng(seed), np.unique(labels)
    if len(classes) < side**2:
        raise ValueError(
            f"images of {len(classes)} classes for a grid of {side**2} cells; give images of more "
            "classes, or a smaller side"
        )
    drawn = [rng.choice(classes, side**2, replace=False) for _ in range(count)]
    return np.array([[rng.choice(np.flatnonzero(labels == c)) for c in grid] for grid in drawn])


def mosaic(images: Float[Array | np.ndarray, "cells H W C"]) -> Float[Array, "high wide C"]:
    """Images `[side ** 2, H, W, C]` as one, row by row: `[side * H, side * W, C]`.

    Raises:
      ValueError: their number is no square.
    """
    cells, height, width, channels = images.shape
    side = round(cells**0.5)
    if side**2 != cells:
        raise ValueError(f"{cells} images make no square; give 4, 9 or another square number")
    rows = jnp.asarray(images).reshape(side, side, height, width, channels)
    return rows.swapaxes(1, 2).reshape(side * height, side * width, channels)


def cell_shares(cam: Real[Array | np.ndarray, "h w"], *, side: int = 2) -> Float[Array, " cells"]:
    """The share of the positive map in each cell, row by row; the same for all where it is flat 0.

    Args:
      cam: of a mosaic, at the layer's size; `side` divides both of its sides.
      side: of the grid, in photographs.

    Returns:
      Shares in [0, 1] that add up to 1.

    Raises:
      ValueError: the cells are no whole positions of the map.
    """
    height, width = cam.shape
    if height % side or width % side:
        raise ValueError(
            f"a map of {height} x {width} has no cells of a grid of {side} x {side}; give a layer "
            "whose sides are multiples, or resize the map"
        )
    values = jnp.maximum(as_floats(cam), 0)
    cells = values.reshape(side, height // side, side, width // side).sum((1, 3)).reshape(-1)
    return jnp.where(cells.any(), quotient(cells, cells.sum()), 1 / side**2)
