"""What the sums and quotients of the library keep: float32 at least, 0 for 0/0, no NaN slope."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def accumulated(values: Array) -> Array:
    """In float32 at least."""
    small = jnp.finfo(values.dtype).bits < 32
    return values.astype(jnp.float32) if small else values


def quotient(numerator: Float[Array, "..."], denominator: Float[Array, "..."]) -> Array:
    """The quotient, broadcast, and 0 where the denominator is 0; in float32 at least."""
    numerator, denominator = accumulated(numerator), accumulated(denominator)
    zero = denominator == 0
    return jnp.where(zero, 0, numerator / jnp.where(zero, 1, denominator))


def length(values: Float[Array, "..."], axis: int | None = None) -> Float[Array, "..."]:
    """The Euclidean norm, whose gradient at 0 is 0: that of the square root is infinite there."""
    squares = jnp.sum(accumulated(values) ** 2, axis=axis)
    return jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
