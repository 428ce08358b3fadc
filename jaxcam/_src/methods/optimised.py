"""Methods that search for weights: the score of the masked image, maximised."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Tap
from jaxcam._src.chunks import check_counts
from jaxcam._src.extras import extra
from jaxcam._src.maps import unit_range, upsample, weigh


def opti_cam(tap: Tap, *, steps: int = 100, learning_rate: float = 0.1) -> Float[Array, "*ones K"]:
    """Opti-CAM: the weights whose map, laid over the image as a mask, keeps the score highest.

    `w = softmax(u)`, and `u` maximises `S(X * unit_range(upsample(sum_k w_k A_k)))` by Adam from
    `u = 0` (Zhang et al. 2023, https://arxiv.org/abs/2301.07002).

    Args:
      steps: of the optimisation.
      learning_rate: of Adam.

    Cost: 100 forward and backward of the whole model (steps)
    Avoid: judging it by average drop, which is what it optimises

    Returns:
      Weights `[1, ..., 1, K]`, positive, of sum 1.

    Raises:
      ValueError: `steps` is below 1.

    >>> jaxcam.opti_cam(tap, steps=2).shape
    (1, 1, 64)
    """
    with extra("opti-cam"):
        import optax

    check_counts(steps=steps)
    # Below every slope that matters, so that the root has a derivative where the slope is 0.
    optimiser = optax.adam(learning_rate, eps_root=float(jnp.finfo(jnp.float32).tiny))
    shape = (1,) * len(tap.spatial_axes) + tap.activations.shape[-1:]

    def loss(u):
        masked = weigh(jax.nn.softmax(u), tap.activations)
        mask = unit_range(upsample(masked, tap.image.shape[:-1]))
        return -tap.score_image(tap.image * mask[..., None].astype(tap.image.dtype))

    def step(state, _):
        u, moments = state
        slope = jax.grad(loss)(u)
        with jax.numpy_dtype_promotion("standard"):  # which Optax needs
            updates, moments = optimiser.update(slope, moments)
        return (u + updates, moments), None

    u = jnp.zeros(shape, accumulated(tap.activations).dtype)
    (u, _), _ = jax.lax.scan(step, (u, optimiser.init(u)), length=steps)
    return jax.nn.softmax(u)
