"""Eigen-CAM, FEM and the floors, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam


def _tap(score_fn=jaxcam.logit):
    case = plain()
    return jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image, 1, score_fn=score_fn)


def _tap_of(features):
    """A layer that is the image itself."""

    def apply_fn(variables, x):
        return jaxcam.tag(x, "layer").mean((0, 1))

    return jaxcam.tap(apply_fn, "layer", None, features, 0)


def _first_direction(matrix):
    direction = np.linalg.svd(np.asarray(matrix, np.float64))[2][0]
    energy = (np.asarray(matrix) ** 2).sum(1)
    return direction * np.sign((matrix @ direction) @ energy)


@pytest.mark.parametrize("shape", [(3, 4, 20), (9, 8, 5)], ids=["few places", "many places"])
def test_eigen_cam_is_the_first_singular_vector(shape):
    features = jax.random.normal(jax.random.key(0), shape) + 0.3
    weights = jaxcam.eigen_cam(_tap_of(features))
    wanted = _first_direction(np.asarray(features, np.float64).reshape(-1, shape[-1]))
    assert weights.shape == (1, 1, shape[-1])
    np.testing.assert_allclose(weights[0, 0], wanted, rtol=1e-4, atol=1e-5)  # float32 eigh


def test_eigen_cam_does_not_depend_on_the_sign_of_the_solver():
    features = jax.random.normal(jax.random.key(0), (3, 4, 6)) + 0.3
    cam = jaxcam.combine(jaxcam.eigen_cam(_tap_of(features)), features)
    mirrored = jaxcam.combine(jaxcam.eigen_cam(_tap_of(features[::-1])), features[::-1])
    np.testing.assert_allclose(mirrored, cam[::-1], rtol=1e-4, atol=1e-5)


def test_eigen_grad_cam_is_the_first_direction_of_the_product():
    tap = _tap()
    gradient = jax.grad(tap.score_activations)(tap.activations)
    product = np.asarray(gradient * tap.activations, np.float64)
    direction = _first_direction(product.reshape(-1, product.shape[-1]))
    cam = np.maximum(product @ direction, 0)
    found = jaxcam.combine(jaxcam.eigen_grad_cam(tap), tap.activations)
    np.testing.assert_allclose(found, cam, rtol=1e-3, atol=1e-6)  # float32 eigh


@pytest.mark.thorough
def test_eigen_cam_has_the_derivative_of_the_singular_vector(x64):
    features = jax.random.normal(jax.random.key(0), (3, 4, 6), jnp.float64) + 0.3
    tangent = jax.random.normal(jax.random.key(1), features.shape, jnp.float64)

    def weights(x):
        return jaxcam.eigen_cam(_tap_of(x))

    _, found = jax.jvp(weights, (features,), (tangent,))
    step = 1e-6
    difference = weights(features + step * tangent) - weights(features - step * tangent)
    np.testing.assert_allclose(found, difference / (2 * step), rtol=1e-6, atol=1e-8)


def test_eigen_cam_of_dead_activations_is_zero():
    weights = jaxcam.eigen_cam(_tap_of(jnp.zeros((3, 4, 5))))
    np.testing.assert_array_equal(jaxcam.combine(weights, jnp.zeros((3, 4, 5))), 0)


def test_fem_sums_the_means_of_rare_activations():
    tap = _tap()
    a = np.asarray(tap.activations, np.float64)
    mean, std = a.mean((0, 1)), a.std((0, 1))
    wanted = ((a >= mean + 1.5 * std) * mean).sum(-1)
    np.testing.assert_allclose(jaxcam.fem(tap, k=1.5), wanted, rtol=1e-5)
    assert wanted.max() > wanted.min()


def test_the_floors():
    tap = _tap()
    np.testing.assert_allclose(jaxcam.uniform(tap), np.full((1, 1, 8), 1 / 8))
    cam = jaxcam.combine(jaxcam.uniform(tap), tap.activations)
    np.testing.assert_allclose(cam, tap.activations.mean(-1), rtol=1e-6)
    first, again, other = (jaxcam.random_cam(tap, key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert -1 <= first.min() < 0 < first.max() <= 1
