"""Methods that look at the score of changed images: forward passes, no gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Key, Tap
from jaxcam._src.chunks import check_counts, mapped, mapped_where
from jaxcam._src.maps import unit_range, upsample
from jaxcam._src.weights.gradient import grad_cam


def score_cam(
    tap: Tap,
    *,
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*ones K"]:
    """Score-CAM: softmax of the scores of the image seen through each channel.

    `w = softmax_k S(X * M_k)`, `M_k = unit_range(upsample(A_k))` (Wang et al. 2020, eq. 6-8,
    https://arxiv.org/abs/1910.01279). The score of a baseline image, which the paper subtracts,
    cancels in the softmax. A flat channel masks the whole image: its score is that of the image
    times 0, which is computed once for all of them.

    Args:
      chunk_size: masked images in memory at once (under `vmap`, of each image); no result depends
        on it.
      top_k: how many channels, those of the largest standard deviation, take part; others weigh 0.
        The rule of Faster-Score-CAM (https://github.com/tabayashi0117/Score-CAM). None is all.
      dtype: of masked images and variables while the model runs, such as bfloat16; scores are in
        the dtype of the model's own logits. None is that of the image.

    Cost: K forward, less flat channels
    Avoid: many channels, or a score with little spread, where all weights are about 1 / K

    Returns:
      Weights `[1, ..., 1, K]`, of sum 1; positive, but for channels that take no part.

    Raises:
      ValueError: `chunk_size` or `top_k` is below 1, or `dtype` is not floating.
    """
    mask_fn = functools.partial(mask_of, tap)
    return softmax(tap, masked_scores(tap, mask_fn, chunk_size, top_k, dtype))


def ss_cam(
    tap: Tap,
    *,
    key: Key,
    samples: int = 35,
    sigma: float = 2.0,
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*ones K"]:
    """SS-CAM: Score-CAM whose scores are averaged over noisy masks.

    `w = softmax_k mean_n S(X * (M_k + sigma N_n))`, `M_k` as in `score_cam` and `N_n` normal
    noise for each pixel (Wang et al. 2020, https://arxiv.org/abs/2006.14255). All channels meet
    the same noise, so that what they differ by is not noise.

    Args:
      key: of the noise; images explained under one `vmap` share it, unless it is mapped too.
      samples: noisy masks for each channel.
      sigma: of the noise; the masks are in [0, 1].
      chunk_size, top_k, dtype: as for `score_cam`.

    Cost: 35 K forward (samples K), less flat channels
    Avoid: small sample counts, where the noise of sigma 2 outweighs the mask

    Returns:
      Weights `[1, ..., 1, K]`, as of `score_cam`.

    Raises:
      ValueError: a count is below 1, or `dtype` is not floating.
    """
    check_counts(samples=samples)
    knobs = chunk_size, top_k, dtype

    def scores(key):
        noise = jax.random.normal(key, (*tap.image.shape[:-1], 1), accumulated(tap.image).dtype)
        return masked_scores(tap, lambda a: mask_of(tap, a) + sigma * noise, *knobs)

    found = jax.lax.map(scores, jax.random.split(key, samples))
    return softmax(tap, found.mean(axis=0))


def is_cam(
    tap: Tap,
    *,
    samples: int = 10,
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*ones K"]:
    """IS-CAM: Score-CAM whose scores are averaged over the strength of the mask.

    `w = softmax_k mean_n S(X * M_k n / N)`, n = 1 to N, `M_k` as in `score_cam` (Naidu et al. 2020,
    https://arxiv.org/abs/2010.03023).

    Args:
      samples: N, strengths for each channel.
      chunk_size, top_k, dtype: as for `score_cam`.

    Cost: 10 K forward (samples K), less flat channels
    Avoid: models without biases, whose score is proportional to the strength

    Returns:
      Weights `[1, ..., 1, K]`, as of `score_cam`.

    Raises:
      ValueError: a count is below 1, or `dtype` is not floating.
    """
    check_counts(samples=samples)
    knobs = chunk_size, top_k, dtype

    def scores(strength):
        return masked_scores(tap, lambda a: strength * mask_of(tap, a), *knobs)

    strengths = (jnp.arange(samples, dtype=accumulated(tap.image).dtype) + 1) / samples
    return softmax(tap, jax.lax.map(scores, strengths).mean(axis=0))


def group_cam(
    tap: Tap,
    *,
    groups: int = 32,
    percentile: float = 70.0,
    baseline_fn: Callable[[Array], Array] | None = None,
    chunk_size: int = 16,
) -> Float[Array, "*spatial"]:
    """Group-CAM: groups of channels, weighted by what they reveal of a blurred image.

    `M_l = relu(sum_{k in l} w_k A_k)` with the weights of Grad-CAM, values up to the `percentile`
    set to 0; the map is `relu(sum_l a_l unit_range(M_l))` with `a_l = S(X * M'_l + B * (1 - M'_l))
    - S(B)`, `M'_l` the group's mask at the size of the image and `B` the blurred image (Zhang et
    al. 2021, https://arxiv.org/abs/2103.13859, whose score is the probability). The paper adds the
    groups at the size of the image, here at that of the layer. A map and no weights.

    Args:
      groups: of consecutive channels; as many as channels where those are fewer.
      percentile: in [0, 100]; which share of a group's map is noise.
      baseline_fn: image -> image `B`; None is `blurred`.
      chunk_size: masked images in memory at once; the result does not depend on it.

    Cost: 1 backward and 33 forward (groups + 1)
    Avoid: layers whose channels have no order to group by

    Returns:
      The map, `[*spatial]`, in units of the score, at least 0.

    Raises:
      ValueError: `groups` or `chunk_size` is below 1.
    """
    check_counts(groups=groups)
    image, dtype = accumulated(tap.image), tap.image.dtype
    baseline = (baseline_fn or blurred)(image)
    maps = _group_maps(grad_cam(tap) * accumulated(tap.activations), groups, percentile)

    def revealed_score(group):
        mask = mask_of(tap, group)
        return tap.score_image((image * mask + baseline * (1 - mask)).astype(dtype))

    gains = mapped(revealed_score, maps, chunk_size) - tap.score_image(baseline.astype(dtype))
    masks = jax.vmap(unit_range)(maps)
    return jax.nn.relu(jnp.tensordot(gains.astype(maps.dtype), masks, axes=1))


def blurred(image: Float[Array, "*size C"], *, fraction: float = 0.22) -> Float[Array, "*size C"]:
    """An image blurred beyond recognition, along each spatial axis.

    Each pixel is the mean of those up to half a standard deviation away, weighted by a Gaussian
    with `fraction` of the image's side as its standard deviation, or two pixels where that is
    less; beyond the edge are no pixels. At 224 pixels that is close to the 51 taps and sigma 50
    of Group-CAM.
    """
    seen = accumulated(image)
    for axis, side in enumerate(image.shape[:-1]):
        place = jnp.arange(side, dtype=seen.dtype) / max(fraction * side, 2)
        distance = abs(place[:, None] - place[None])
        taps = jnp.where(distance <= 0.5, jnp.exp(-(distance**2) / 2), 0)
        taps = taps / taps.sum(axis=1, keepdims=True)
        seen = jnp.moveaxis(jnp.tensordot(taps, seen, axes=(1, axis)), 0, axis)
    return seen.astype(image.dtype)


def _group_maps(
    weighted: Float[Array, "*spatial K"], groups: int, percentile: float
) -> Float[Array, "groups *spatial"]:
    channels = weighted.shape[-1]
    group = jnp.arange(channels) * min(groups, channels) // channels
    summed = jax.ops.segment_sum(jnp.moveaxis(weighted, -1, 0), group, min(groups, channels))
    maps = jax.nn.relu(summed)
    threshold = jnp.percentile(maps.reshape(len(maps), -1), percentile, axis=1)
    return jnp.where(maps > threshold.reshape((-1,) + (1,) * (maps.ndim - 1)), maps, 0)


def masked_scores(
    tap: Tap,
    mask_fn: Callable[[Array], Array],
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
) -> Float[Array, " K"]:
    """The scores of the image times `mask_fn` of each channel: `[*spatial]` -> `[*size, 1]`.

    Minus infinity for channels that are not among the `top_k`.
    """
    dtype = jnp.dtype(dtype or tap.image.dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype is {dtype}; wanted a floating one, such as jax.numpy.bfloat16")

    def masked_score(channel):
        masked = accumulated(tap.image) * mask_fn(channel)
        return tap.score_image(masked.astype(dtype))

    channels = jnp.moveaxis(tap.activations, -1, 0)
    values = channels.reshape(len(channels), -1)
    kept = _kept(values, top_k)
    flat = kept & (values == values[:, :1]).all(axis=1)
    first_flat = jnp.argmax(flat)  # which stands for all of them
    live = kept & (~flat | (jnp.arange(len(flat)) == first_flat))
    # Exactly flat, since resizing leaves rounding that the range would magnify.
    channels = jnp.where(flat.reshape(-1, *(1,) * len(tap.spatial_axes)), 0, channels)
    chunk_size = min(chunk_size, top_k or chunk_size)
    scores = mapped_where(masked_score, channels, live, 0, chunk_size)
    return jnp.where(kept, jnp.where(flat, scores[first_flat], scores), -jnp.inf)


def _kept(channels: Float[Array, "K values"], top_k: int | None) -> Bool[Array, " K"]:
    """The channels with the largest standard deviation: all, or `top_k`."""
    if top_k is None:
        return jnp.ones(len(channels), bool)
    check_counts(top_k=top_k)
    order = jnp.argsort(accumulated(channels).std(axis=1), descending=True)
    return jnp.zeros(len(channels), bool).at[order[:top_k]].set(True)


def mask_of(tap: Tap, channel: Float[Array, "*spatial"]) -> Float[Array, "*size 1"]:
    """The mask of Score-CAM: a channel at the size of the image, in [0, 1]."""
    mask = unit_range(upsample(channel, tap.image.shape[:-1]))
    return mask[..., None].astype(accumulated(tap.image).dtype)


def softmax(tap: Tap, scores: Float[Array, " K"]) -> Float[Array, "*ones K"]:
    """Weights from scores: at least 0, of sum 1."""
    weights = jax.nn.softmax(accumulated(scores))
    return weights.reshape((1,) * len(tap.spatial_axes) + (-1,))
