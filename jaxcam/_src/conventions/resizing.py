"""The ways to resize and to scale that other libraries have."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated


def align_corners(cam: Float[Array, "*spatial"], size: tuple[int, ...]) -> Float[Array, "*size"]:
    """Linear interpolation that puts the first and last pixel centres on each other."""
    cam = accumulated(cam)
    for axis, (before, after) in enumerate(zip(cam.shape, size, strict=True)):
        place = jnp.linspace(0, before - 1, after, dtype=cam.dtype)
        # Row i takes from its two neighbours what is left of the distance to them.
        shares = jax.nn.relu(1 - abs(place[:, None] - jnp.arange(before, dtype=place.dtype)[None]))
        moved = jnp.tensordot(shares, cam, axes=(1, axis))
        cam = jnp.moveaxis(moved, 0, axis)
    return cam


def nearest(cam: Float[Array, "*spatial"], size: tuple[int, ...]) -> Float[Array, "*size"]:
    """The pixel at `floor(i * before / after)`, as PyTorch's "nearest"."""
    for axis, (before, after) in enumerate(zip(cam.shape, size, strict=True)):
        cam = jnp.take(cam, jnp.arange(after) * before // after, axis=axis)
    return cam


def near_unit_range(values: Float[Array, "*size"], *, eps: float) -> Float[Array, "*size"]:
    """The range [0, 1], but for a constant added to the divisor, which a flat map needs."""
    values = accumulated(values)
    values = values - values.min()
    return values / (values.max() + eps)
