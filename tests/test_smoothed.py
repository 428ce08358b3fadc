"""Methods over several images: noise of no size changes nothing, and noise averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam

KEY = jax.random.key(0)


def _tap(score_fn=jaxcam.logit):
    case = plain()
    return jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image, 1, score_fn=score_fn)


@pytest.mark.parametrize("method", [jaxcam.grad_cam, jaxcam.layer_cam, jaxcam.recipro_cam])
def test_smoothing_without_noise_changes_nothing(method):
    found = jaxcam.smooth(method, KEY, samples=2, sigma=0.0)(_tap())
    np.testing.assert_allclose(found, method(_tap()), rtol=1e-5, atol=1e-7)


def test_smoothing_is_the_mean_over_noisy_images():
    tap = _tap(jaxcam.probability)
    noise = [jax.random.normal(k, tap.image.shape) for k in jax.random.split(KEY, 3)]
    wanted = np.mean([jaxcam.grad_cam(tap.at_image(tap.image + 0.2 * n)) for n in noise], axis=0)
    found = jaxcam.smooth(jaxcam.grad_cam, KEY, samples=3, sigma=0.2)(tap)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form_fn", [jaxcam.exponential, jaxcam.identity])
def test_smooth_grad_cam_plus_plus_without_noise_is_grad_cam_plus_plus(form_fn):
    tap = _tap(jaxcam.log_probability)
    smoothed = jaxcam.smooth_grad_cam_plus_plus(tap, key=KEY, samples=2, sigma=0.0, form_fn=form_fn)
    exact = jaxcam.grad_cam_plus_plus(tap, form_fn=form_fn)
    np.testing.assert_allclose(smoothed, exact, rtol=1e-4)  # float32 third derivatives


@pytest.mark.thorough
def test_smooth_grad_cam_plus_plus_averages_derivatives(x64):
    tap = _tap64()
    noise = [jax.random.normal(k, tap.image.shape, jnp.float64) for k in jax.random.split(KEY, 3)]
    taps = [tap.at_image(tap.image + 0.3 * n) for n in noise]
    gradients = np.array([jax.grad(t.score_activations)(t.activations) for t in taps])
    d1, d2, d3 = (np.mean(gradients**n, axis=0) for n in (1, 2, 3))
    alpha = d2 / (2 * d2 + np.asarray(tap.activations).sum((0, 1)) * d3)
    wanted = np.sum(np.where(d2 > 0, alpha, 0) * np.maximum(d1, 0), axis=(0, 1))
    found = jaxcam.smooth_grad_cam_plus_plus(tap, key=KEY, samples=3)
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-9)


def _tap64():
    case = plain()
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), case.variables)
    return jaxcam.tap(case.apply_fn, "block1", variables, case.image.astype(jnp.float64), 1)


@pytest.mark.parametrize("steps", [1, 4])
def test_integrated_grad_cam_of_a_linear_model(steps):
    """Gradients are the same everywhere, and activations grow with t: the mean of t is left."""
    mix, head = jax.random.normal(KEY, (3, 4)), jax.random.normal(jax.random.key(1), (4, 2))

    def apply_fn(variables, x):
        return jaxcam.tag(x @ mix, "layer").mean((0, 1)) @ head

    image = jax.random.normal(jax.random.key(2), (5, 4, 3))
    tap = jaxcam.tap(apply_fn, "layer", None, image, 0)
    start = jnp.ones_like(image)
    found = jaxcam.integrated_grad_cam(tap, steps=steps, baseline_fn=jnp.ones_like)
    change = jnp.maximum((image - start) @ mix @ head[:, 0] / 20, 0)
    np.testing.assert_allclose(found, change * (steps + 1) / (2 * steps), rtol=1e-4, atol=1e-6)


def test_noise_is_that_of_the_key():
    tap = _tap(jaxcam.probability)
    for make in (
        lambda key: jaxcam.smooth(jaxcam.grad_cam, key),
        lambda key: functools.partial(jaxcam.smooth_grad_cam_plus_plus, key=key),
    ):
        first, again, other = (make(jax.random.key(seed))(tap) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other, rtol=1e-3)


def test_counts_below_1_are_refused():
    with pytest.raises(ValueError, match=r"samples is 0; .* choose 1 or more"):
        jaxcam.smooth(jaxcam.grad_cam, KEY, samples=0)
    with pytest.raises(ValueError, match=r"steps is 0; .* choose 1 or more"):
        jaxcam.integrated_grad_cam(_tap(), steps=0)
