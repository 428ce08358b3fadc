"""Guided backpropagation against the rule written out for a network of two ReLUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from tiers import rest_is_thorough

import jaxcam

FIRST = jax.random.normal(jax.random.key(0), (3, 6))
SECOND = jax.random.normal(jax.random.key(1), (6, 4))


@pytest.mark.parametrize(
    "relu",
    [jax.nn.relu, lambda x: jnp.maximum(x, 0), jax.jit(jax.nn.relu), jax.checkpoint(jax.nn.relu)],
)
def test_negative_gradients_stop_at_every_relu(relu):
    def apply_fn(variables, x):
        y = jaxcam.tag(relu(x @ FIRST), "layer")
        return relu(y @ SECOND).sum((0, 1))

    image = jax.random.normal(jax.random.key(2), (5, 4, 3))
    tap = jaxcam.tap(apply_fn, "layer", None, image, 1)
    before = np.asarray(image @ FIRST)
    after = np.maximum(before, 0) @ SECOND
    back = np.where(after > 0, np.eye(4)[1], 0) @ SECOND.T
    back = np.where(before > 0, np.maximum(back, 0), 0) @ FIRST.T
    found = jaxcam.guided_gradient(tap)
    np.testing.assert_allclose(found, back, rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, jax.grad(tap.score_image)(image))


def test_relu6_keeps_its_own_ceiling():
    def apply_fn(variables, x):
        return jax.nn.relu6(jaxcam.tag(x, "layer")).sum((0, 1)) @ jnp.eye(3)

    image = jnp.array([-1.0, 3.0, 7.0]).reshape(1, 1, 3)
    for target, wanted in enumerate((0, 1, 0)):
        tap = jaxcam.tap(apply_fn, "layer", None, image, target)
        assert jaxcam.guided_gradient(tap)[0, 0, target] == wanted


@pytest.mark.parametrize("name", rest_is_thorough(CASES, first=3))
def test_guided_grad_cam_is_the_product_of_the_two(name):
    case = CASES[name]()

    @jax.jit
    def both(image):
        tap = jaxcam.tap(case.apply_fn, case.layer, case.variables, image, 1)
        return jaxcam.guided_grad_cam(tap), jaxcam.guided_gradient(tap)

    product, guided = both(case.image)
    explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer))
    explanation = explain(case.variables, case.image, 1)
    assert product.shape == case.image.shape
    wanted = guided * explanation.heatmap[..., None]
    np.testing.assert_allclose(product, wanted, rtol=1e-4, atol=1e-6)
    assert abs(product).max() > 0


def test_a_model_without_a_relu_in_reach_is_refused():
    def smooth_fn(variables, x):
        return jaxcam.tag(jnp.tanh(x), "layer").mean((0, 1))

    def looping_fn(variables, x):
        y, _ = jax.lax.scan(lambda y, _: (jax.nn.relu(y), None), x, length=2)
        return jaxcam.tag(y, "layer").mean((0, 1))

    image = jnp.ones((4, 4, 3))
    with pytest.raises(ValueError, match=r"of 0 in the model 0 can be reached; it wants jax\.nn"):
        jaxcam.guided_gradient(jaxcam.tap(smooth_fn, "layer", None, image, 0))
    with pytest.raises(ValueError, match=r"of 1 in the model 0 can be reached"):
        jaxcam.guided_gradient(jaxcam.tap(looping_fn, "layer", None, image, 0))
