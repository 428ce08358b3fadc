"""Methods that look at second and third derivatives of the score along each activation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.base import Derivatives, DerivativesFn, Tap
from jaxcam._src.derivatives import closed_form


def grad_cam_plus_plus(
    tap: Tap, *, derivatives_fn: DerivativesFn = closed_form
) -> Float[Array, "*ones K"]:
    """Grad-CAM++: positive gradients, weighted by the curvature of `Y = exp(S)`.

    `w_k = sum_ij alpha_ijk relu(dY/dA_ijk)` with `alpha = Y'' / (2 Y'' + Sigma_k Y''')`, the
    derivatives along `A_ijk` alone and `Sigma_k = sum_ab A_abk` (Chattopadhay et al. 2018, eq. 10,
    https://arxiv.org/abs/1710.11063). The common factor `exp(S) > 0` scales all weights alike and
    is left out. With the closed form `alpha` is that of eq. 19. With `score_fn=log_probability`
    `Y` is the probability itself.

    Args:
      derivatives_fn: `(f, x) -> Derivatives` of the score `S`: `jaxcam.closed_form`, which sets
        the second and third to zero as the paper does, at the price of one gradient; or
        `jaxcam.derivatives`, the exact ones, bound to a `chunk_size` with `functools.partial`.
        The two agree where the score is piecewise linear: a logit behind ReLU, pools and dense
        layers, but no probability.

    Returns:
      Weights `[1, ..., 1, K]`. Where `alpha` has a zero denominator it is 0.
    """
    derivatives = derivatives_fn(tap.score_activations, tap.activations)
    total = tap.activations.sum(axis=tap.spatial_axes, keepdims=True)
    weights = alpha(derivatives, total) * jax.nn.relu(derivatives.first)
    return weights.sum(axis=tap.spatial_axes, keepdims=True)


def alpha(derivatives: Derivatives, total: Float[Array, "*ones K"]) -> Float[Array, "*spatial K"]:
    """`Y'' / (2 Y'' + Sigma Y''')` for `Y = exp(S)`, from the derivatives of `S`; 0 for 0/0.

    Args:
      derivatives: of `S`, `[*spatial, K]` each.
      total: `Sigma`, the activations summed over positions, `[1, ..., 1, K]`.
    """
    # The ratio is the same in any unit of length, and in this one nothing under- or overflows.
    unit = jax.lax.stop_gradient(_unit(derivatives))
    first, second, third = (_divide(d, unit**n) for n, d in enumerate(derivatives, start=1))
    curvature = first**2 + second
    slope = first**3 + 3 * first * second + third
    denominator = 2 * curvature + unit * total * slope
    return _divide(curvature, denominator)


def _unit(derivatives: Derivatives) -> Float[Array, "*spatial K"]:
    first, second, third = map(jnp.abs, derivatives)
    largest = jnp.maximum(jnp.maximum(first, jnp.sqrt(second)), jnp.cbrt(third))
    return jnp.where(largest == 0, 1, largest)


def _divide(numerator: Array, denominator: Array) -> Array:
    """The quotient, and 0 where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, 0, numerator / jnp.where(zero, 1, denominator))
