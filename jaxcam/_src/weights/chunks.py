"""Long loops in chunks: memory is set by the chunk, and the result does not depend on it."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Shaped


def mapped(
    f: Callable[[Array], Array], xs: Shaped[Array, "n ..."], chunk_size: int
) -> Shaped[Array, "n ..."]:
    """`f` of each of `xs`, `chunk_size` of them at once.

    Raises:
      ValueError: `chunk_size` is below 1.
    """
    check_counts(chunk_size=chunk_size)
    return jax.lax.map(f, xs, batch_size=min(chunk_size, len(xs)))


def check_counts(**counts: int) -> None:
    """Refuses a knob that counts something and is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it is a count, so choose 1 or more")
