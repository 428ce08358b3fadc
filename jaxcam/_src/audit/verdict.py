"""What follows from an audit, in one sentence and as plain numbers."""

import dataclasses
from typing import Any

import numpy as np

from jaxcam._src.audit import CLOSED, EXACT, MAPS, MEASURES, POSITIVE, QUANTILES, Audit, Shares
from jaxcam._src.maps import REASONS

_SAME = 1e-6  # a relative error of alpha below this is rounding
_ALL_BUT, _CLOSE = 0.99, 0.9  # correlations


def verdict(found: Audit) -> str:
    """Says in one sentence what an audit shows.

    Args:
      found: of one image, or of several with the arrays stacked (as `vmap` does); then the means
        count.

    Returns:
      Whether the closed form of Grad-CAM++ holds, and whether the exact one differs from Grad-CAM
      with positive gradients.
    """
    numbers = summary(found)
    pearson = numbers["agreement"]["pearson"][EXACT]
    error, likeness = numbers["alpha_error"], pearson[POSITIVE]
    if not np.isfinite([error, likeness]).all():
        return "There is no verdict: the derivatives are not finite."
    if found.structure.kind == "piecewise linear":
        first = "The closed form is exact here, since the head is piecewise linear"
    elif error <= _SAME:
        first = "The closed form is exact here up to rounding, though the head proves nothing"
    else:
        first = (
            f"The closed form is not exact here: its alpha is off by {error:.1%}, and its map "
            f"correlates {pearson[CLOSED]:.3f} with the exact one"
        )
    word = (
        "is all but" if likeness >= _ALL_BUT else "is close to" if likeness >= _CLOSE else "is not"
    )
    return (
        f"{first}; exact Grad-CAM++ {word} Grad-CAM with positive gradients (r = {likeness:.3f})."
        f"{_flat(found)}"
    )


def _flat(found: Audit) -> str:
    """A sentence about exact maps that are 0 everywhere, if there are any."""
    cams = np.asarray(found.maps[EXACT])
    flat = (cams == 0).all(axis=tuple(range(np.ndim(found.alpha_error), cams.ndim)))
    if not flat.any():
        return ""
    alphas = np.asarray(found.alpha_exact)[flat] if flat.ndim else np.asarray(found.alpha_exact)
    reason = "all of its alphas are 0" if not alphas.any() else REASONS[3]
    of_images = f" of {flat.mean():.0%} of the images" if flat.ndim else ""
    negative = f"{(alphas < 0).mean():.0%} of the alphas are negative"
    return f" The exact map{of_images} is flat: {reason} ({negative})."


def summary(found: Audit) -> dict[str, Any]:
    """The numbers of an audit, means over images where several are stacked, ready for JSON."""
    quantiles = np.asarray(found.sum_gradient)
    return {
        "structure": str(found.structure),
        "second_error": _mean(found.second_error),
        "third_error": _mean(found.third_error),
        "alpha_error": _mean(found.alpha_error),
        "closed": _shares(found.closed),
        "exact": _shares(found.exact),
        "sum_gradient": {str(q): _mean(quantiles[..., i]) for i, q in enumerate(QUANTILES)},
        "agreement": {
            measure: {a: {b: _mean(found.between(measure, a, b)) for b in MAPS} for a in MAPS}
            for measure in MEASURES
        },
    }


def _shares(shares: Shares) -> dict[str, float]:
    return {field.name: _mean(getattr(shares, field.name)) for field in dataclasses.fields(shares)}


def _mean(values: Any) -> float:
    return float(np.mean(values))
