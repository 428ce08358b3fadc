"""The comparison of closed-form Grad-CAM++ with exact derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.audit.record import (
    CLOSED,
    EXACT,
    LOG_PROBABILITY,
    MAPS,
    POSITIVE,
    PROBABILITY,
    QUANTILES,
    Audit,
    Shares,
)
from jaxcam._src.base import ApplyFn, Derivatives, SplitFn, Tap
from jaxcam._src.derivatives import closed_form, derivatives, structure
from jaxcam._src.explain import tap
from jaxcam._src.maps import combine, unit_range
from jaxcam._src.metrics.agreement import largest_difference, pearson, spearman, top_overlap
from jaxcam._src.scores import log_probability
from jaxcam._src.weights.closed_forms import CLOSED_FORMS
from jaxcam._src.weights.curvature import Alpha, alpha_from, alpha_of_line, exponential, identity

NEAR_POLE = 0.01  # relative denominators below this in size are near a pole
MEASURES = {
    "pearson": pearson,
    "spearman": spearman,
    "top_overlap": top_overlap,
    "largest_difference": largest_difference,
}


def audit(
    apply_fn: ApplyFn,
    layer: str | SplitFn,
    variables: PyTree,
    image: ArrayLike,
    target: Any = None,
) -> Audit:
    """Compares closed-form Grad-CAM++ with exact derivatives, for one image at one layer.

    A pure function, to be jitted over `variables, image, target`. Read the structure first: a
    dense head costs two directional derivatives per activation.

    Args:
      apply_fn: `(variables, image) -> logits [classes]`, with tagged layers.
      layer: the name of a layer, or what `jaxcam.split` returns.
      variables: of the model.
      image: `[*spatial, C]`.
      target: index of the class; None is the top class.

    Returns:
      The `Audit`; `jaxcam.verdict` says in one sentence what follows from it.

    Raises:
      ValueError: as `jaxcam.tap`.
    """
    at = tap(apply_fn, layer, variables, image, target)
    likely = tap(apply_fn, layer, variables, image, at.target, score_fn=log_probability)
    total = accumulated(at.activations).sum(axis=at.spatial_axes, keepdims=True)
    proved = structure(at.score_activations, at.activations)
    assumed = closed_form(at.score_activations, at.activations)
    true = derivatives(at.score_activations, at.activations)
    closed = alpha_of_line(assumed.first, total)
    exact = closed if proved.kind == "piecewise linear" else alpha_from(true, total)
    maps = _maps(at, assumed.first, {CLOSED: closed, EXACT: exact, **_likely(at, likely, total)})
    return Audit(
        structure=proved,
        second_error=_form_error(assumed, true, 1),
        third_error=_form_error(assumed, true, 2),
        alpha_error=_error(*(a.values * jax.nn.relu(exact.first) for a in (closed, exact))),
        closed=_shares(closed),
        exact=_shares(exact),
        sum_gradient=jnp.quantile(abs(total * assumed.first), jnp.asarray(QUANTILES, total.dtype)),
        alpha_closed=closed.values,
        alpha_exact=exact.values,
        maps=maps,
        agreement=_agreement(jnp.stack([maps[name] for name in MAPS])),
        logits=at.logits,
        target=at.target,
    )


def _likely(at: Tap, likely: Tap, total: Array) -> dict[str, Alpha]:
    """The exact alphas of the probability and of its logarithm, from derivatives of the latter."""
    found = derivatives(likely.score_activations, at.activations)
    return {
        PROBABILITY: alpha_from(found, total),
        LOG_PROBABILITY: alpha_from(found, total, identity),
    }


def _maps(at: Tap, gradient: Array, alphas: dict[str, Alpha]) -> dict[str, Array]:
    """The map of every method that is compared, in [0, 1]."""
    activations = accumulated(at.activations)

    def over_positions(values: Array) -> Array:
        return values.sum(axis=at.spatial_axes, keepdims=True)

    weights = {
        "grad-cam": over_positions(gradient),
        POSITIVE: over_positions(jax.nn.relu(gradient)),
    }
    weights |= {name: over_positions(a.values * jax.nn.relu(a.first)) for name, a in alphas.items()}
    weights |= {name: form(gradient, activations) for name, form in CLOSED_FORMS.items()}
    return {name: unit_range(combine(w, activations)) for name, w in weights.items()}


def _agreement(maps: Float[Array, "maps *spatial"]) -> dict[str, Array]:
    def of_all_pairs(measure: Any) -> Array:
        return jax.vmap(lambda one: jax.vmap(lambda other: measure(one, other))(maps))(maps)

    return {name: of_all_pairs(measure) for name, measure in MEASURES.items()}


def _form_error(assumed: Derivatives, true: Derivatives, order: int) -> Float[Array, ""]:
    """The relative error of one derivative of `exp(S)`, in a unit in which nothing overflows."""
    unit = abs(true.first).max()
    unit = jnp.where(unit == 0, 1, unit)
    forms = (
        exponential(Derivatives(*(d / unit**n for n, d in enumerate(each, start=1))))
        for each in (assumed, true)
    )
    return _error(*(form[order] for form in forms))


def _error(found: Array, wanted: Array) -> Float[Array, ""]:
    """Relative error in norm; 0 where both are 0."""
    error, size = (jnp.sqrt((v**2).sum()) for v in (found - wanted, wanted))
    return jnp.where(error == 0, 0, error / size)


def _shares(found: Alpha) -> Shares:
    size = abs(found.denominator)
    near_pole = (size > 0) & (size <= NEAR_POLE)
    added = abs(found.values) * jax.nn.relu(found.first)
    total = added.sum()
    return Shares(
        negative=(found.values < 0).mean(),
        undefined=(size == 0).mean(),
        near_pole=near_pole.mean(),
        weight_near_pole=jnp.where(near_pole, added, 0).sum() / jnp.where(total == 0, 1, total),
    )
