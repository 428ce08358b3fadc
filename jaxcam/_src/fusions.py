"""The fusion of several layers: from their heatmaps to one."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, quotient


def fuse_max(heatmaps: Float[Array, "layers *size"]) -> Float[Array, "*size"]:
    """The elementwise maximum of the layers' heatmaps.

    >>> jaxcam.fuse_max(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
    Array([1. , 0.5], dtype=float32)
    """
    return functools.reduce(jnp.maximum, heatmaps)  # which, unlike max(axis=0), keeps every NaN


def fuse_layer_cam(
    heatmaps: Float[Array, "layers *size"], *, gain: float = 2.0
) -> Float[Array, "*size"]:
    """LayerCAM's fusion: shallow maps M lifted to `tanh(gain * M)`, then the maximum.

    The paper lifts the shallow stages, whose maps are faint beside the deepest one; here every
    layer but the last in order is lifted. The paper divides M by its maximum at the size of the
    layer; here M has been resized and moved to [0, 1] (Jiang et al. 2021,
    https://doi.org/10.1109/TIP.2021.3089943).

    Args:
      heatmaps: one per layer, shallow to deep, each in [0, 1].
      gain: the paper's gamma.

    >>> heatmap = jaxcam.fuse_layer_cam(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
    >>> round(float(heatmap[0]), 3)
    0.964
    """
    return fuse_max(jnp.concatenate([jnp.tanh(gain * heatmaps[:-1]), heatmaps[-1:]]))


def fuse_refine_cam(heatmaps: Float[Array, "layers *size"]) -> Float[Array, "*size"]:
    """RefineCAM's fusion: the elementwise product of the layers' heatmaps.

    What a shallow, detailed map shows is kept where the deeper ones agree
    (https://arxiv.org/abs/2605.14641).

    >>> jaxcam.fuse_refine_cam(jnp.array([[1.0, 0.0], [0.5, 0.5]]))
    Array([0.5, 0. ], dtype=float32)
    """
    return jnp.prod(accumulated(heatmaps), axis=0)


def fuse_winsor(
    heatmaps: Float[Array, "layers *size"],
    *,
    weights: Sequence[Array],
    percentile: float = 99.0,
    low: float = 0.1,
) -> Float[Array, "*size"]:
    """Winsor-CAM's fusion: the sum of the layers' heatmaps, each by its winsorised importance.

    A layer's importance is `I = relu(mean of its weights)`. Of the layers with `I > 0`, what is
    above their percentile is lowered to it, `W = min(I, percentile(I))`, and W is moved linearly
    to [low, 1]; the others have 0 (Wall et al. 2025, https://arxiv.org/abs/2507.10846). Where all
    W are alike, 0/0, all are 1: so it is for the percentile 0, or if one layer alone has `I > 0`.
    The steps and the defaults are those of the authors' code, with its options for means and for
    ReLU (https://github.com/USD-AI-ResearchLab/Winsor-CAM); they were not compared with the
    equations of the paper.

    Args:
      heatmaps: one per layer, each in [0, 1].
      weights: of each layer, as `grad_cam` gives them, the paper's method; `explainer` passes them.
      percentile: in [0, 100], with linear interpolation. Small ones make layers more alike.
      low: what the least important layer counts beside 1, in [0, 1].

    Returns:
      The sum, `[*size]`, in [0, layers]; all 0 where no layer has a mean weight above 0.

    Raises:
      ValueError: the method gave maps and no weights, or a knob is out of its range.

    >>> weights = [jnp.full((1, 1), 0.5), jnp.full((1, 1), 2.0), jnp.full((1, 1), -1.0)]
    >>> jaxcam.fuse_winsor(jnp.ones((3, 2)), weights=weights, low=0.5)  # .5 and 1 of those above 0
    Array([1.5, 1.5], dtype=float32)
    """
    if not (0 <= percentile <= 100 and 0 <= low <= 1):
        raise ValueError(
            f"fuse_winsor got percentile={percentile} and low={low}; wanted a percentile in "
            "[0, 100] and low in [0, 1]"
        )
    if any(of_layer.ndim < heatmaps.ndim for of_layer in weights):
        raise ValueError(
            "fuse_winsor compares layers by their weights, and this method gives a map without "
            "any; choose one with weights, such as grad_cam"
        )
    importance = jnp.stack([jax.nn.relu(accumulated(w).mean()) for w in weights])
    shares = _winsorised(importance, percentile, low).astype(accumulated(heatmaps).dtype)
    return jnp.tensordot(shares, accumulated(heatmaps), axes=1)


def _winsorised(
    importance: Float[Array, " layers"], percentile: float, low: float
) -> Float[Array, " layers"]:
    """What each layer counts: 0 where its importance is 0, and at most 1."""
    counts = importance > 0
    some = counts.any()
    among = jnp.where(counts, importance, jnp.where(some, jnp.nan, 1))
    cut = jnp.minimum(importance, jnp.nanpercentile(among, percentile))
    least = jnp.min(cut, where=counts, initial=jnp.inf)
    width = jnp.where(some, cut.max() - least, 0)
    scaled = jnp.where(width == 0, 1, low + (1 - low) * quotient(cut - least, width))
    return jnp.where(counts, scaled, 0)
