"""What follows from an audit, in one sentence and as plain numbers."""

import math
from typing import Any

import numpy as np

from jaxcam._src.audit import CLOSED, EXACT, MEASURES, POSITIVE, QUANTILES, Audit, Shares
from jaxcam._src.audit.record import Figures, Sample
from jaxcam._src.maps import REASONS

_SAME = 1e-6  # a relative error below this is rounding
_ALL_BUT, _CLOSE = 0.99, 0.9  # correlations
_LINEAR = "The closed form is exact here, since the head is piecewise linear"


def verdict(found: Audit) -> str:
    """Says in one sentence what an audit shows.

    Args:
      found: of one image, or of several with the arrays stacked (as `vmap` does); then the means
        count.

    Returns:
      Whether the closed form of Grad-CAM++ holds, and whether the exact one differs from Grad-CAM
      with positive gradients.

    >>> audit = jaxcam.audit(apply_fn, "stage3", variables, image)
    >>> print(jaxcam.verdict(audit).split(";")[0])
    The closed form is exact here, since the head is piecewise linear
    """
    numbers = summary(found)
    errors = [numbers.get(name, 0) for name in ("second_error", "third_error", "alpha_error")]
    if not np.isfinite([*errors, *numbers["agreement"]["pearson"][POSITIVE].values()]).all():
        return "There is no verdict: the derivatives are not finite."
    if found.sample:
        return f"{_closed_by_sample(found, numbers)}; a sample has no exact map."
    return f"{_closed(found, numbers)}; {_likeness(numbers)}{_flat(found)}"


def _closed(found: Audit, numbers: dict[str, Any]) -> str:
    """Whether the closed form holds."""
    error = numbers["alpha_error"]
    if found.structure.kind == "piecewise linear":
        return _LINEAR
    if error <= _SAME:
        return "The closed form is exact here up to rounding, though the head proves nothing"
    alike = numbers["agreement"]["pearson"][EXACT][CLOSED]
    return (
        f"The closed form is not exact here: its alpha is off by {error:.1%}, and its map "
        f"correlates {alike:.3f} with the exact one"
    )


def _closed_by_sample(found: Audit, numbers: dict[str, Any]) -> str:
    if found.structure.kind == "piecewise linear":
        return _LINEAR
    sample = numbers["sample"]
    low, high = (sample[end]["alpha_off"] for end in ("low", "high"))
    off = numbers["alpha_off"]
    error, name = max((numbers["second_error"], "Y''"), (numbers["third_error"], "Y'''"))
    word = "is not exact" if off > 0 or error > _SAME else "may be exact"
    return (
        f"The closed form {word} here, by a sample of {sample['activations']:,} of "
        f"{sample['of']:,} activations: its alpha is off by more than a tenth at {off:.1%} of "
        f"those with a positive gradient (95% interval {low:.1%} to {high:.1%}), its {name} by "
        f"{error:.1%}"
    )


def _likeness(numbers: dict[str, Any]) -> str:
    """Whether the exact map is that of Grad-CAM with positive gradients."""
    r = numbers["agreement"]["pearson"][EXACT][POSITIVE]
    word = "is all but" if r >= _ALL_BUT else "is close to" if r >= _CLOSE else "is not"
    return f"exact Grad-CAM++ {word} Grad-CAM with positive gradients (r = {r:.3f})."


def _flat(found: Audit) -> str:
    """A sentence about exact maps that are 0 everywhere, if there are any."""
    cams = np.asarray(found.maps[EXACT])
    flat = (cams == 0).all(axis=tuple(range(np.ndim(found.second_error), cams.ndim)))
    if not flat.any():
        return ""
    alphas = np.asarray(found.alpha_exact)[flat] if flat.ndim else np.asarray(found.alpha_exact)
    reason = "all of its alphas are 0" if not alphas.any() else REASONS[3]
    of_images = f" of {flat.mean():.0%} of the images" if flat.ndim else ""
    negative = f"{(alphas < 0).mean():.0%} of the alphas are negative"
    return f" The exact map{of_images} is flat: {reason} ({negative})."


def summary(found: Audit) -> dict[str, Any]:
    """The numbers of an audit, means over images where several are stacked, ready for JSON.

    Of a sample also its size, and the means of the ends of its intervals: no narrower than an
    interval of the mean, since images may share their sample.
    """
    quantiles = np.asarray(found.sum_gradient)
    return {
        "structure": str(found.structure),
        **_figures(found),
        "closed": _numbers(found.closed),
        "sum_gradient": {str(q): _mean(quantiles[..., i]) for i, q in enumerate(QUANTILES)},
        "agreement": {
            measure: {
                a: {b: _mean(found.between(measure, a, b)) for b in found.names}
                for a in found.names
            }
            for measure in MEASURES
        },
        **({"sample": _sample(found, found.sample)} if found.sample else {}),
    }


def _sample(found: Audit, sample: Sample) -> dict[str, Any]:
    axes = np.ndim(found.second_error)  # of the images
    return {
        "activations": math.prod(np.shape(sample.indices)[axes:]),
        "of": math.prod(np.shape(found.alpha_closed)[axes:]),
        "low": _figures(sample.low),
        "high": _figures(sample.high),
    }


def _figures(found: Audit | Figures) -> dict[str, Any]:
    names = ("second_error", "third_error", "alpha_error", "alpha_off")
    return _known({name: getattr(found, name) for name in names}) | {"exact": _numbers(found.exact)}


def _numbers(shares: Shares) -> dict[str, float]:
    return _known(vars(shares))


def _known(values: dict[str, Any]) -> dict[str, float]:
    """Means over images, without what a sample leaves out."""
    return {name: _mean(value) for name, value in values.items() if value is not None}


def _mean(values: Any) -> float:
    return float(np.mean(values))
