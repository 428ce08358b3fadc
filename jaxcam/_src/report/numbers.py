"""What the page sorts maps by, and the maps as bytes."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam._src.compiling import compiler_options
from jaxcam._src.maps import is_flat, unit_range, upsample
from jaxcam._src.metrics.agreement import spearman
from jaxcam._src.metrics.shape import border_share

_SIDE = 80  # at which the border is measured, and a tenth of it is whole
_LARGEST = 16  # side of the maps that are compared by rank
_TOGETHER = 64  # images


class Bytes(NamedTuple):
    """Maps of a byte for each position: `low + (high - low) * byte / 255`.

    Attributes:
      values: `[n, h, w]` uint8.
      ranges: `[n, 2]` float32, low and high: equal of a flat map, NaN where there is no map.
    """

    values: np.ndarray
    ranges: np.ndarray


def as_bytes(cams: np.ndarray) -> Bytes:
    """Maps `[n, h, w]` with 256 values each."""
    flat = _of_each(is_flat, cams)
    low, high = cams.min((1, 2)), np.where(flat, cams.min((1, 2)), cams.max((1, 2)))
    span = np.where(high > low, high - low, 1)[:, None, None]
    shares = np.where(np.isfinite(cams), cams - low[:, None, None], 0) / span
    values = np.where(flat[:, None, None], 0, np.round(255 * shares))
    return Bytes(values.astype(np.uint8), np.stack([low, high], -1).astype(np.float32))


def border(cams: np.ndarray) -> np.ndarray:
    """The share of each heatmap on the border of the picture, `[n]`, as `metrics.border`."""

    def of_one(cam: Float[Array, "h w"]) -> Array:
        return border_share(unit_range(upsample(cam, (_SIDE, _SIDE))))

    return _of_each(of_one, cams)


def disagreement(maps: Sequence[np.ndarray]) -> np.ndarray:
    """One minus the mean rank correlation of all pairs of maps of an image, `[n]`.

    Maps of several layers are brought to the smallest of their sizes. NaN where a map is missing.

    Args:
      maps: two or more, each `[n, h, w]`.
    """
    sides = np.array([cams.shape[1:] for cams in maps])
    size = tuple(np.minimum(sides.min(0), _LARGEST).tolist())
    pairs = np.array([*itertools.combinations(range(len(maps)), 2)])

    def smaller(cam: Float[Array, "h w"]) -> Array:
        # Ranged first: a flat map would have a range after it, of rounding errors.
        return jax.image.resize(unit_range(cam), size, "linear")

    def of_one(alike: Float[Array, "maps h w"]) -> Array:
        return 1 - jax.vmap(spearman)(alike[pairs[:, 0]], alike[pairs[:, 1]]).mean()

    return _of_each(of_one, np.stack([_of_each(smaller, cams) for cams in maps], 1))


def class_means(cams: np.ndarray, classes: Sequence[Sequence[int]]) -> np.ndarray:
    """The mean map of the images of each class, `[classes, h, w]` uint8; flat ones count as 0."""
    ranged = np.nan_to_num(_of_each(unit_range, cams))
    means = [ranged[members].mean(0) for members in map(list, classes)]
    shape = (len(classes), *cams.shape[1:])
    return np.round(255 * np.array(means)).astype(np.uint8).reshape(shape)


def _of_each(of_one: Callable[[Array], Array], values: np.ndarray) -> np.ndarray:
    """A function of one image on many."""

    def of_all(all_of_them: Array) -> Array:
        return jax.lax.map(of_one, all_of_them, batch_size=_TOGETHER)

    compiled = jax.jit(of_all, compiler_options=compiler_options())
    return np.asarray(compiled(jnp.asarray(values)))
