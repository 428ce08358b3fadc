"""What an audit found."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from jaxcam._src.derivatives import Structure
from jaxcam._src.weights.closed_forms import CLOSED_FORMS

QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
POSITIVE, CLOSED, EXACT = "positive gradients", "closed form", "exact exp"
PROBABILITY, LOG_PROBABILITY = "exact probability", "exact log-probability"
# In the order to be shown; a dictionary that passes `jit` comes back sorted by name.
MAPS = ("grad-cam", POSITIVE, CLOSED, EXACT, PROBABILITY, LOG_PROBABILITY, *CLOSED_FORMS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of the activations of a layer, each in [0, 1].

    Attributes:
      negative: alpha is below 0.
      undefined: the denominator of alpha is 0, and alpha was set to 0.
      near_pole: the two terms of the denominator cancel to 1 % or less.
      weight_near_pole: not a share of activations, but of what they add to the weights in size.
    """

    negative: Array
    undefined: Array
    near_pole: Array
    weight_near_pole: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Audit:
    """What closed-form Grad-CAM++ is worth at one layer, for one image. A pytree.

    An error is relative: the norm of the difference over the norm of the exact values.

    Attributes:
      structure: what the program proves of the logit, as a function of the activations.
      second_error: of `Y''`, for `Y = exp(logit)`.
      third_error: of `Y'''`.
      alpha_error: of alpha, each weighted by its positive gradient as in the weights.
      closed: shares of unusual alphas, closed form.
      exact: shares of unusual alphas, exact.
      sum_gradient: quantiles 0, .05, .5, .95 and 1 of `|Sigma_k g|`. Where it is far below 2,
        alpha is nearly 1/2 (Lerma & Lucas 2022, https://arxiv.org/abs/2205.10838).
      alpha_closed: alpha by the closed form, `[*spatial, K]`.
      alpha_exact: alpha, exact, `[*spatial, K]`.
      maps: by name (grad-cam, positive gradients, closed form, exact exp, exact probability,
        exact log-probability, and the closed forms of five public libraries) the map, `[*spatial]`
        in [0, 1], at the size of the layer.
      agreement: of every map with every other, `[11, 11]` in the order of `MAPS`, for each
        measure: pearson and spearman correlation, top_overlap (IoU of the top 20 %) and
        largest_difference. `between` looks one up.
      logits: what the model returned.
      target: the class that was explained.
    """

    structure: Structure = dataclasses.field(metadata={"static": True})
    second_error: Array
    third_error: Array
    alpha_error: Array
    closed: Shares
    exact: Shares
    sum_gradient: Array
    alpha_closed: Array
    alpha_exact: Array
    maps: dict[str, Array]
    agreement: dict[str, Array]
    logits: Any
    target: Any

    def between(self, measure: str, one: str, other: str) -> Array:
        """How far two maps agree, by one measure."""
        return self.agreement[measure][..., MAPS.index(one), MAPS.index(other)]
