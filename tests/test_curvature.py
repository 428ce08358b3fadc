"""Grad-CAM++ against its closed form, and the exact one against derivatives by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam._src.base import Derivatives
from jaxcam._src.methods.curvature import alpha_from

SHAPE = (3, 2, 5)
closed = functools.partial(jaxcam.grad_cam_plus_plus, derivatives_fn=jaxcam.closed_form)


DENSE = jax.random.normal(jax.random.key(5), (SHAPE[-1], 4))
HEADS = {
    "curved": lambda a: jnp.sin(3 * a).mean((0, 1)) @ DENSE.astype(a.dtype),
    "plain": lambda a: a.mean((0, 1)) @ DENSE.astype(a.dtype),
}


def _tap(score, activations):
    def apply_fn(variables, x):
        return score(jaxcam.tag(x, "layer"))[None]

    return jaxcam.tap(apply_fn, "layer", None, activations, 0)


def _activations(dtype=jnp.float64):
    return jax.random.uniform(jax.random.key(1), SHAPE, dtype)


def test_closed_form_on_pooled_dense(x64):
    """`w_k = relu(c_k) / (2 + c_k mean(A_k))`, from eq. 19 with `g = c / Z`."""
    row = jax.random.normal(jax.random.key(0), (SHAPE[-1],), jnp.float64)
    activations = _activations()
    weights = jaxcam.grad_cam_plus_plus(_tap(lambda a: a.mean((0, 1)) @ row, activations))
    wanted = np.maximum(row, 0) / (2 + row * activations.mean((0, 1)))
    np.testing.assert_allclose(weights[0, 0], wanted, rtol=1e-12)


def _smooth(a):
    return jnp.sum(jnp.sin(a) * jnp.arange(1, 6, dtype=a.dtype)[None, None]) + 0.1 * jnp.sum(
        a.mean((0, 1)) ** 3
    )


def _by_hand(score, activations):
    """Equation 10 as printed, with `Y = exp(S)` and its derivatives by brute force."""
    flat = activations.reshape(-1)

    def y(v):
        return jnp.exp(score(v.reshape(SHAPE)))

    i = jnp.arange(flat.size)
    first = jax.grad(y)(flat)
    second = jax.jit(jax.hessian(y))(flat)[i, i].reshape(SHAPE)
    third = jax.jit(jax.jacfwd(jax.hessian(y)))(flat)[i, i, i].reshape(SHAPE)
    total = activations.sum((0, 1), keepdims=True)
    ratio = second / (2 * second + total * third)
    weights = (ratio * np.maximum(first.reshape(SHAPE), 0)).sum((0, 1), keepdims=True)
    return weights / jnp.exp(score(activations))


def test_exact_form_is_equation_10(x64):
    activations = _activations()
    found = jax.jit(lambda a: jaxcam.grad_cam_plus_plus(_tap(_smooth, a)))(activations)
    np.testing.assert_allclose(found, _by_hand(_smooth, activations), rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("head", HEADS)
def test_exact_form_of_log_odds_is_equation_10(x64, head):
    def score(a):
        logits = HEADS[head](a)
        return logits[2] - jnp.log(jnp.exp(jnp.delete(logits, 2)).sum())

    def apply_fn(variables, x):
        return HEADS[head](jaxcam.tag(x, "layer"))

    tap = jaxcam.tap(apply_fn, "layer", None, _activations(), 2, score_fn=jaxcam.log_odds)
    found = jaxcam.grad_cam_plus_plus(tap)
    np.testing.assert_allclose(found, _by_hand(score, tap.activations), rtol=1e-9)
    assert not np.allclose(found, closed(tap), rtol=1e-2)  # the score curves, if the head does not


def test_closed_and_exact_form_differ_on_a_smooth_head(x64):
    tap = _tap(_smooth, _activations())
    assert abs(jaxcam.grad_cam_plus_plus(tap) / closed(tap) - 1).max() > 0.1


def test_closed_and_exact_form_agree_on_a_piecewise_linear_head(x64):
    row = jax.random.normal(jax.random.key(3), (SHAPE[-1],), jnp.float64)

    def score(a):
        return jax.nn.relu(a - 0.4).max((0, 1)) @ row + jax.nn.relu(a.sum((0, 1)) @ row)

    tap = _tap(score, _activations())
    np.testing.assert_array_equal(jaxcam.grad_cam_plus_plus(tap), closed(tap))


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e12])
def test_alpha_survives_gradients_of_any_size(scale):
    """Squares and cubes of these leave float32; the ratio does not."""
    gradient = jnp.full((2, 2, 1), 3.0) * scale
    total = jnp.full((1, 1, 1), 0.5) / scale
    zeros = jnp.zeros_like(gradient)
    found = alpha_from(Derivatives(gradient, zeros, zeros), total).values
    np.testing.assert_allclose(found, np.full((2, 2, 1), 1 / (2 + 1.5)), rtol=1e-5)


def test_a_score_too_large_for_exp_is_no_matter():
    tap = _tap(lambda a: 1000 + a.mean(), _activations(jnp.float32))
    assert np.isfinite(jaxcam.grad_cam_plus_plus(tap)).all()


def test_alpha_is_0_where_it_is_undefined():
    zeros = jnp.zeros((2, 2, 1))
    np.testing.assert_array_equal(
        alpha_from(Derivatives(zeros, zeros, zeros), jnp.ones((1, 1, 1))).values, 0
    )
    # A pole: 2 g^2 + Sigma g^3 with g = 1 and Sigma = -2.
    ones = jnp.ones((2, 2, 1))
    poles = alpha_from(Derivatives(ones, zeros, zeros), jnp.full((1, 1, 1), -2.0))
    np.testing.assert_array_equal(poles.values, 0)
    np.testing.assert_array_equal(poles.denominator, 0)


def test_non_positive_gradients_weigh_nothing():
    tap = _tap(lambda a: -a.mean(), _activations(jnp.float32))
    np.testing.assert_array_equal(jaxcam.grad_cam_plus_plus(tap), 0)
