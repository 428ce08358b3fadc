"""Methods that look at the activations, and hardly at the score: floors to compare others with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, length, quotient
from jaxcam._src.base import Key, Tap
from jaxcam._src.methods.gradient import gradient


def eigen_cam(tap: Tap) -> Float[Array, "*ones K"]:
    """Eigen-CAM: the first principal direction of the activations, not centred.

    `w` is the first right singular vector of the matrix `A`, positions by channels (Muhammad and
    Yeasin 2020, https://arxiv.org/abs/2008.00299). A singular vector has no sign; here the map
    correlates with the energy of the activations, `sum_ij (sum_k w_k A_ijk) (sum_k A_ijk^2) >= 0`.

    Cost: 1 singular vector
    Avoid: to tell classes apart, since the score is not looked at

    Returns:
      Weights `[1, ..., 1, K]`, of length 1.

    >>> jaxcam.eigen_cam(tap).shape
    (1, 1, 64)
    """
    direction = _principal_direction(accumulated(tap.activations))
    return direction.reshape((1,) * len(tap.spatial_axes) + (-1,))


def eigen_grad_cam(tap: Tap) -> Float[Array, "*spatial K"]:
    """EigenGrad-CAM: the first principal direction of gradient times activation.

    The map is `sum_k v_k g_ijk A_ijk`, with `v` the first right singular vector of `g A`, signed
    as in `eigen_cam`; so `w_ijk = v_k g_ijk`. Of no paper; known from
    https://github.com/jacobgil/pytorch-grad-cam.

    Cost: 1 backward and 1 singular vector
    Avoid: where the sign of the evidence matters, which the singular vector does not know

    Returns:
      Weights `[*spatial, K]`.

    >>> jaxcam.eigen_grad_cam(tap).shape
    (16, 16, 64)
    """
    found = gradient(tap)
    direction = _principal_direction(found * accumulated(tap.activations))
    return jnp.broadcast_to(direction, found.shape) * found


def fem(tap: Tap, *, k: float = 2.0) -> Float[Array, "*spatial"]:
    """FEM: the sum of the channels' means, where each is rarely as large.

    `M_ij = sum_k mean(A_k) [A_ijk >= mean(A_k) + k std(A_k)]` (Fuad et al. 2020,
    https://doi.org/10.1109/IPTA50016.2020.9286629). A map and no weights.

    Args:
      k: standard deviations above the mean at which an activation counts.

    Cost: none
    Avoid: to tell classes apart, since the score is not looked at

    Returns:
      The map, `[*spatial]`.

    >>> jaxcam.fem(tap).shape
    (16, 16)
    """
    values = accumulated(tap.activations)
    mean, std = (f(values, axis=tap.spatial_axes, keepdims=True) for f in (jnp.mean, jnp.std))
    rare = values >= mean + k * std
    return jnp.where(rare, jnp.broadcast_to(mean, rare.shape), 0).sum(axis=-1)


def random_cam(tap: Tap, *, key: Key) -> Float[Array, "*ones K"]:
    """Random weights: uniform in [-1, 1], what a map shows for free.

    Args:
      key: of the weights; images explained under one `vmap` share them, unless it is mapped too.

    Cost: none
    Avoid: as an explanation; it is a floor

    Returns:
      Weights `[1, ..., 1, K]`.

    >>> jaxcam.random_cam(tap, key=jax.random.key(0)).shape
    (1, 1, 64)
    """
    shape = (1,) * len(tap.spatial_axes) + tap.activations.shape[-1:]
    return jax.random.uniform(key, shape, accumulated(tap.activations).dtype, -1, 1)


def uniform(tap: Tap) -> Float[Array, "*ones K"]:
    """Equal weights: 1 / K, so that the map is the mean activation.

    Cost: none
    Avoid: as an explanation; it is a floor

    Returns:
      Weights `[1, ..., 1, K]`.

    >>> jaxcam.uniform(tap).shape
    (1, 1, 64)
    """
    channels = tap.activations.shape[-1]
    shape = (1,) * len(tap.spatial_axes) + (channels,)
    return jnp.full(shape, 1 / channels, accumulated(tap.activations).dtype)


def _principal_direction(values: Float[Array, "*spatial K"]) -> Float[Array, " K"]:
    """The first right singular vector of positions by channels, signed as the energy."""
    flat = values.reshape(-1, values.shape[-1])
    if len(flat) < flat.shape[1]:
        direction = flat.T @ _leading_eigenvector(flat @ flat.T)
    else:
        direction = _leading_eigenvector(flat.T @ flat)
    along = jnp.vdot(flat @ direction, jnp.sum(flat**2, axis=1))
    return quotient(jnp.where(along < 0, -direction, direction), length(direction))


@jax.custom_jvp
def _leading_eigenvector(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    return jnp.linalg.eigh(matrix)[1][:, -1]


@_leading_eigenvector.defjvp
def _leading_eigenvector_jvp(primals, tangents):
    """First-order perturbation; that of `eigh` is NaN where any two eigenvalues are equal."""
    values, vectors = jnp.linalg.eigh(primals[0])
    moved = vectors.T @ (tangents[0] @ vectors[:, -1])
    shares = quotient(moved.at[-1].set(0), values[-1] - values)
    return vectors[:, -1], vectors @ shares
