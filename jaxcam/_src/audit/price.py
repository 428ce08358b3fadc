"""What an audit will cost, before it is paid."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from jaxcam._src.base import Derivatives, Model, ScoreFn, SplitFn, Tap
from jaxcam._src.compiling import compiler_options
from jaxcam._src.derivatives import Structure, derivatives, structure
from jaxcam._src.scores import log_probability, logit
from jaxcam._src.taps import tap

_DEAREST = 16  # scores that a direction may cost: it takes 8 products where they take one
_TRIED = 64  # directions that are timed; no more than these are not worth a trial
_REST = ("local, then pooled", "piecewise linear first")  # these go on once for each activation


class Price(NamedTuple):
    """Seconds that an audit takes.

    Attributes:
      start: before the first image, for each score: tracing and compiling.
      direction: of each direction of a sample.
      least: of a whole audit of one image, for its directions alone.
      most: as if what follows the directions, once for each activation, cost as much as they.
    """

    start: float
    direction: float
    least: float
    most: float


def price(
    model: Model,
    layer: str | SplitFn,
    image: ArrayLike,
    target: int | None,
    score_fn: ScoreFn = logit,
    *,
    enough: float = 0.0,
) -> Price:
    """What an audit takes, by its structures, and by the time that some directions take.

    Nothing is tried, and the price is 0, where an image takes no more than `enough` seconds beside
    compiling, by what the score takes.
    """
    taps = functools.partial(_taps, model, layer, score_fn)
    proved = _structures(taps, model.variables, image, target)
    least = sum(map(_directions, proved))
    most = least + sum(found.size for found in proved if found.kind in _REST)
    if most <= _TRIED:
        return Price(0.0, 0.0, 0.0, 0.0)
    if enough and most * _DEAREST * _forward(taps, model, image, target) <= enough:
        return Price(0.0, 0.0, 0.0, 0.0)
    tried = min(_TRIED, proved[1].size)

    def trial(variables: Any, image: Any) -> Derivatives:
        likely = taps(variables, image, target)[1]
        return derivatives(likely.score_activations, likely.activations, at=jnp.arange(tried))

    start, run = _timed(lambda: _compiled(trial, model.variables, image))
    _timed(run)  # the first is slower
    seconds, _ = _timed(run)
    if proved[1].directions <= tried:  # then these were all, and what follows them
        return Price(start, seconds / tried, 2 * seconds, 2 * seconds)
    direction = seconds / tried
    return Price(start, direction, least * direction, most * direction)


def _forward(
    taps: Callable[..., tuple[Tap, Tap]], model: Model, image: Any, target: int | None
) -> float:
    """Seconds that the score of one set of activations takes, among many at once."""

    def scores(variables: Any, image: Any, factors: Array) -> Array:
        at, _ = taps(variables, image, target)
        of_one = lambda factor: at.score_activations(at.activations * factor)  # noqa: E731
        return jax.vmap(of_one)(factors.astype(at.activations.dtype))

    run = _compiled(scores, model.variables, image, jnp.ones(_TRIED))
    return min(_timed(run)[0] for _ in range(3)) / _TRIED


def _taps(
    model: Model,
    layer: str | SplitFn,
    score_fn: ScoreFn,
    variables: Any,
    image: Any,
    target: int | None,
) -> tuple[Tap, Tap]:
    """Of the score, and of the log-probability, whose derivatives a whole audit takes too."""
    at = tap(model.apply_fn, layer, variables, image, target, score_fn=score_fn)
    return at, at.at_score(log_probability)


def _structures(
    taps: Callable[..., tuple[Tap, Tap]], variables: Any, image: Any, target: int | None
) -> list[Structure]:
    found = []

    def look(variables: Any, image: Any) -> None:
        at_each = taps(variables, image, target)
        found.extend(structure(at.score_activations, at.activations) for at in at_each)

    jax.eval_shape(look, variables, image)
    return found


def _directions(found: Structure) -> int:
    """Through the head: behind a pool they only go through what follows it."""
    return 1 if found.kind in ("piecewise linear", "pooled first") else found.directions


def _compiled(function: Callable[..., Any], *given: Any) -> Callable[[], Any]:
    jitted = jax.jit(function, compiler_options=compiler_options())
    return functools.partial(jitted.lower(*given).compile(), *given)


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """How many seconds a function takes, and what it returns."""
    start = time.perf_counter()
    found = jax.block_until_ready(function())
    return time.perf_counter() - start, found
