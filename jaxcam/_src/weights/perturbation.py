"""Methods that look at the score of changed images: forward passes, no gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.base import Tap
from jaxcam._src.maps import unit_range, upsample


def score_cam(tap: Tap, *, chunk_size: int = 16) -> Float[Array, "*ones K"]:
    """Score-CAM: each channel weighted by the score of the image seen through it.

    `w = softmax_k S(X * M_k)`, `M_k = unit_range(upsample(A_k))` (Wang et al. 2020, eq. 6-8,
    https://arxiv.org/abs/1910.01279). The score of a baseline image, which the paper subtracts,
    cancels in the softmax. A flat channel masks the whole image: its score is that of the image
    times 0.

    Args:
      chunk_size: masked images in memory at once. K forward passes in all; the result does not
        depend on it.

    Returns:
      Weights `[1, ..., 1, K]`, positive, of sum 1.

    Raises:
      ValueError: `chunk_size` is below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts images, so choose 1 or more")

    def masked_score(channel):
        mask = unit_range(upsample(channel, tap.image.shape[:-1]))
        return tap.score_image(tap.image * mask[..., None].astype(tap.image.dtype))

    channels = jnp.moveaxis(tap.activations, -1, 0)
    scores = jax.lax.map(masked_score, channels, batch_size=min(chunk_size, len(channels)))
    weights = jax.nn.softmax(scores).astype(tap.activations.dtype)
    return weights.reshape((1,) * (tap.activations.ndim - 1) + (-1,))
