"""From weights to a heatmap: combine, upsample, unit_range, and the fusion of several layers."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from jaxcam._src.arithmetic import accumulated, quotient


def combine(
    weights: Float[Array, "*weights_shape"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*spatial"]:
    """The class activation map `relu(sum_k w_k A_k)`.

    Args:
      weights: `[1, ..., 1, K]`, one per channel, or `[*spatial, K]`; or `[*spatial]`, the map of
        a method without weights, which stays as it is.
      activations: `[*spatial, K]`.

    Returns:
      The map at the size of the layer, in float32 at least; at least 0, if there are weights.

    Raises:
      ValueError: the weights fit the activations in none of these ways.

    >>> jaxcam.combine(jnp.ones((1, 1, 2)), jnp.array([[[1.0, 2.0], [1.0, -3.0]]]))
    Array([[3., 0.]], dtype=float32)
    """
    weighted = weigh(weights, activations)
    return weighted if is_map(weights, activations) else jax.nn.relu(weighted)


def weigh(
    weights: Float[Array, "*weights_shape"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*spatial"]:
    """The same without the ReLU: `sum_k w_k A_k`. Arguments and errors as for `combine`."""
    if is_map(weights, activations):
        return accumulated(weights)
    channelwise = (1,) * (activations.ndim - 1) + activations.shape[-1:]
    if weights.shape not in (channelwise, activations.shape):
        raise ValueError(
            f"a method returned weights of shape {weights.shape}; wanted {channelwise} (one per "
            f"channel), {activations.shape} (one per activation), or a map {activations.shape[:-1]}"
        )
    return jnp.sum(accumulated(weights) * accumulated(activations), axis=-1)


def is_map(
    weights: Float[Array, "*weights_shape"], activations: Float[Array, "*spatial K"]
) -> bool:
    """Whether a method returned a map in place of weights."""
    return weights.shape == activations.shape[:-1]


def upsample(
    cam: Float[Array | np.ndarray, "*spatial"], shape: tuple[int, ...]
) -> Float[Array, "*size"]:
    """Resizes a map to `shape` by linear interpolation between pixel centres.

    The convention is that of OpenCV and of PyTorch without `align_corners`: no smoothing where
    a map shrinks, edge values repeated outside the outermost centres. No value leaves the range
    of the map, so that a flat one stays flat. In float32 at least.

    >>> jaxcam.upsample(jnp.array([0.0, 1.0]), (4,))
    Array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    resized = cam = accumulated(jnp.asarray(cam))
    for size in shape:  # each turn takes the first axis away and adds its like as the last
        lines = _lines(len(resized), size, cam.dtype)
        resized = jax.lax.dot_general(resized, lines, (([0], [0]), ([], [])), precision="highest")
    return jnp.clip(resized, cam.min(), cam.max())  # beyond it are rounding errors alone


def _lines(old: int, new: int, dtype: np.dtype) -> Float[Array, "old new"]:
    """The share that each of `old` pixels has in each of `new` ones, of linear interpolation.

    Where the new ones lie is worked out in float64, so that only the sum rounds; and the program,
    which traces faster than that of `jax.image.resize`, holds vectors and no matrix.
    """
    place = np.clip((np.arange(new)[None] + 0.5) * old / new - 0.5, 0, old - 1)
    before = place.astype(np.int32)
    share = (place - before).astype(dtype)  # of the pixel after
    pixel = np.arange(old, dtype=np.int32)[:, None]
    after = jnp.where(jnp.equal(pixel, before + 1), share, 0)
    return jnp.where(jnp.equal(pixel, before), 1 - share, after)


def unit_range(values: Float[Array | np.ndarray, "*size"]) -> Float[Array, "*size"]:
    """Moves and scales an array to [0, 1]: its minimum to 0, its maximum to 1 or just below.

    A flat array has no range (0/0): it becomes all 0; so does one whose values are neighbours
    among the numbers of its dtype, within 2 units in the last place of the largest, since they
    differ by rounding. A NaN or an infinity anywhere makes all of it NaN. In float32 at least.

    >>> jaxcam.unit_range(jnp.array([2.0, 3.0, 4.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    values = accumulated(jnp.asarray(values))
    low = values.min()
    scaled = quotient(values - low, jnp.where(is_flat(values), 0, values.max() - low))
    scaled = jnp.minimum(scaled, 1)  # on a GPU x / x may be above 1
    return jnp.where(jnp.isfinite(values).all(), scaled, jnp.nan)


def is_flat(values: Float[Array, "*size"]) -> Bool[Array, ""]:
    """Whether the values differ by no more than rounding."""
    low, high = values.min(), values.max()
    largest = jnp.maximum(abs(low), abs(high))
    alike = high - low <= 2 * jnp.finfo(values.dtype).eps * largest
    # The minimum and maximum of a large array can lose a NaN on CPU; and inf <= inf.
    return alike & jnp.isfinite(values).all()


def sound(cam: Float[Array, "*spatial"], *seen: Float[Array, "..."]) -> Float[Array, "*spatial"]:
    """The map, and NaN where there is none: an image, activations or a score are not finite.

    Not every method would show it: some look at no score, a comparison with NaN is false, and a
    ReLU on a CPU may make it 0.
    """
    finite = functools.reduce(jnp.logical_and, (jnp.isfinite(x).all() for x in seen))
    return cam * jnp.where(finite, 1, jnp.nan).astype(cam.dtype)  # the gradient is NaN, too


def flatness(
    weights: Float[Array, "*weights_shape"],
    activations: Float[Array, "*spatial K"],
    cam: Float[Array, "*spatial"],
) -> Int32[Array, ""]:
    """Why a map is flat, as an index of `REASONS`; 0 where it is not."""
    nowhere_positive = jnp.where(cam.max() == 0, 3, 4)
    reason = jnp.where((activations == 0).all(), 2, nowhere_positive)
    reason = jnp.where((weights == 0).all(), 1, reason)
    return jnp.where(is_flat(cam), reason, 0).astype(jnp.int32)


REASONS = (
    None,
    "all weights are 0: no gradient passes or is kept, or all they weigh has no share in the score",
    "all activations of the layer are 0",
    "the weighted sum of the activations is nowhere positive, and ReLU takes the rest",
    "it has one value everywhere",
)


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
