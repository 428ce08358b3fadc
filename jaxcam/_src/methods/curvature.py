"""Methods that look at second and third derivatives of the score along each activation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, quotient
from jaxcam._src.base import Derivatives, DerivativesFn, FormFn, Tap
from jaxcam._src.derivatives import closed_form, derivatives, structure


def exponential(derivatives: Derivatives) -> Derivatives:
    """The form `Y = exp(S)` of Grad-CAM++, from the derivatives of the score `S`.

    `Y' = S'`, `Y'' = S'^2 + S''` and `Y''' = S'^3 + 3 S' S'' + S'''`, each times `exp(S) > 0`,
    which cancels in alpha, scales all weights alike, and is never computed.

    >>> along = jaxcam.derivatives(lambda x: jnp.sum(x**3), jnp.array([1.0]))
    >>> jaxcam.exponential(along).second  # S'' + S'^2
    Array([15.], dtype=float32)
    """
    first, second, third = derivatives
    return Derivatives(first, first**2 + second, first**3 + 3 * first * second + third)


def identity(derivatives: Derivatives) -> Derivatives:
    """The form `Y = S`: the score itself is differentiated.

    >>> along = jaxcam.derivatives(lambda x: jnp.sum(x**3), jnp.array([1.0]))
    >>> jaxcam.identity(along).second
    Array([6.], dtype=float32)
    """
    return derivatives


class Alpha(NamedTuple):
    """The coefficients of Grad-CAM++, and where they are not to be trusted.

    Attributes:
      values: alpha, `[*spatial, K]`; 0 where the denominator is 0.
      denominator: `2 Y'' + Sigma Y'''` over the sum of the sizes of its two terms, in [-1, 1].
        Alpha is undefined where it is 0, near a pole where it is small, and may be negative or
        above 1/2 where it is negative: `(denominator < 0).mean()` is the share of those.
      first: `dY/dA`, up to a positive factor common to all.
    """

    values: Array
    denominator: Array
    first: Array


def grad_cam_plus_plus(
    tap: Tap, *, form_fn: FormFn = exponential, derivatives_fn: DerivativesFn = derivatives
) -> Float[Array, "*ones K"]:
    """Grad-CAM++: positive gradients, weighted by the curvature of `Y`, a function of the score.

    `w_k = sum_ij alpha_ijk relu(dY/dA_ijk)` with `alpha = Y'' / (2 Y'' + Sigma_k Y''')`, the
    derivatives along `A_ijk` alone and `Sigma_k = sum_ab A_abk` (Chattopadhay et al. 2018, eq. 10,
    https://arxiv.org/abs/1710.11063). The derivatives are exact; where the head is piecewise
    linear, and `Y = exp(S)`, the result is the paper's closed form (eq. 19), at its price.

    Cost: 1 backward where the head is piecewise linear; else as `structure` says
    Avoid: layers without ReLU, where alpha has poles; look at `alpha` there

    Args:
      form_fn: which `Y` of the score `S` is differentiated; with the explainer's `score_fn`:
        `exp(logit)`, the paper's: `logit` and `exponential`; the logit: `logit` and `identity`;
        the probability: `log_probability` and `exponential`; its logarithm: `log_probability`
        and `identity`; any smooth scalar of the logits: that function and `identity`.
      derivatives_fn: `(f, x) -> Derivatives` of `S`: `jaxcam.derivatives`, bound to a
        `chunk_size` with `functools.partial`, or `jaxcam.closed_form`, which sets the second and
        third to zero whatever the head: the paper's formula as printed, as other libraries use it.

    Returns:
      Weights `[1, ..., 1, K]`. Where `alpha` has a zero denominator it is 0; `jaxcam.alpha`
      tells where.

    Raises:
      ValueError: alpha is 0/0 everywhere: a piecewise linear score, itself differentiated.

    >>> jaxcam.grad_cam_plus_plus(tap).shape
    (1, 1, 64)
    """
    found = alpha(tap, form_fn=form_fn, derivatives_fn=derivatives_fn)
    weights = found.values * jax.nn.relu(found.first)
    return weights.sum(axis=tap.spatial_axes, keepdims=True)


def alpha(
    tap: Tap, *, form_fn: FormFn = exponential, derivatives_fn: DerivativesFn = derivatives
) -> Alpha:
    """The coefficients of Grad-CAM++; arguments and errors as for `grad_cam_plus_plus`.

    >>> alpha = jaxcam.alpha(tap)
    >>> alpha.values.shape, float((alpha.denominator < 0).mean())
    ((16, 16, 64), 0.0)
    """
    total = accumulated(tap.activations).sum(axis=tap.spatial_axes, keepdims=True)
    if derivatives_fn is closed_form or _is_proved_linear(tap, derivatives_fn):
        gradient = accumulated(jax.grad(tap.score_activations)(tap.activations))
        return alpha_of_line(gradient, total, form_fn)
    return alpha_from(derivatives_fn(tap.score_activations, tap.activations), total, form_fn)


def alpha_of_line(
    gradient: Float[Array, "*spatial K"],
    total: Float[Array, "*ones K"],
    form_fn: FormFn = exponential,
) -> Alpha:
    """Alpha where the score has no curvature: for `Y = exp(S)`, `1 / (2 + Sigma g)`, or 0 for 0/0.

    `Y''` is then a multiple of `g^2`, and `Y'''` one of `g^3`, so that `g^2` cancels.
    """
    with jax.ensure_compile_time_eval():
        one, none = jnp.ones((), gradient.dtype), jnp.zeros((), gradient.dtype)
        first, second, third = form_fn(Derivatives(one, none, none))
        flat = bool(second == 0)
    if flat:
        raise ValueError(
            "Grad-CAM++ of this score is 0/0 everywhere: the score is piecewise linear in the "
            "activations, so that its second and third derivatives are zero. Choose another form: "
            "form_fn=jaxcam.exponential, with score_fn=jaxcam.logit for the paper's exp(logit) or "
            "jaxcam.log_probability for the probability"
        )
    slope = third * total * gradient
    denominator = jnp.where(gradient == 0, 0, 2 * second + slope)
    size = abs(2 * second) + abs(slope)
    return Alpha(quotient(second, denominator), denominator / size, first * gradient)


def alpha_from(
    derivatives: Derivatives, total: Float[Array, "*ones K"], form_fn: FormFn = exponential
) -> Alpha:
    """Alpha from the derivatives of the score `S`, `[*spatial, K]`, and the sums `Sigma_k`."""
    # The ratio is the same in any unit of length, and in this one nothing under- or overflows.
    unit = jax.lax.stop_gradient(_unit(derivatives))
    scaled = (quotient(d, unit**n) for n, d in enumerate(derivatives, start=1))
    first, second, third = form_fn(Derivatives(*scaled))
    curvature, slope = 2 * second, unit * total * third
    denominator = curvature + slope
    values = quotient(second, denominator)
    return Alpha(values, quotient(denominator, abs(curvature) + abs(slope)), unit * first)


def _is_proved_linear(tap: Tap, derivatives_fn: DerivativesFn) -> bool:
    exact = getattr(derivatives_fn, "func", derivatives_fn) is derivatives  # or a partial of it
    return exact and structure(tap.score_activations, tap.activations).kind == "piecewise linear"


def _unit(derivatives: Derivatives) -> Float[Array, "*spatial K"]:
    first, second, third = map(jnp.abs, derivatives)
    largest = jnp.maximum(jnp.maximum(first, jnp.sqrt(second)), jnp.cbrt(third))
    return jnp.where(largest == 0, 1, largest)
