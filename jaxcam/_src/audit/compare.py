"""The comparison of closed-form Grad-CAM++ with exact derivatives."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.audit.figures import closed_shares, each, error, of_a_sample, ratios, share
from jaxcam._src.audit.record import (
    CLOSED,
    EXACT,
    LOG_PROBABILITY,
    MAPS,
    POSITIVE,
    PROBABILITY,
    QUANTILES,
    Audit,
)
from jaxcam._src.audit.sample import drawn, measured
from jaxcam._src.base import ApplyFn, Key, ScoreFn, SplitFn, Tap
from jaxcam._src.derivatives import closed_form, derivatives, structure
from jaxcam._src.maps import combine, unit_range
from jaxcam._src.methods.closed_forms import CLOSED_FORMS
from jaxcam._src.methods.curvature import Alpha, alpha_from, alpha_of_line, identity
from jaxcam._src.metrics.agreement import largest_difference, pearson, spearman, top_overlap
from jaxcam._src.scores import log_probability, logit
from jaxcam._src.taps import tap

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
    *,
    score_fn: ScoreFn = logit,
    samples: int | None = None,
    key: Key | None = None,
) -> Audit:
    """Compares closed-form Grad-CAM++ with exact derivatives, for one image at one layer.

    A pure function, to be jitted over `variables, image, target`. Read the structure first: a
    dense head costs a direction per activation. A sample costs one for each of its own, and gives
    figures with intervals, but no exact map: `Audit.sample` says how.

    Args:
      apply_fn: `(variables, image) -> logits [classes]`, with tagged layers.
      layer: the name of a layer, or what `jaxcam.split` returns.
      variables: of the model.
      image: `[*spatial, C]`.
      target: index of the class; None is the top class.
      score_fn: the score whose closed form is checked, of `Y = exp(score)`. The maps of the
        probability are of the softmax, whatever the score.
      samples: how many activations to look at, at most, as many of each channel: 2 or more. None
        looks at all, and makes the exact maps.
      key: of the sample; images audited under one `vmap` share it, unless it is mapped too.

    Returns:
      The `Audit`; `jaxcam.verdict` says in one sentence what follows from it.

    Raises:
      ValueError: as `jaxcam.tap`; `samples` is below 2, or has no key.

    >>> audit = jaxcam.audit(apply_fn, "stage3", variables, image)
    >>> print(audit.structure)
    piecewise linear: one gradient
    """
    at = tap(apply_fn, layer, variables, image, target, score_fn=score_fn)
    activations, score = at.activations, at.score_activations
    total = accumulated(activations).sum(axis=at.spatial_axes, keepdims=True)
    proved, assumed = structure(score, activations), closed_form(score, activations)
    closed = alpha_of_line(assumed.first, total)
    indices = None if samples is None else _drawn(activations.shape, samples, key)
    true = derivatives(score, activations, at=indices)
    there = _taken(indices, (assumed, closed, jnp.broadcast_to(total, activations.shape)))
    exact = there[1] if proved.kind == "piecewise linear" else alpha_from(true, there[2])
    of_each = ratios(there[0], true, there[1], exact)
    of_each = of_each if indices is None else of_a_sample(of_each)
    alphas = {EXACT: exact, **_likely(at, total)} if indices is None else {}
    maps = _maps(at, assumed.first, {CLOSED: closed, **alphas})
    return Audit(
        structure=proved,
        **vars(each(error, share, of_each)),
        closed=closed_shares(closed),
        sum_gradient=jnp.quantile(abs(total * assumed.first), jnp.asarray(QUANTILES, total.dtype)),
        alpha_closed=closed.values,
        alpha_exact=exact.values,
        maps=maps,
        agreement=_agreement(jnp.stack([maps[name] for name in MAPS if name in maps])),
        logits=at.logits,
        target=at.target,
        sample=None if indices is None else measured(of_each, indices, activations.size),
    )


def _drawn(shape: tuple[int, ...], samples: int, key: Key | None) -> Int[Array, "n drawn"]:
    if samples < 2:
        raise ValueError(
            f"samples is {samples}; it counts activations, of which no interval can be made from "
            "less than two, so choose 2 or more, or None for all"
        )
    if key is None:
        raise ValueError("a sample is random: give its key, such as key=jax.random.key(0)")
    return drawn(shape, samples, key)


def _taken(indices: Array | None, of_all: PyTree) -> PyTree:
    """The entries that were sampled of arrays `[*spatial, K]`; None takes all as they are."""
    if indices is None:
        return of_all
    return jax.tree.map(lambda x: x.reshape(-1)[indices], of_all)


def _likely(at: Tap, total: Array) -> dict[str, Alpha]:
    """The exact alphas of the probability and of its logarithm, from derivatives of the latter."""
    likely = at.at_score(log_probability)
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
