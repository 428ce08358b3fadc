"""Grad-CAM++ as public libraries compute it: none of them is eq. 19 of the paper as printed.

Each takes the gradient `g` and the activations `A` of one layer, `[*spatial, K]`, and returns
weights `[1, ..., 1, K]`. `Sigma_k` is the sum of `A` over positions. Scales common to all channels
are left out, since every one of these libraries stretches the map to a range of its own or leaves
its unit open.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, quotient

_PYTORCH_GRAD_CAM_EPS = 1e-6


def pytorch_grad_cam(
    gradient: Float[Array, "*spatial K"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*ones K"]:
    """pytorch-grad-cam 1.5.7: 1e-6 is added to the denominator, which is about that small."""
    denominator = _denominator(gradient, _over_positions(jnp.sum, activations))
    alpha = gradient**2 / (denominator + _PYTORCH_GRAD_CAM_EPS)
    return _weigh(jnp.where(gradient == 0, 0, alpha), gradient)


def torchcam(
    gradient: Float[Array, "*spatial K"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*ones K"]:
    """torchcam 0.5.0: the division writes to a copy, so that what is left of alpha is `g^2`."""
    return _weigh(gradient**2, gradient)


def tf_keras_vis(
    gradient: Float[Array, "*spatial K"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*ones K"]:
    """tf-keras-vis 0.8.7: the alphas of a channel are divided by their sum."""
    alpha = _alpha(gradient, _over_positions(jnp.sum, activations))
    return _weigh(quotient(alpha, _over_positions(jnp.sum, alpha)), gradient)


def xplique(
    gradient: Float[Array, "*spatial K"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*ones K"]:
    """xplique 2.0.2: the mean of the activations stands where `Sigma_k` should."""
    return _weigh(_alpha(gradient, _over_positions(jnp.mean, activations)), gradient)


def original_code(
    gradient: Float[Array, "*spatial K"], activations: Float[Array, "*spatial K"]
) -> Float[Array, "*ones K"]:
    """The paper's own code: the alphas with a positive gradient are divided by their sum."""
    alpha = _alpha(gradient, _over_positions(jnp.sum, activations))
    counted = jnp.where(gradient > 0, alpha, 0)
    return _weigh(quotient(alpha, _over_positions(jnp.sum, counted)), gradient)


CLOSED_FORMS: dict[str, Callable[[Array, Array], Array]] = {
    "pytorch-grad-cam": pytorch_grad_cam,
    "torchcam": torchcam,
    "tf-keras-vis": tf_keras_vis,
    "xplique": xplique,
    "the paper's code": original_code,
}


def _alpha(gradient: Array, total: Array) -> Array:
    return quotient(gradient**2, _denominator(gradient, total))


def _denominator(gradient: Array, total: Array) -> Array:
    return 2 * gradient**2 + total * gradient**3


def _weigh(alpha: Array, gradient: Array) -> Array:
    return _over_positions(jnp.sum, alpha * jax.nn.relu(gradient))


def _over_positions(reduce: Callable[..., Array], values: Array) -> Array:
    return reduce(accumulated(values), axis=tuple(range(values.ndim - 1)), keepdims=True)
