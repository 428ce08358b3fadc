"""Methods that look at the gradient of the score along the activations: one backward pass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, mean_over_positions, quotient
from jaxcam._src.base import Tap
from jaxcam._src.derivatives.structure.pooled_linear import why_not_pooled_linear


def cam(tap: Tap) -> Float[Array, "*ones K"]:
    """CAM: the row of the dense layer behind a global average pool.

    `w_k = sum_ij dS/dA_ijk`, which is row c of that layer (Zhou et al. 2016, section 2,
    https://arxiv.org/abs/1512.04150). Of the bias there is no trace, as in the paper; the paper
    has no ReLU either, which `combine` adds.

    Cost: 1 backward
    Avoid: any other head, where it raises

    Returns:
      Weights `[1, ..., 1, K]`, h * w times those of Grad-CAM.

    Raises:
      ValueError: the head is no global average pool followed by linear layers, or the score is
        no linear function of the logits.

    >>> jaxcam.cam(tap).shape
    (1, 1, 64)
    """
    reason = why_not_pooled_linear(tap.score_activations, tap.activations)
    if reason:
        raise ValueError(
            f"cam needs a global average pool and linear layers between the layer and the score, "
            f"but {reason}. Choose what goes into the pool (the output of a bare relu has a name "
            "only by jaxcam.tag) and jaxcam.logit, or jaxcam.grad_cam, which takes any head"
        )
    return gradient(tap).sum(axis=tap.spatial_axes, keepdims=True)


def grad_cam(tap: Tap) -> Float[Array, "*ones K"]:
    """Grad-CAM: the mean gradient of each channel.

    `w_k = mean_ij dS/dA_ijk` (Selvaraju et al. 2017, eq. 1, https://arxiv.org/abs/1610.02391).

    Cost: 1 backward
    Avoid: layers before the last stage, where the mean hides opposite gradients

    Returns:
      Weights `[1, ..., 1, K]`.

    >>> jaxcam.grad_cam(tap).shape
    (1, 1, 64)
    """
    return mean_over_positions(gradient(tap))


def counterfactual_grad_cam(tap: Tap) -> Float[Array, "*ones K"]:
    """Counterfactual Grad-CAM: the negated mean gradient, for what speaks against the target.

    `w_k = mean_ij -dS/dA_ijk` (Selvaraju et al. 2017, section 3.3,
    https://arxiv.org/abs/1610.02391).

    Cost: 1 backward
    Avoid: as evidence for another class, since it names none

    Returns:
      Weights `[1, ..., 1, K]`.

    >>> jaxcam.counterfactual_grad_cam(tap).shape
    (1, 1, 64)
    """
    return -grad_cam(tap)


def hires_cam(tap: Tap) -> Float[Array, "*spatial K"]:
    """HiResCAM: the gradient, elementwise.

    `w_ijk = dS/dA_ijk`, so that the map before its ReLU sums to the score, up to a constant, where
    the head is linear (Draelos and Carin 2020, https://arxiv.org/abs/2011.08891).

    Cost: 1 backward
    Avoid: layers before a pool or a stride, which shows as a grid

    Returns:
      Weights `[*spatial, K]`.

    >>> jaxcam.hires_cam(tap).shape
    (16, 16, 64)
    """
    return gradient(tap)


def elementwise_grad_cam(tap: Tap) -> Float[Array, "*spatial K"]:
    """Elementwise Grad-CAM: the gradient where it and the activation agree in sign.

    The map is `sum_k relu(A_ijk dS/dA_ijk)`, so `w_ijk = dS/dA_ijk` where the product is positive,
    else 0. Of no paper; known from https://github.com/jacobgil/pytorch-grad-cam.

    Cost: 1 backward
    Avoid: where evidence against the target matters, which is dropped channel by channel

    Returns:
      Weights `[*spatial, K]`.

    >>> jaxcam.elementwise_grad_cam(tap).shape
    (16, 16, 64)
    """
    found = gradient(tap)
    return jnp.where(found * accumulated(tap.activations) > 0, found, 0)


def xgrad_cam(tap: Tap) -> Float[Array, "*ones K"]:
    """XGrad-CAM: the mean gradient, weighted by the activation.

    `w_k = sum_ij A_ijk dS/dA_ijk / sum_ij A_ijk`, or 0 where the sum is 0 (Fu et al. 2020,
    https://arxiv.org/abs/2008.02312).

    Cost: 1 backward
    Avoid: layers without ReLU, where the sum of a channel may be close to 0

    Returns:
      Weights `[1, ..., 1, K]`.

    >>> jaxcam.xgrad_cam(tap).shape
    (1, 1, 64)
    """
    activations = accumulated(tap.activations)
    moved = activations * gradient(tap)
    sums = (x.sum(axis=tap.spatial_axes, keepdims=True) for x in (moved, activations))
    return quotient(*sums)


def layer_cam(tap: Tap) -> Float[Array, "*spatial K"]:
    """LayerCAM: the positive part of the gradient, elementwise; several layers fused.

    `w_ijk = relu(dS/dA_ijk)` (Jiang et al. 2021, eq. 4, https://doi.org/10.1109/TIP.2021.3089943).
    For several layers give `explainer` all of them and `fuse=jaxcam.fuse_layer_cam`.

    Cost: 1 backward
    Avoid: layers before a pool or a stride, which shows as a grid

    Returns:
      Weights `[*spatial, K]`.

    >>> jaxcam.layer_cam(tap).shape
    (16, 16, 64)
    """
    return jax.nn.relu(gradient(tap))


def shapley_cam(tap: Tap) -> Float[Array, "*ones K"]:
    """ShapleyCAM: the mean gradient, less half of what the Hessian makes of the activations.

    `w_k = mean_ij (g - H A / 2)_ijk`, the Shapley value of the channels up to second order (Cai
    2025, https://arxiv.org/abs/2501.06261). The paper's score is `jaxcam.rest`.

    Cost: 1 backward and 1 Hessian-vector product
    Avoid: `logit` on piecewise linear heads, where H = 0 and it is Grad-CAM

    Returns:
      Weights `[1, ..., 1, K]`.

    >>> jaxcam.shapley_cam(tap).shape
    (1, 1, 64)
    """
    first, curved = jax.jvp(jax.grad(tap.score_activations), (tap.activations,), (tap.activations,))
    return mean_over_positions(accumulated(first) - accumulated(curved) / 2)


def gradient(tap: Tap) -> Float[Array, "*spatial K"]:
    """The gradient of the score along the activations, in float32 at least."""
    return accumulated(jax.grad(tap.score_activations)(tap.activations))
