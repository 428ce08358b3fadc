"""What numbers of some images say of all: intervals, and which differences are noise.

The bootstrap (Efron 1979, https://doi.org/10.1214/aos/1176344552) draws the images again, the same
ones for every method: so that a difference of two methods has an interval of its own, which is
narrower than theirs where both find the same images hard.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from jaxcam._src.chunks import check_counts

_AT_ONCE = 64  # resamples in memory
_ROUNDING = 2.0**-20  # of the largest number: 8 units in the last place of float32
LEVEL, DRAWS = 0.95, 2000


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
    numbers: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> Float[np.ndarray, "draws *columns"]:
    """Means over images that were drawn again, with replacement.

    Args:
      numbers: `[images, *columns]`, whose columns are drawn together.
      draws: how often, at least 1.
      seed: of the draws: equal seeds and numbers of images draw the same images.

    Returns:
      A mean of each column for each draw.

    Raises:
      ValueError: there is no image, or no draw.
    """
    check_counts(draws=draws)
    values = _checked(numbers)
    rng, images = np.random.default_rng(seed), len(values)
    flat, found = values.reshape(images, -1), []
    for start in range(0, draws, _AT_ONCE):
        drawn = rng.integers(images, size=(min(_AT_ONCE, draws - start), images))
        times = np.stack([np.bincount(row, minlength=images) for row in drawn])
        found.append(times @ flat / images)
    return np.concatenate(found).reshape(draws, *values.shape[1:])


def interval(
    numbers: ArrayLike,
    *,
    of: Callable[[np.ndarray], np.ndarray] = lambda means: means,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The mean over images with its percentile interval.

    Args:
      numbers: `[images, *columns]`; each column has an interval.
      of: what is wanted of means `[..., *columns]`, such as a harmonic mean of some columns.
      level: how often such an interval holds the mean, of many repetitions, in (0, 1).
      draws: resamples, at least 1.
      seed: of the draws.

    Returns:
      The mean, and the ends of its interval: of one image it is that point, which says nothing.

    Raises:
      ValueError: there is no image, or no draw.
    """
    means = of(resampled(numbers, draws=draws, seed=seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Interval(of(_checked(numbers).mean(0)), low, high)


def differences(numbers: ArrayLike, **knobs: Any) -> Interval:
    """How much the mean of each method is above that of each other, `[methods, methods]`.

    Means are equal that differ by less than what float32 rounds of the largest number: so are those
    of two methods that are one by their formulas.

    Args:
      numbers: of one metric, `[images, methods]`.
      **knobs: `level`, `draws` and `seed`, as for `interval`.

    Raises:
      ValueError: there is no image, or no draw, or the numbers have other axes.
    """
    values = _of_methods(numbers)

    def apart(means: np.ndarray) -> np.ndarray:
        return _without_rounding(means[..., :, None] - means[..., None, :], values)

    return interval(values, of=apart, **knobs)


def ranks(apart: Interval, *, higher_is_better: bool) -> Int[np.ndarray, " methods"]:
    """The place of each method: 1, and one more for each that is better beyond noise.

    Better beyond noise is that whose difference has an interval without 0. Methods of one place
    are not told apart by these images; places are no test of many hypotheses at once.

    Args:
      apart: the `differences` of a metric.
      higher_is_better: which way.
    """
    is_worse = apart.high < 0 if higher_is_better else apart.low > 0
    return 1 + is_worse.sum(1)


def win_rates(
    numbers: ArrayLike, *, higher_is_better: bool
) -> Float[np.ndarray, "methods methods"]:
    """On which share of the images each method is better than each other; a tie is half a win.

    Numbers tie that differ by less than what float32 rounds of the largest.

    Args:
      numbers: of one metric, `[images, methods]`.
      higher_is_better: which way.

    Returns:
      Shares; NaN for a pair of methods of which one has a NaN.

    Raises:
      ValueError: there is no image, or the numbers have other axes.
    """
    values = _of_methods(numbers) if higher_is_better else -_of_methods(numbers)
    leads = (_without_rounding(own[:, None] - values, values) for own in values.T)
    return np.stack([(1 + np.sign(lead).mean(0)) / 2 for lead in leads])


def _without_rounding(apart: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Differences of numbers, 0 where they are no more than rounding."""
    return np.where(abs(apart) <= _ROUNDING * np.nanmax(abs(values), initial=0), 0, apart)


def _of_methods(numbers: ArrayLike) -> np.ndarray:
    values = _checked(numbers)
    if values.ndim != 2:
        raise ValueError(
            f"numbers have the shape {list(values.shape)}; wanted [images, methods], of one metric"
        )
    return values


def _checked(numbers: ArrayLike) -> np.ndarray:
    values = np.asarray(numbers, np.float64)
    if not values.size:
        raise ValueError(
            f"numbers have the shape {list(values.shape)}; wanted [images, ...], of one image or "
            "more"
        )
    return values
