"""Floors: maps that know nothing of the model, beside which every number of a method is read."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, length
from jaxcam._src.base import Tap


def centred_gaussian(tap: Tap, *, width: float = 0.25) -> Float[Array, "*spatial"]:
    """A Gaussian around the middle of the image, where photographers put their objects.

    `exp(-|u|^2 / 2)`, with `u` the distance from the middle in units of `width` times each side.

    Args:
      tap: of whose layer the size is taken.
      width: the standard deviation, as a share of each side, above 0.

    Returns:
      The map, `[*spatial]`.

    >>> jaxcam.centred_gaussian(tap).shape
    (16, 16)
    """
    size = tap.activations.shape[:-1]
    places = jnp.indices(size, accumulated(tap.activations).dtype)
    squares = [((at - (n - 1) / 2) / (width * n)) ** 2 for at, n in zip(places, size, strict=True)]
    return jnp.exp(-sum(squares) / 2)


def edge_map(tap: Tap) -> Float[Array, "*spatial"]:
    """The edges of the image: the length of its gradient by central differences, made smaller.

    What a map shows that has seen the picture and no model (Adebayo et al. 2018,
    https://arxiv.org/abs/1810.03292).

    Args:
      tap: whose image, the mean of its channels.

    Returns:
      The map, `[*spatial]`, at least 0.

    >>> jaxcam.edge_map(tap).shape
    (16, 16)
    """
    brightness = accumulated(tap.image).mean(-1)
    long = [axis for axis, side in enumerate(brightness.shape) if side > 1]
    slopes = [jnp.zeros_like(brightness), *(jnp.gradient(brightness, axis=axis) for axis in long)]
    found = length(jnp.stack(slopes), axis=0)
    return jax.image.resize(found, tap.activations.shape[:-1], "linear")
