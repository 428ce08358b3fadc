"""A sample of a layer's activations, and what its figures say of all of them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcam._src.arithmetic import quotient
from jaxcam._src.audit.figures import Ratio, each, share
from jaxcam._src.audit.record import Figures, Sample
from jaxcam._src.base import Key

_Z = 1.96  # so many standard deviations on either side hold 95 %


def drawn(shape: tuple[int, ...], samples: int, key: Key) -> Int[Array, "n drawn"]:
    """Flat indices into activations `[*spatial, K]`, at most `samples`, as many of each channel.

    Positions are drawn for each channel alone, without replacement. Below K samples, as many
    channels are drawn, with a position each.
    """
    positions, channels = math.prod(shape[:-1]), shape[-1]
    strata = min(samples, channels)
    for_positions, for_channels = jax.random.split(key)
    order = jnp.broadcast_to(jnp.arange(positions)[:, None], (positions, strata))
    order = jax.random.permutation(for_positions, order, axis=0, independent=True)
    chosen = jnp.sort(jax.random.permutation(for_channels, channels)[:strata])
    return order[: samples // strata] * channels + chosen[None]


def measured(of_each: Figures, indices: Int[Array, "n drawn"], size: int) -> Sample:
    """What the ratios of sampled activations say of all `size`: 95 % intervals of the figures."""

    def ends(end: int) -> Figures:
        return each(
            lambda error: _of_error(error, size)[end],
            lambda share: _of_share(share, size)[end],
            of_each,
        )

    return Sample(indices, ends(0), ends(1))


def _of_error(ratio: Ratio, size: int) -> tuple[Array, Array]:
    """Normal in the logarithm, since an error is above 0 and its estimate is skewed."""
    found = share(ratio)
    spread = quotient(jnp.sqrt(_variance(ratio, size)), found)
    return jnp.sqrt(found * jnp.exp(-_Z * spread)), jnp.sqrt(found * jnp.exp(_Z * spread))


def _of_share(ratio: Ratio, size: int) -> tuple[Array, Array]:
    """Wilson's interval (1927, https://doi.org/10.1080/01621459.1927.10502953), inside [0, 1].

    It has a width where none of the sample, or all of it, is of the kind. The sample counts for
    as many activations as a plain share would need for this variance.
    """
    found, n = share(ratio), ratio.part.size
    binomial = found * (1 - found)
    one_over_n = jnp.where(
        binomial > 0, quotient(_variance(ratio, size), binomial), _left(n, size) / n
    )
    q = _Z**2 * one_over_n
    middle, half = found + q / 2, jnp.sqrt(q * binomial + q**2 / 4)
    return (middle - half) / (1 + q), (middle + half) / (1 + q)


def _variance(ratio: Ratio, size: int) -> Float[Array, ""]:
    """Of a ratio of sums, by linearisation (Cochran 1977, Sampling Techniques, ch. 6)."""
    n = ratio.part.size
    residuals = quotient(ratio.part - share(ratio) * ratio.whole, ratio.whole.mean())
    return _left(n, size) * (residuals**2).sum() / (n * max(n - 1, 1))


def _left(n: int, size: int) -> float:
    """The share that is not in the sample, by which its variance is smaller."""
    return 1 - n / size
