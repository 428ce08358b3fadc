"""Methods that look at several images: noisy ones, or those on the way from a baseline."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Derivatives, DerivativesFn, FormFn, Key, Tap, WeightsFn
from jaxcam._src.chunks import check_counts
from jaxcam._src.derivatives import derivatives
from jaxcam._src.maps import weigh
from jaxcam._src.methods.curvature import alpha_from, exponential, identity
from jaxcam._src.methods.gradient import grad_cam

_Result = TypeVar("_Result")


def smooth(method: WeightsFn, key: Key, *, samples: int = 10, sigma: float = 0.15) -> WeightsFn:
    """Makes a method that averages another one's weights over noisy images.

    `w = mean_n w(X + sigma N_n)`, with the activations of the clean image (as SmoothGrad does for
    gradients; Smilkov et al. 2017, https://arxiv.org/abs/1706.03825).

    Args:
      method: `Tap -> weights`.
      key: of the noise; images explained under one `vmap` share it, unless it is mapped too.
      samples: noisy images.
      sigma: standard deviation of the noise, in units of the image.

    Returns:
      A method, `samples` forward passes and `samples` times the cost of `method`.

    Raises:
      ValueError: `samples` is below 1.

    >>> noisy = jaxcam.smooth(jaxcam.grad_cam, jax.random.key(0), samples=2)
    >>> noisy(tap).shape
    (1, 1, 64)
    """

    def smoothed(tap: Tap) -> Array:
        return mean_over_noise(method, tap, key, samples, sigma)

    check_counts(samples=samples)
    return smoothed


def smooth_grad_cam_plus_plus(
    tap: Tap,
    *,
    key: Key,
    samples: int = 4,
    sigma: float = 0.3,
    form_fn: FormFn = exponential,
    derivatives_fn: DerivativesFn = derivatives,
) -> Float[Array, "*ones K"]:
    """Smooth Grad-CAM++: Grad-CAM++ on derivatives averaged over noisy images.

    `D_n = mean d^n Y / dA^n` over images `X + sigma N`; `alpha = D_2 / (2 D_2 + Sigma_k D_3)` and
    `w_k = sum_ij alpha relu(D_1)`, with `Sigma_k` of the clean image (Omeiza et al. 2019,
    https://arxiv.org/abs/1908.01224). Of `Y = exp(S)` the factor `exp(S)` of each noisy image is
    left out.

    Args:
      key: of the noise; images explained under one `vmap` share it, unless it is mapped too.
      samples: noisy images.
      sigma: standard deviation of the noise, in units of the image.
      form_fn: as for `grad_cam_plus_plus`.
      derivatives_fn: as for `grad_cam_plus_plus`.

    Cost: 4 forward (samples), and 4 times Grad-CAM++
    Avoid: sigma far from the image's own scale, where the noisy images are no images

    Returns:
      Weights `[1, ..., 1, K]`.

    Raises:
      ValueError: `samples` is below 1.

    >>> jaxcam.smooth_grad_cam_plus_plus(tap, key=jax.random.key(0), samples=2).shape
    (1, 1, 64)
    """
    check_counts(samples=samples)

    def formed(noisy: Tap) -> Derivatives:
        return form_fn(derivatives_fn(noisy.score_activations, noisy.activations))

    averaged = mean_over_noise(formed, tap, key, samples, sigma)
    total = accumulated(tap.activations).sum(axis=tap.spatial_axes, keepdims=True)
    found = alpha_from(Derivatives(*map(accumulated, averaged)), total, identity)
    return (found.values * jax.nn.relu(found.first)).sum(axis=tap.spatial_axes, keepdims=True)


def integrated_grad_cam(
    tap: Tap, *, steps: int = 20, baseline_fn: Callable[[Array], Array] = jnp.zeros_like
) -> Float[Array, "*spatial"]:
    """Integrated Grad-CAM: Grad-CAM along the way from a baseline to the image.

    `M = mean_t relu(sum_k w_k(t) (A_k(t) - A_k(0)))`, `w_k(t)` the weights of Grad-CAM at the image
    `B + t (X - B)` and `A(t)` its activations, t = 1/m to 1 (Sattarzadeh et al. 2021,
    https://arxiv.org/abs/2102.07805). A map and no weights.

    Args:
      steps: m, images on the way.
      baseline_fn: image -> baseline image `B`.

    Cost: 20 forward and backward (steps)
    Avoid: baselines that the model reads as an image of their own

    Returns:
      The map, `[*spatial]`, in units of the score, at least 0.

    Raises:
      ValueError: `steps` is below 1.

    >>> jaxcam.integrated_grad_cam(tap, steps=2).shape
    (16, 16)
    """
    check_counts(steps=steps)
    baseline = baseline_fn(tap.image)
    start = accumulated(tap.at_image(baseline).activations)

    def step(t):
        here = tap.at_image(baseline + t * (tap.image - baseline))
        return jax.nn.relu(weigh(grad_cam(here), accumulated(here.activations) - start))

    way = (jnp.arange(steps, dtype=tap.image.dtype) + 1) / steps
    return jax.lax.map(step, way).mean(axis=0)


def mean_over_noise(
    f: Callable[[Tap], _Result], tap: Tap, key: Key, samples: int, sigma: float
) -> _Result:
    """The mean of a function of the tap, leaf by leaf, over noisy images."""

    def noisy(key):
        noise = jax.random.normal(key, tap.image.shape, tap.image.dtype)
        return f(tap.at_image(tap.image + sigma * noise))

    results = jax.lax.map(noisy, jax.random.split(key, samples))
    return jax.tree.map(lambda leaf: accumulated(leaf).mean(axis=0), results)
