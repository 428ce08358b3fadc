"""From weights to a heatmap: combine, upsample, unit_range, and the fusion of several layers."""

import functools

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
    """
    cam = accumulated(jnp.asarray(cam))
    resized = jax.image.resize(cam, shape, "linear", antialias=False)
    return jnp.clip(resized, cam.min(), cam.max())  # beyond it are rounding errors alone


def unit_range(values: Float[Array | np.ndarray, "*size"]) -> Float[Array, "*size"]:
    """Moves and scales an array to [0, 1]: its minimum to 0, its maximum to 1 or just below.

    A flat array has no range (0/0): it becomes all 0; so does one whose values are neighbours
    among the numbers of its dtype, within 2 units in the last place of the largest, since they
    differ by rounding. A NaN or an infinity anywhere makes all of it NaN. In float32 at least.
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
    "all weights are 0: no gradient passes, or what would be weighted has no share in the score",
    "all activations of the layer are 0",
    "the weighted sum of the activations is nowhere positive, and ReLU takes the rest",
    "it has one value everywhere",
)


def fuse_max(heatmaps: Float[Array, "layers *size"]) -> Float[Array, "*size"]:
    """The elementwise maximum of the layers' heatmaps."""
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
    """
    return fuse_max(jnp.concatenate([jnp.tanh(gain * heatmaps[:-1]), heatmaps[-1:]]))


def fuse_refine_cam(heatmaps: Float[Array, "layers *size"]) -> Float[Array, "*size"]:
    """RefineCAM's fusion: the elementwise product of the layers' heatmaps.

    What a shallow, detailed map shows is kept where the deeper ones agree
    (https://arxiv.org/abs/2605.14641).
    """
    return jnp.prod(accumulated(heatmaps), axis=0)
