"""What is left of an image that a model recognises nothing in."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated


def blurred(image: Float[Array, "*size C"], *, fraction: float = 0.22) -> Float[Array, "*size C"]:
    """An image blurred beyond recognition, along each spatial axis.

    Each pixel is the mean of those up to half a standard deviation away, weighted by a Gaussian
    with `fraction` of the image's side as its standard deviation, or two pixels where that is
    less; beyond the edge are no pixels. At 224 pixels that is close to the 51 taps and sigma 50
    of Group-CAM.

    >>> jaxcam.blurred(image).shape
    (64, 64, 1)
    """
    seen = accumulated(image)
    for axis, side in enumerate(image.shape[:-1]):
        place = jnp.arange(side, dtype=seen.dtype) / max(fraction * side, 2)
        distance = abs(place[:, None] - place[None])
        taps = jnp.where(distance <= 0.5, jnp.exp(-(distance**2) / 2), 0)
        taps = taps / taps.sum(axis=1, keepdims=True)
        seen = jnp.moveaxis(jnp.tensordot(taps, seen, axes=(1, axis)), 0, axis)
    return seen.astype(image.dtype)
