"""Methods that look at the gradient of the score along the activations: one backward pass."""

import jax
from jaxtyping import Array, Float

from jaxcam._src.base import Tap
from jaxcam._src.derivatives.structure.pooled_linear import why_not_pooled_linear


def cam(tap: Tap) -> Float[Array, "*ones K"]:
    """CAM: the weights of the dense layer behind a global average pool.

    `w_k = sum_ij dS/dA_ijk`, which is row c of that layer (Zhou et al. 2016, section 2,
    https://arxiv.org/abs/1512.04150). Of the bias there is no trace, as in the paper; the paper
    has no ReLU either, which `combine` adds.

    Returns:
      Weights `[1, ..., 1, K]`, h * w times those of Grad-CAM.

    Raises:
      ValueError: the head is no global average pool followed by linear layers, or the score is
        no linear function of the logits.
    """
    reason = why_not_pooled_linear(tap.score_activations, tap.activations)
    if reason:
        raise ValueError(
            f"cam needs a global average pool and linear layers between the layer and the score, "
            f"but {reason}. Choose what goes into the pool (the output of a bare relu has a name "
            "only by jaxcam.tag) and jaxcam.logit, or jaxcam.grad_cam, which takes any head"
        )
    return _gradient(tap).sum(axis=tap.spatial_axes, keepdims=True)


def grad_cam(tap: Tap) -> Float[Array, "*ones K"]:
    """Grad-CAM: the gradient of the score, averaged over positions.

    `w_k = mean_ij dS/dA_ijk` (Selvaraju et al. 2017, eq. 1, https://arxiv.org/abs/1610.02391).

    Returns:
      Weights `[1, ..., 1, K]`.
    """
    return _gradient(tap).mean(axis=tap.spatial_axes, keepdims=True)


def layer_cam(tap: Tap) -> Float[Array, "*spatial K"]:
    """LayerCAM: the positive part of the gradient, elementwise; right for shallow layers too.

    `w_ijk = relu(dS/dA_ijk)` (Jiang et al. 2021, eq. 4, https://doi.org/10.1109/TIP.2021.3089943).
    For several layers give `explainer` all of them and `fuse=jaxcam.fuse_layer_cam`. A layer
    before a strided one shows the stride as a grid.

    Returns:
      Weights `[*spatial, K]`.
    """
    return jax.nn.relu(_gradient(tap))


def _gradient(tap: Tap) -> Float[Array, "*spatial K"]:
    return jax.grad(tap.score_activations)(tap.activations)
