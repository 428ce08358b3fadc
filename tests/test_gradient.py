"""Gradient methods against closed forms on a global average pool and a dense layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CLASSES, linen

import jaxcam

HEIGHT, WIDTH, K = 6, 5, 4
DENSE = jax.random.normal(jax.random.key(0), (K, CLASSES))
ACTIVATIONS = jax.random.normal(jax.random.key(1), (HEIGHT, WIDTH, K))


def pooled_dense(dense, x):
    """The image is the activations: global average pool, then a dense layer."""
    return jaxcam.tag(x, "layer").mean((0, 1)) @ dense


def squared(dense, x):
    """Not linear: every activation has a gradient of its own, `2 A c`."""
    return (jaxcam.tag(x, "layer") ** 2).sum((0, 1)) @ dense


def _tap(apply_fn=pooled_dense, target=2, **kwargs):
    return jaxcam.tap(apply_fn, "layer", DENSE, ACTIVATIONS, target, **kwargs)


def test_cam_weights_are_the_row_of_the_dense_layer():
    np.testing.assert_allclose(jaxcam.cam(_tap()), DENSE[None, None, :, 2], rtol=1e-6)


def test_grad_cam_of_pooled_dense_is_cam_over_the_number_of_positions():
    np.testing.assert_allclose(
        jaxcam.grad_cam(_tap()) * HEIGHT * WIDTH, jaxcam.cam(_tap()), rtol=1e-6
    )


def test_grad_cam_averages_the_gradient():
    wanted = (2 * ACTIVATIONS).mean((0, 1)) * DENSE[:, 2]
    np.testing.assert_allclose(jaxcam.grad_cam(_tap(squared))[0, 0], wanted, rtol=1e-5)


def test_layer_cam_keeps_the_positive_gradient():
    wanted = np.maximum(2 * ACTIVATIONS * DENSE[None, None, :, 2], 0)
    np.testing.assert_allclose(jaxcam.layer_cam(_tap(squared)), wanted, rtol=1e-6)


def test_cam_refuses_a_head_that_is_not_linear():
    with pytest.raises(ValueError, match=r"no linear function .* or jaxcam\.grad_cam"):
        jaxcam.cam(_tap(squared))


def test_cam_refuses_a_head_without_a_pool():
    def flattened(dense, x):
        return jnp.repeat(jaxcam.tag(x, "layer").reshape(-1), CLASSES).reshape(-1, CLASSES).sum(0)

    with pytest.raises(ValueError, match=r"`reshape` comes before a sum over all positions"):
        jaxcam.cam(_tap(flattened))


def test_cam_refuses_a_score_that_is_not_linear():
    with pytest.raises(ValueError, match=r"no linear function .* and jaxcam\.logit"):
        jaxcam.cam(_tap(score_fn=jaxcam.probability))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere convolutions are calls")
def test_grad_cam_costs_one_forward_pass_and_the_backward_pass_of_the_head():
    case = linen()
    layer = "block/conv1"

    def convolutions(f):
        program = jax.jit(f).lower(case.variables, case.image).compile()
        return str(program.as_text()).count(" convolution(")

    split_fn = jaxcam.split(case.apply_fn, layer)
    before = convolutions(lambda v, x: split_fn(v, x)[0])
    forward = convolutions(case.apply_fn)
    after = 1  # block/conv2; the shortcut's 1x1 convolution is compiled to a matrix product
    assert (before, forward) == (2, 3)
    explain = jaxcam.explainer(case.apply_fn, layer, jaxcam.grad_cam)
    # The backward pass needs one convolution for each in the head: the parameters' gradients
    # would need another.
    assert convolutions(functools.partial(explain, target=1)) == forward + after


def test_hires_cam_before_its_relu_adds_up_to_the_score_of_a_linear_head():
    weights = jaxcam.hires_cam(_tap())
    assert weights.shape == ACTIVATIONS.shape
    total = (weights * ACTIVATIONS).sum()
    np.testing.assert_allclose(total, _tap().logits[2], rtol=1e-5)


def test_elementwise_grad_cam_sums_the_positive_products():
    tap = _tap(squared)
    wanted = np.maximum(2 * ACTIVATIONS**2 * DENSE[None, None, :, 2], 0).sum(-1)
    found = jaxcam.combine(jaxcam.elementwise_grad_cam(tap), ACTIVATIONS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_xgrad_cam_weighs_the_gradient_by_the_activation():
    sums = ACTIVATIONS.sum((0, 1))
    wanted = 2 * (ACTIVATIONS**2).sum((0, 1)) * DENSE[:, 2] / sums
    np.testing.assert_allclose(jaxcam.xgrad_cam(_tap(squared))[0, 0], wanted, rtol=1e-5)
    np.testing.assert_allclose(jaxcam.xgrad_cam(_tap()), jaxcam.grad_cam(_tap()), rtol=1e-4)


def test_xgrad_cam_of_a_dead_channel_is_zero():
    dead = ACTIVATIONS.at[..., 1].set(0)
    weights = jaxcam.xgrad_cam(jaxcam.tap(pooled_dense, "layer", DENSE, dead, 2))
    assert weights[0, 0, 1] == 0
    assert np.isfinite(weights).all()


def test_counterfactual_grad_cam_is_grad_cam_of_the_negated_score():
    negated = _tap(squared, score_fn=lambda logits, target: -logits[target])
    np.testing.assert_array_equal(
        jaxcam.counterfactual_grad_cam(_tap(squared)), jaxcam.grad_cam(negated)
    )


def test_shapley_cam_of_a_quadratic_score():
    """`S = c A^2`: `g = 2 c A` and `H A = 2 c A`, of which half is left."""
    wanted = (ACTIVATIONS * DENSE[None, None, :, 2]).mean((0, 1))
    np.testing.assert_allclose(jaxcam.shapley_cam(_tap(squared))[0, 0], wanted, rtol=1e-5)


def test_shapley_cam_of_a_linear_score_is_grad_cam_and_of_rest_is_not():
    np.testing.assert_allclose(jaxcam.shapley_cam(_tap()), jaxcam.grad_cam(_tap()), rtol=1e-6)
    smooth = _tap(score_fn=jaxcam.rest)
    assert not np.allclose(jaxcam.shapley_cam(smooth), jaxcam.grad_cam(smooth), rtol=1e-3)
