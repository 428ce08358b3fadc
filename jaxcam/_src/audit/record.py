"""What an audit found."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from jaxcam._src import shown
from jaxcam._src.derivatives import Structure
from jaxcam._src.methods.closed_forms import CLOSED_FORMS

_UNKNOWN = "An audit whose numbers are not known, such as inside a trace"
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
      weight_near_pole: not a share of activations, but of what they add to the weights in size;
        None of a sample.
    """

    negative: Any
    undefined: Any
    near_pole: Any
    weight_near_pole: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of an `Audit` that need exact derivatives, and go by the same names there."""

    second_error: Any
    third_error: Any
    alpha_error: Any
    alpha_off: Any
    exact: Shares


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """Which activations an audit looked at, and how far its figures may be from those of all.

    As many positions of each channel are drawn, without replacement. Each figure is a ratio of
    two sums, estimated by that of the sample, with a 95 % interval: of errors normal in the
    logarithm, of shares Wilson's. Its variance is that of a ratio of means (by linearisation),
    less the share that was drawn, and counts channels as mixed, though they were kept even: so
    most intervals are a little wide. Those of less than some dozens of activations are rough, and
    that of Y''', which adds sixth powers, is the roughest: of 60 of 240 activations of a small
    network they held the figure in 86 of 100 draws, the others in 94 or more.

    Two figures are left out, None: `alpha_error` and `weight_near_pole`. The few alphas nearest to
    a pole make them up, of which no sample knows; `alpha_off` tells in their place. Quantiles need
    no sample: those of `|Sigma_k g|` are of all activations.

    Attributes:
      indices: flat indices of activations, `[n, K]`, n of each channel; `[1, m]` of m < K.
      low: the lower end of each figure's interval.
      high: the upper end.
    """

    indices: Array
    low: Figures
    high: Figures


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Audit:
    """What closed-form Grad-CAM++ is worth at one layer, for one image. A pytree.

    An error is relative: the norm of the difference over the norm of the exact values.

    Attributes:
      structure: what the program proves of the logit, as a function of the activations.
      second_error: of `Y''`, for `Y = exp(logit)`.
      third_error: of `Y'''`.
      alpha_error: of alpha, each weighted by its positive gradient as in the weights; None of a
        sample.
      alpha_off: the share, of the activations with a positive gradient, whose closed-form alpha
        differs from the exact one by more than a tenth of that, in [0, 1].
      closed: shares of unusual alphas, closed form.
      exact: shares of unusual alphas, exact.
      sum_gradient: quantiles 0, .05, .5, .95 and 1 of `|Sigma_k g|`. Where it is far below 2,
        alpha is nearly 1/2 (Lerma & Lucas 2022, https://arxiv.org/abs/2205.10838).
      alpha_closed: alpha by the closed form, `[*spatial, K]`.
      alpha_exact: alpha, exact, `[*spatial, K]`; of a sample `[n, K]`.
      maps: by name (grad-cam, positive gradients, closed form, exact exp, exact probability,
        exact log-probability, and the closed forms of five public libraries) the map, `[*spatial]`
        in [0, 1], at the size of the layer. A sample leaves out the exact ones.
      agreement: of every map with every other, `[11, 11]` in the order of `MAPS`, for each
        measure: pearson and spearman correlation, top_overlap (IoU of the top 20 %) and
        largest_difference. `between` looks one up.
      logits: what the model returned.
      target: the class that was explained.
      sample: of which activations the errors and the shares `exact` are; None: of all. All else
        needs the gradient alone, and is of all in any case.
    """

    structure: Structure = dataclasses.field(metadata={"static": True})
    second_error: Array
    third_error: Array
    alpha_error: Any
    alpha_off: Array
    closed: Shares
    exact: Shares
    sum_gradient: Array
    alpha_closed: Array
    alpha_exact: Array
    maps: dict[str, Array]
    agreement: dict[str, Array]
    logits: Any
    target: Any
    sample: Sample | None = None

    def between(self, measure: str, one: str, other: str) -> Array:
        """How far two maps agree, by one measure."""
        names = self.names
        return self.agreement[measure][..., names.index(one), names.index(other)]

    @property
    def names(self) -> list[str]:
        """Of the maps, in the order to be shown."""
        return [name for name in MAPS if name in self.maps]

    def __str__(self) -> str:
        """The verdict."""
        from jaxcam._src.audit.verdict import verdict  # which reads this record

        return verdict(self) if self._is_known() else _UNKNOWN

    def _is_known(self) -> bool:
        return all(shown.array(leaf) is not None for leaf in jax.tree.leaves(self))

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the errors and shares, and the maps."""
        if not self._is_known():
            return shown.title(_UNKNOWN)
        from jaxcam._src.audit.verdict import summary  # which reads this record

        numbers = summary(self)
        rows = {name: value for name, value in numbers.items() if not isinstance(value, dict)}
        for form in ("closed", "exact"):
            rows |= {f"{form}: {name}": share for name, share in numbers[form].items()}
        maps = {name: self.maps[name] for name in self.names}
        return shown.title(str(self)) + shown.table(rows) + shown.pictures(maps)
