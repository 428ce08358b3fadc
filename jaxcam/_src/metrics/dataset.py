"""Localisation whose number is one of all images together, in NumPy: MaxBoxAccV2 and PxAP.

Choe et al. 2020, https://arxiv.org/abs/2001.00864. The first takes the best threshold of the map,
the same for all images; the second is an area over all of them.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

THRESHOLDS = tuple(np.arange(0, 1, 0.01).tolist())


def max_box_accuracy(
    heatmaps: Float[np.ndarray, "images H W"],
    boxes: Sequence[Float[np.ndarray, "_ 4"]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    overlaps: Sequence[float] = (0.3, 0.5, 0.7),
) -> float:
    """MaxBoxAccV2: the share of images one of whose boxes is found, in [0, 1]; higher is better.

    A box is found where a box around a connected part of the map above the threshold overlaps with
    it. For each overlap the best threshold counts, and their mean is returned; NaN where a map is
    not finite.

    Args:
      heatmaps: in [0, 1].
      boxes: of each image `(x0, y0, x1, y1)`, in pixels of the heatmap.
      thresholds: in [0, 1), of which the best is taken.
      overlaps: the intersection over union from which a box is found.

    Raises:
      ValueError: an image has no box.
    """
    if without := [place for place, of_image in enumerate(boxes) if not len(of_image)]:
        raise ValueError(f"image {without[0]} has no box; leave out images without one")
    if not np.isfinite(heatmaps).all():
        return math.nan
    best = np.array(
        [_best_overlaps(m, np.asarray(b), thresholds) for m, b in zip(heatmaps, boxes, strict=True)]
    )
    return float(np.mean([(best >= overlap).mean(0).max() for overlap in overlaps]))


def boxes_above(heatmap: Float[np.ndarray, "H W"], threshold: float) -> Float[np.ndarray, "_ 4"]:
    """Boxes `(x0, y0, x1, y1)` around the connected parts of a map above a threshold.

    Parts touch at corners too. As in the authors' evaluation the map is rounded down to 256 steps,
    and the far sides are one pixel beyond the part, but inside the map. One box of zeros where
    nothing is above.
    """
    from scipy import ndimage

    steps = (255 * heatmap).astype(np.uint8)
    parts = np.zeros(heatmap.shape, np.int32)
    ndimage.label(steps > int(threshold * steps.max()), np.ones((3, 3)), output=parts)
    height, width = heatmap.shape
    found = [
        (x.start, y.start, min(x.stop, width - 1), min(y.stop, height - 1))
        for y, x in ndimage.find_objects(parts)
    ]
    return np.array(found or [(0, 0, 0, 0)], float)


def box_overlaps(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "n m"]:
    """Intersection over union of each box with each other; far sides are pixels of the box."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.maximum(high - low + 1, 0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2] + 1).prod(-1) for x in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def _best_overlaps(
    heatmap: np.ndarray, boxes: np.ndarray, thresholds: Sequence[float]
) -> np.ndarray:
    return np.array([box_overlaps(boxes_above(heatmap, t), boxes).max() for t in thresholds])


def pixel_average_precision(
    heatmaps: Float[np.ndarray, "images H W"],
    inside: Shaped[np.ndarray, "..."],
    *,
    levels: int = 1000,
) -> float:
    """PxAP: the area under precision by recall of the pixels of all images; higher is better.

    In [0, 1]. `sum_i (recall_i - recall_(i-1)) precision_i` over thresholds from the highest; NaN
    where a map is not finite.

    Args:
      heatmaps: in [0, 1].
      inside: True, or 1, on the object; leave out images without one.
      levels: thresholds between 0 and 1.

    Raises:
      ValueError: no pixel is inside, or the masks are not as large as the maps.
    """
    heatmaps, inside = np.asarray(heatmaps), np.asarray(inside, bool)
    if inside.shape != heatmaps.shape:
        raise ValueError(f"masks of the shape {inside.shape} for maps {heatmaps.shape}")
    if not np.isfinite(heatmaps).all():
        return math.nan
    if not inside.any():
        raise ValueError("no pixel is inside an object; give masks that are True on the objects")
    edges = np.arange(levels + 1) / levels
    edges[-1] = np.inf  # 1 belongs to the last level
    own, other = (np.histogram(heatmaps[where], edges)[0] for where in (inside, ~inside))
    hits, misses = own[::-1].cumsum(), other[::-1].cumsum()
    precision = hits / np.maximum(hits + misses, 1)
    recall = hits / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())
