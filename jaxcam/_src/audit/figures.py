"""The figures of an audit: ratios of two sums over activations, of all of them or of a sample."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.audit.record import Figures, Shares
from jaxcam._src.base import Derivatives
from jaxcam._src.methods.curvature import Alpha, exponential

NEAR_POLE = 0.01  # relative denominators below this in size are near a pole
_OFF = 0.1  # of the exact alpha: one that differs by more is off


class Ratio(NamedTuple):
    """What each activation adds to the two sums of a figure, in one shape."""

    part: Array
    whole: Array


def ratios(assumed: Derivatives, true: Derivatives, closed: Alpha, exact: Alpha) -> Figures:
    """What each activation adds to the shares, and to the squares of the errors."""
    unit = abs(true.first).max()
    unit = jnp.where(unit == 0, 1, unit)  # in which nothing overflows
    forms = (
        exponential(Derivatives(*(d / unit**n for n, d in enumerate(each, start=1))))
        for each in (assumed, true)
    )
    _, second, third = map(_error, *forms)
    weights = (a.values * jax.nn.relu(exact.first) for a in (closed, exact))
    counted = exact.first > 0
    is_off = counted & (abs(closed.values - exact.values) > _OFF * abs(exact.values))
    return Figures(
        second_error=second,
        third_error=third,
        alpha_error=_error(*weights),
        alpha_off=Ratio(*(x.astype(unit.dtype) for x in (is_off, counted))),
        exact=_unusual(exact),
    )


def of_a_sample(figures: Figures) -> Figures:
    """Those that a sample can tell: not what the few alphas nearest to a pole make up.

    `|alpha|` exceeds t at a share of activations like 1/t, and so has no mean: a sample's own
    would be that of the largest that it happens to have.
    """
    exact = dataclasses.replace(figures.exact, weight_near_pole=None)
    return dataclasses.replace(figures, alpha_error=None, exact=exact)


def error(ratio: Ratio) -> Float[Array, ""]:
    """A relative error in norm, of its squares."""
    return jnp.sqrt(share(ratio))


def share(ratio: Ratio) -> Float[Array, ""]:
    """The ratio of the sums; 0 where there is no part."""
    part, whole = ratio.part.sum(), ratio.whole.sum()
    return jnp.where(part == 0, 0, part / whole)


def closed_shares(closed: Alpha) -> Shares:
    """The shares of unusual alphas by the closed form, which are known of all activations."""
    return _each(share, _unusual(closed))


def each(
    of_error: Callable[[Ratio], Any], of_share: Callable[[Ratio], Any], figures: Figures
) -> Figures:
    """One function of every error's ratio, another of every share's; None where there is none."""
    return Figures(
        second_error=_each(of_error, figures.second_error),
        third_error=_each(of_error, figures.third_error),
        alpha_error=_each(of_error, figures.alpha_error),
        alpha_off=_each(of_share, figures.alpha_off),
        exact=_each(of_share, figures.exact),
    )


def _each(function: Callable[[Ratio], Any], of: Any) -> Any:
    return jax.tree.map(function, of, is_leaf=lambda x: isinstance(x, Ratio))


def _unusual(found: Alpha) -> Shares:
    """What each activation adds to the shares of unusual alphas."""
    size = abs(found.denominator)
    near_pole = (size > 0) & (size <= NEAR_POLE)
    added = abs(found.values) * jax.nn.relu(found.first)

    def of_all(counted: Array) -> Ratio:
        return Ratio(counted.astype(size.dtype), jnp.ones_like(size))

    return Shares(
        negative=of_all(found.values < 0),
        undefined=of_all(size == 0),
        near_pole=of_all(near_pole),
        weight_near_pole=Ratio(jnp.where(near_pole, added, 0), added),
    )


def _error(found: Array, wanted: Array) -> Ratio:
    return Ratio((found - wanted) ** 2, wanted**2)
