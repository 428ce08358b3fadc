"""Methods that look at the score of changed images: forward passes, no gradient."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Key, Tap, WeightsFn
from jaxcam._src.chunks import check_counts, mapped_where
from jaxcam._src.maps import unit_range, upsample


def score_cam(
    tap: Tap,
    *,
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
    rank_fn: WeightsFn | None = None,
) -> Float[Array, "*ones K"]:
    """Score-CAM: softmax of the scores of the image seen through each channel.

    `w = softmax_k S(X * M_k)`, `M_k = unit_range(upsample(A_k))` (Wang et al. 2020, eq. 6-8,
    https://arxiv.org/abs/1910.01279). The score of a baseline image, which the paper subtracts,
    cancels in the softmax. A flat channel masks the whole image: its score is that of the image
    times 0, which is computed once for all of them.

    Args:
      chunk_size: masked images in memory at once (under `vmap`, of each image); no result depends
        on it.
      top_k: how many channels, those that `rank_fn` ranks highest, take part; others weigh 0. None
        is all.
      dtype: of masked images and variables while the model runs, such as bfloat16; scores are in
        the dtype of the model's own logits. None is that of the image.
      rank_fn: tap -> one number for each channel, used with `top_k`, such as a method of weights
        `[1, ..., 1, K]`. None is the standard deviation, the rule of Faster-Score-CAM
        (https://github.com/tabayashi0117/Score-CAM); `jaxcam.grad_cam`, the mean gradient, is that
        of gScoreCAM (Chen et al. 2022, https://doi.org/10.1007/978-3-031-26316-3_35), with 300
        channels, by its code https://github.com/anguyen8/gScoreCAM.

    Cost: K forward, less flat channels
    Avoid: many channels, or a score with little spread, where all weights are about 1 / K

    Returns:
      Weights `[1, ..., 1, K]`, of sum 1; positive, but for channels that take no part.

    Raises:
      ValueError: `chunk_size` or `top_k` is below 1, `dtype` is not floating, or `rank_fn` gives
        not one number for each channel.

    >>> jaxcam.score_cam(tap, top_k=4).shape
    (1, 1, 64)
    """
    mask_fn = functools.partial(mask_of, tap)
    return softmax(tap, masked_scores(tap, mask_fn, chunk_size, top_k, dtype, rank_fn))


def ss_cam(
    tap: Tap,
    *,
    key: Key,
    samples: int = 35,
    sigma: float = 2.0,
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
    rank_fn: WeightsFn | None = None,
) -> Float[Array, "*ones K"]:
    """SS-CAM: Score-CAM whose scores are averaged over noisy masks.

    `w = softmax_k mean_n S(X * (M_k + sigma N_n))`, `M_k` as in `score_cam` and `N_n` normal
    noise for each pixel (Wang et al. 2020, https://arxiv.org/abs/2006.14255). All channels meet
    the same noise, so that what they differ by is not noise.

    Args:
      key: of the noise; images explained under one `vmap` share it, unless it is mapped too.
      samples: noisy masks for each channel.
      sigma: of the noise; the masks are in [0, 1].
      chunk_size, top_k, dtype, rank_fn: as for `score_cam`.

    Cost: 35 K forward (samples K), less flat channels
    Avoid: small sample counts, where the noise of sigma 2 outweighs the mask

    Returns:
      Weights `[1, ..., 1, K]`, as of `score_cam`.

    Raises:
      ValueError: a count is below 1; else as for `score_cam`.

    >>> jaxcam.ss_cam(tap, key=jax.random.key(0), samples=2, top_k=4).shape
    (1, 1, 64)
    """
    check_counts(samples=samples)
    knobs = chunk_size, top_k, dtype, rank_fn

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
    rank_fn: WeightsFn | None = None,
) -> Float[Array, "*ones K"]:
    """IS-CAM: Score-CAM whose scores are averaged over the strength of the mask.

    `w = softmax_k mean_n S(X * M_k n / N)`, n = 1 to N, `M_k` as in `score_cam` (Naidu et al. 2020,
    https://arxiv.org/abs/2010.03023).

    Args:
      samples: N, strengths for each channel.
      chunk_size, top_k, dtype, rank_fn: as for `score_cam`.

    Cost: 10 K forward (samples K), less flat channels
    Avoid: models without biases, whose score is proportional to the strength

    Returns:
      Weights `[1, ..., 1, K]`, as of `score_cam`.

    Raises:
      ValueError: a count is below 1; else as for `score_cam`.

    >>> jaxcam.is_cam(tap, samples=2, top_k=4).shape
    (1, 1, 64)
    """
    check_counts(samples=samples)
    knobs = chunk_size, top_k, dtype, rank_fn

    def scores(strength):
        return masked_scores(tap, lambda a: strength * mask_of(tap, a), *knobs)

    strengths = (jnp.arange(samples, dtype=accumulated(tap.image).dtype) + 1) / samples
    return softmax(tap, jax.lax.map(scores, strengths).mean(axis=0))


def masked_scores(
    tap: Tap,
    mask_fn: Callable[[Array], Array],
    chunk_size: int = 16,
    top_k: int | None = None,
    dtype: DTypeLike | None = None,
    rank_fn: WeightsFn | None = None,
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
    kept = _kept(tap, top_k, rank_fn)
    flat = kept & (values == values[:, :1]).all(axis=1)
    first_flat = jnp.argmax(flat)  # which stands for all of them
    live = kept & (~flat | (jnp.arange(len(flat)) == first_flat))
    # Exactly flat, since resizing leaves rounding that the range would magnify.
    channels = jnp.where(flat.reshape(-1, *(1,) * len(tap.spatial_axes)), 0, channels)
    chunk_size = min(chunk_size, top_k or chunk_size)
    scores = mapped_where(masked_score, channels, live, 0, chunk_size)
    return jnp.where(kept, jnp.where(flat, scores[first_flat], scores), -jnp.inf)


def _kept(tap: Tap, top_k: int | None, rank_fn: WeightsFn | None) -> Bool[Array, " K"]:
    """The channels that take part: all, or the `top_k` that rank highest."""
    channels = tap.activations.shape[-1]
    if top_k is None:
        return jnp.ones(channels, bool)
    check_counts(top_k=top_k)
    ranks = (rank_fn or _deviation)(tap)
    if ranks.size != channels:
        raise ValueError(
            f"rank_fn returned shape {ranks.shape}; wanted one number for each of the {channels} "
            "channels, such as jaxcam.grad_cam gives"
        )
    order = jnp.argsort(ranks.reshape(-1), descending=True)
    return jnp.zeros(channels, bool).at[order[:top_k]].set(True)


def _deviation(tap: Tap) -> Float[Array, " K"]:
    return accumulated(tap.activations).std(axis=tap.spatial_axes)


def mask_of(tap: Tap, channel: Float[Array, "*spatial"]) -> Float[Array, "*size 1"]:
    """The mask of Score-CAM: a channel at the size of the image, in [0, 1]."""
    mask = unit_range(upsample(channel, tap.image.shape[:-1]))
    return mask[..., None].astype(accumulated(tap.image).dtype)


def softmax(tap: Tap, scores: Float[Array, " K"]) -> Float[Array, "*ones K"]:
    """Weights from scores: at least 0, of sum 1."""
    weights = jax.nn.softmax(accumulated(scores))
    return weights.reshape((1,) * len(tap.spatial_axes) + (-1,))
