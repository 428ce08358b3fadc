"""What numbers of some images say of all: intervals, and which differences are noise.

All resample the images, the same ones for every method: so that a difference of two methods has an
interval of its own, which is narrower than theirs where both find the same images hard.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

_AT_ONCE = 64  # resamples in memory


class Interval(NamedTuple):
    """A mean over images, and where it would lie for most other images of the same kind.

    Attributes:
      mean: over the images.
      low: the lower end of the interval.
      high: the upper end.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def resampled(
    numbers: Float[np.ndarray, "images *columns"], *, draws: int = 2000, seed: int = 0
) -> Float[np.ndarray, "draws *columns"]:
    """Means over images that were drawn again, with replacement (Efron 1979, the bootstrap).

    Args:
      numbers: one for each image; further axes are drawn together.
      draws: how often.
      seed: of the draws: equal seeds and numbers of images draw the same images.
    """
    rng, images = np.random.default_rng(seed), len(numbers)
    flat = numbers.reshape(images, -1).astype(np.float64)
    found = []
    for start in range(0, draws, _AT_ONCE):
        drawn = rng.integers(images, size=(min(_AT_ONCE, draws - start), images))
        times = np.stack([np.bincount(row, minlength=images) for row in drawn])
        found.append(times @ flat / images)
    return np.concatenate(found).reshape(draws, *numbers.shape[1:])


def interval(
    numbers: Float[np.ndarray, "images *columns"],
    *,
    of: Callable[[np.ndarray], np.ndarray] = lambda means: means,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean over images with its percentile interval of the bootstrap.

    Args:
      numbers: one for each image; further axes are columns with an interval each.
      of: what is wanted of means `[..., *columns]`, such as a harmonic mean of some columns.
      level: how often such an interval holds the mean, of many repetitions.
      draws: resamples.
      seed: of the draws.
    """
    means = of(resampled(numbers, draws=draws, seed=seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(of(numbers.mean(0, dtype=np.float64)), low, high)


def differences(numbers: Float[np.ndarray, "images methods"], **knobs: Any) -> Interval:
    """How much the mean of each method is above that of each other, `[methods, methods]`.

    Args:
      numbers: of one metric.
      **knobs: `level`, `draws` and `seed`, as for `interval`.
    """
    return interval(numbers, of=lambda means: means[..., :, None] - means[..., None, :], **knobs)


def win_rates(
    numbers: Float[np.ndarray, "images methods"], *, higher_is_better: bool
) -> Float[np.ndarray, "methods methods"]:
    """On which share of the images each method is better than each other; a tie is half a win."""
    signed = numbers if higher_is_better else -numbers
    ahead = signed[:, :, None] - signed[:, None, :]
    return ((ahead > 0) + (ahead == 0) / 2).mean(0)


def ranks(
    numbers: Float[np.ndarray, "images methods"], *, higher_is_better: bool, **knobs: Any
) -> Int[np.ndarray, " methods"]:
    """The place of each method: 1 and one more for each that is better beyond noise.

    Better beyond noise is that whose difference has an interval without 0. Methods of one place
    are not told apart by these images; places are no test of many hypotheses at once.

    Args:
      numbers: of one metric.
      higher_is_better: which way.
      **knobs: as for `differences`.
    """
    apart = differences(numbers if higher_is_better else -numbers, **knobs)
    return 1 + (apart.low > 0).sum(0)
