"""The strategy that is exact for every function: one direction for each coordinate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.base import Derivatives


def dense(
    f: Callable[[Array], Array], x: Float[Array, "*shape"], *, chunk_size: int
) -> Derivatives:
    """Three nested forward derivatives along every coordinate, for a function of any kind."""
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it counts directions, so choose 1 or more")

    def along_coordinate(index):
        direction = jnp.zeros(x.size, x.dtype).at[index].set(1).reshape(x.shape)
        return directional(f, x, direction)

    found = jax.lax.map(along_coordinate, jnp.arange(x.size), batch_size=min(chunk_size, x.size))
    return Derivatives(*(values.reshape(x.shape).astype(x.dtype) for values in found))


def directional(
    f: Callable[[Array], Array], x: Float[Array, "*shape"], direction: Float[Array, "*shape"]
) -> Derivatives:
    """First, second and third derivative of `t -> f(x + t direction)` at 0, as scalars."""

    def first(point):
        return jax.jvp(f, (point,), (direction,))[1]

    def first_and_second(point):
        return jax.jvp(first, (point,), (direction,))

    (d1, d2), (_, d3) = jax.jvp(first_and_second, (x,), (direction,))
    return Derivatives(d1, d2, d3)
