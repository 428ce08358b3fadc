"""Does the map say how much the score loses where pixels are removed at random?"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcam._src.arithmetic import accumulated, quotient
from jaxcam._src.chunks import check_counts, mapped
from jaxcam._src.metrics.agreement import pearson
from jaxcam._src.metrics.trial import Trial


def faithfulness_correlation(
    trial: Trial,
    *,
    share: float = 0.1,
    samples: int = 100,
    baseline_fn: Callable[[Array], Array] = jnp.zeros_like,
    chunk_size: int = 32,
) -> Float[Array, ""]:
    """The correlation between a subset's sum of the map and the score lost without it, in [-1, 1].

    Pearson's, over random subsets of the pixels (Bhatt et al. 2020, definition 3,
    https://arxiv.org/abs/2005.00631). Higher is better; 0 where the score never changes or the map
    is flat.

    Args:
      trial: whose map.
      share: of the pixels that a subset holds, in (0, 1).
      samples: how many subsets are drawn.
      baseline_fn: image -> image of what removed pixels become.
      chunk_size: images at once.
    """
    check_counts(samples=samples)
    baseline, size = baseline_fn(trial.image), trial.heatmap.size
    count = min(max(round(share * size), 1), size - 1)
    values = accumulated(trial.heatmap)

    def lost_and_said(key: Array) -> tuple[Array, Array]:
        removed = _subset(key, values, count)
        score = trial.score_image(jnp.where(removed[..., None], baseline, trial.image))
        return trial.score - score, jnp.where(removed, values, 0).sum()

    lost, said = mapped(lost_and_said, jax.random.split(trial.key, samples), chunk_size)
    is_flat = (lost.max() == lost.min()) | (values.max() == values.min())
    return jnp.where(is_flat, 0, pearson(lost, said))


def sensitivity_n(
    trial: Trial,
    *,
    shares: Sequence[float] = (0.01, 0.03, 0.1, 0.3),
    samples: int = 50,
    baseline_fn: Callable[[Array], Array] = jnp.zeros_like,
    chunk_size: int = 32,
) -> Float[Array, ""]:
    """Sensitivity-n: the mean of `faithfulness_correlation` over several sizes of subsets.

    Ancona et al. 2018, section 4, https://arxiv.org/abs/1711.06104. Arguments as there.
    """
    knobs = {"samples": samples, "baseline_fn": baseline_fn, "chunk_size": chunk_size}
    check_counts(shares=len(shares))
    found = [faithfulness_correlation(trial, share=share, **knobs) for share in shares]
    return jnp.stack(found).mean()


def infidelity(
    trial: Trial, *, scale: float = 0.1, samples: int = 50, chunk_size: int = 32
) -> Float[Array, ""]:
    """How far the map is from telling what noise does to the score; lower is better.

    `mean (b I . M - (f(x) - f(x - I)))^2 / mean (f(x) - f(x - I))^2` with the entries of `I` normal
    (Yeh et al. 2019, definition 2.1, https://arxiv.org/abs/1901.09392). A class activation map has
    no unit, so `b` is the factor that fits best, and the error a share of what there is to explain:
    in [0, 1], and 0 where the score never changes.

    Args:
      trial: whose map.
      scale: the standard deviation of the noise, in units of the image as the model takes it.
      samples: how many are drawn.
      chunk_size: images at once.
    """
    check_counts(samples=samples)
    values = accumulated(trial.heatmap)

    def said_and_lost(key: Array) -> tuple[Array, Array]:
        moved = trial.image - scale * jax.random.normal(key, trial.image.shape, trial.image.dtype)
        noise = accumulated(trial.image) - accumulated(moved)  # as it was rounded
        return (noise.sum(-1) * values).sum(), trial.score - trial.score_image(moved)

    found = mapped(said_and_lost, jax.random.split(trial.key, samples), chunk_size)
    said, lost = (quotient(x, abs(x).max()) for x in found)  # of any scale, as the result is
    fitted = quotient((said * lost).sum(), (said**2).sum())
    return quotient(((fitted * said - lost) ** 2).sum(), (lost**2).sum())


def _subset(key: Array, like: Float[Array, "*size"], count: int) -> Bool[Array, "*size"]:
    """So many pixels, drawn without replacement; one fewer at odds of one to 2^32 / pixels."""
    lots = jax.random.bits(key, like.shape, jnp.uint32)
    return lots < jnp.sort(lots, axis=None)[count]
