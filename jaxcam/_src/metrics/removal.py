"""Pixels removed step by step in the order of the map. Exact counts: the order is one of ranks.

Deletion and insertion replace pixels by a baseline; ROAD fills them from their neighbours, so that
the shape of what is removed tells the model less.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcam._src.arithmetic import accumulated, length, quotient
from jaxcam._src.blurring import blurred
from jaxcam._src.chunks import check_counts, mapped
from jaxcam._src.metrics.trial import Trial

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def deletion(
    trial: Trial,
    *,
    steps: int = 20,
    baseline_fn: Callable[[Array], Array] = jnp.zeros_like,
    chunk_size: int = 32,
) -> Float[Array, ""]:
    """Deletion: the area under the score while pixels are removed, most important first.

    Lower is better (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421).

    Args:
      trial: whose map gives the order; equal values follow a random one.
      steps: after each an equal share of the pixels is gone, after the last all.
      baseline_fn: image -> image of what removed pixels become; zeros are the mean colour of the
        usual preprocessing.
      chunk_size: images at once.
    """
    return area(deletion_curve(trial, steps=steps, baseline_fn=baseline_fn, chunk_size=chunk_size))


def insertion(
    trial: Trial,
    *,
    steps: int = 20,
    baseline_fn: Callable[[Array], Array] = blurred,
    chunk_size: int = 32,
) -> Float[Array, ""]:
    """Insertion: the area under the score while pixels enter a baseline, most important first.

    Higher is better. Arguments as for `deletion`; the baseline is the blurred image, as in the
    paper, whose kernel is another.
    """
    return area(insertion_curve(trial, steps=steps, baseline_fn=baseline_fn, chunk_size=chunk_size))


def deletion_curve(
    trial: Trial,
    *,
    steps: int = 20,
    baseline_fn: Callable[[Array], Array] = jnp.zeros_like,
    chunk_size: int = 32,
) -> Float[Array, " points"]:
    """The scores behind `deletion`, from none to all pixels removed. Arguments as there."""
    check_counts(steps=steps)
    baseline = baseline_fn(trial.image)
    return _scores(trial, trial.image, baseline, steps, chunk_size)


def insertion_curve(
    trial: Trial,
    *,
    steps: int = 20,
    baseline_fn: Callable[[Array], Array] = blurred,
    chunk_size: int = 32,
) -> Float[Array, " points"]:
    """The scores behind `insertion`, from the baseline to the image. Arguments as there."""
    check_counts(steps=steps)
    baseline = baseline_fn(trial.image)
    return _scores(trial, baseline, trial.image, steps, chunk_size)


def area(curve: Any) -> Any:
    """The area under a curve `[points]` over [0, 1], by trapezoids; in NumPy of one in NumPy."""
    values = accumulated(curve)
    return (values[1:] + values[:-1]).mean() / 2


def road_morf(
    trial: Trial, *, shares: Sequence[float] = SHARES, chunk_size: int = 32
) -> Float[Array, ""]:
    """ROAD, most relevant first: the mean score without the top pixels; lower is better.

    Removed pixels become the weighted mean of their eight neighbours, which is one linear system
    for all of them, and normal noise of standard deviation 0.01 in units of the image as the model
    takes it; the authors add it before the preprocessing (Rong et al. 2022,
    https://arxiv.org/abs/2202.00449).

    Args:
      trial: whose map gives the order; equal values follow a random one.
      shares: of the pixels that are removed, each below 1.
      chunk_size: images at once.
    """
    return _imputed_scores(trial, most_first=True, shares=shares, chunk_size=chunk_size).mean()


def road_lerf(
    trial: Trial, *, shares: Sequence[float] = SHARES, chunk_size: int = 32
) -> Float[Array, ""]:
    """ROAD, least relevant first: the mean score without the lowest pixels; higher is better."""
    return _imputed_scores(trial, most_first=False, shares=shares, chunk_size=chunk_size).mean()


def road(
    trial: Trial, *, shares: Sequence[float] = SHARES, chunk_size: int = 32
) -> Float[Array, ""]:
    """ROAD combined, `(LeRF - MoRF) / 2`, in [-1/2, 1/2] of a probability; higher is better."""
    knobs = {"shares": shares, "chunk_size": chunk_size}
    return (road_lerf(trial, **knobs) - road_morf(trial, **knobs)) / 2


def ranks(values: Float[Array, "*size"], key: Array) -> Int[Array, "*size"]:
    """The place of each value, the largest first; equal values in a random order of the key."""
    flat = values.reshape(-1)
    places, lots = jnp.arange(flat.size), jax.random.bits(key, flat.shape, jnp.uint32)
    *_, order = jax.lax.sort((-flat, lots, places), num_keys=2)
    return jnp.zeros_like(order).at[order].set(places).reshape(values.shape)


def imputed(
    image: Float[Array, "*spatial C"],
    removed: Bool[Array, "*spatial"],
    *,
    iterations: int | None = None,
) -> Float[Array, "*spatial C"]:
    """The image with removed pixels filled from their neighbours.

    Each becomes the mean of its neighbours with the weights 1 for those that share a side and 1/2
    for each step more; at the border of the picture of those that there are. The linear system is
    symmetric and positive definite, and is solved by conjugate gradients.

    Args:
      image: whose pixels.
      removed: at least one is left.
      iterations: of the solver, which starts from the mean of what is kept; None is four times the
        longest side, since one carries what is kept a pixel further.
    """
    spatial, x = image.shape[:-1], accumulated(image)
    gone = removed[..., None]
    total = _neighbours(jnp.ones((*spatial, 1), x.dtype))

    def system(inside: Array) -> Array:
        inside = jnp.where(gone, inside, 0)
        return jnp.where(gone, total * inside - _neighbours(inside), 0)

    kept = jnp.where(gone, 0, x)
    known = jnp.where(gone, _neighbours(kept), 0)
    mean = quotient(kept.sum(range(kept.ndim - 1)), (~removed).sum().astype(x.dtype))
    filled, _ = jax.scipy.sparse.linalg.cg(
        system,
        known,
        x0=jnp.where(gone, jnp.broadcast_to(mean.reshape((1,) * len(spatial) + (-1,)), x.shape), 0),
        maxiter=4 * max(spatial) if iterations is None else iterations,
        tol=1e-6,
        # Where all around is 0, `tol` leaves nothing, and the solver would go on to 0/0.
        atol=1e-12 * length(kept),  # pyright: ignore[reportArgumentType]
        M=lambda r: r / total,
    )
    return jnp.where(gone, filled, x).astype(image.dtype)


def _neighbours(values: Float[Array, "*spatial C"]) -> Float[Array, "*spatial C"]:
    """The weighted sum of the neighbours; beyond the border there are none."""
    rank = values.ndim - 1
    steps = np.abs(np.stack(np.meshgrid(*[(-1, 0, 1)] * rank, indexing="ij"))).sum(0)
    weights = np.where(steps > 0, 2.0 ** (1 - steps), 0)
    padded = jnp.pad(values, [(1, 1)] * rank + [(0, 0)])
    # Not stacked and summed: the compiler would write all of them out before it adds.
    return sum(
        (
            w * padded[tuple(slice(i, i + n) for i, n in zip(at, values.shape[:-1], strict=True))]
            for at, w in np.ndenumerate(weights)
            if w
        ),
        start=jnp.zeros_like(values),
    )


def _scores(
    trial: Trial, before: Array, after: Array, steps: int, chunk_size: int
) -> Float[Array, " points"]:
    """The scores while pixels of one image take the place of those of the other, in order."""
    place = ranks(trial.heatmap, trial.key)
    counts = jnp.asarray(np.round(np.linspace(0, place.size, steps + 1)), place.dtype)

    def score(count: Array) -> Array:
        return trial.score_image(jnp.where((place < count)[..., None], after, before))

    return mapped(score, counts, chunk_size)


def _imputed_scores(
    trial: Trial, *, most_first: bool, shares: Sequence[float], chunk_size: int
) -> Float[Array, " shares"]:
    check_counts(shares=len(shares))
    order_key, noise_key = jax.random.split(trial.key)
    place = ranks(trial.heatmap if most_first else -trial.heatmap, order_key)
    counts = jnp.asarray([min(round(s * place.size), place.size - 1) for s in shares], place.dtype)
    noise = 0.01 * jax.random.normal(noise_key, trial.image.shape, trial.image.dtype)

    def without(count: Array) -> Array:
        removed = place < count
        filled = imputed(trial.image, removed)
        return jnp.where(removed[..., None], filled + noise, filled)

    # One by one: each solver stops by itself, and works on what a cache holds.
    return mapped(trial.score_image, jax.lax.map(without, counts), chunk_size)
