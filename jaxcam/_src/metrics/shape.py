"""The shape of the map alone: how much of the picture it takes, and where."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, quotient
from jaxcam._src.metrics.trial import Trial


def entropy(trial: Trial) -> Float[Array, ""]:
    """The entropy of the heatmap taken as probabilities, in nats; lower is more concentrated.

    `-sum p ln p`, `p = M / sum M` (Bhatt et al. 2020, definition 4,
    https://arxiv.org/abs/2005.00631). From 0 to the logarithm of the number of pixels; 0 for a
    heatmap of zeros. It depends on the size of the picture.
    """
    values = accumulated(trial.heatmap)
    shares = quotient(values, values.sum())
    return -jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1)), 0).sum()


def gini(trial: Trial) -> Float[Array, ""]:
    """The Gini index of the heatmap, in [0, 1): 0 if all is even, higher if few pixels have it all.

    `sum_i (2 i - n - 1) M_(i) / (n sum M)` over the values in ascending order (Chalasani et al.
    2020, https://arxiv.org/abs/1810.06583). 0 for a heatmap of zeros.
    """
    values = jnp.sort(accumulated(trial.heatmap).reshape(-1))
    n = values.size
    ranks = 2 * jnp.arange(1, n + 1) - n - 1
    return quotient((ranks.astype(values.dtype) * values).sum(), n * values.sum())


def tied(trial: Trial) -> Float[Array, ""]:
    """The share of the pixels whose value another pixel has too, and which have no order.

    In [0, 1]. Metrics that remove pixels by rank take them in a random order.
    """
    values = jnp.sort(trial.heatmap.reshape(-1))
    equal = values[1:] == values[:-1]
    return (jnp.append(equal, False) | jnp.append(False, equal)).mean(dtype=jnp.float32)


def border(trial: Trial, *, share: float = 0.1) -> Float[Array, ""]:
    """The share of the heatmap's sum that lies on the border of the picture, in [0, 1].

    A heatmap of ones has the border's share of the area: read it beside that floor.

    Args:
      trial: whose heatmap.
      share: of each side, from both of its ends, that counts as border, in (0, 1/2].
    """
    return border_share(trial.heatmap, share)


def border_share(heatmap: Float[Array, "*size"], share: float = 0.1) -> Float[Array, ""]:
    """The same of a heatmap alone."""
    values = accumulated(heatmap)
    inner = values[tuple(_inner(side, share) for side in values.shape)].sum()
    return quotient(values.sum() - inner, values.sum())


def _inner(side: int, share: float) -> slice:
    width = max(1, round(share * side))
    return slice(width, max(width, side - width))
