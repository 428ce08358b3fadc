"""Where other libraries depart from the papers: each that 08_other_libraries names, shown."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam

conventions = jaxcam.conventions
KEY = jax.random.key(0)


def _tap(apply_fn=None, layer=None, score_fn=jaxcam.logit):
    case = plain()
    fn = apply_fn or case.apply_fn
    return jaxcam.tap(fn, layer or case.layer, case.variables, case.image, 1, score_fn=score_fn)


def _heatmap(convention, method=jaxcam.grad_cam, **knobs):
    case = plain()
    explain = jaxcam.explainer(case.apply_fn, case.layer, method, convention=convention, **knobs)
    return jax.jit(explain)(case.variables, case.image, 1).heatmap


def _signed(variables, x):
    """A layer of either sign."""
    return plain().apply_fn(variables, x) + jaxcam.tag(x, "signed").mean((0, 1)) @ jnp.ones((3, 5))


def test_pytorch_grad_cam_depends_on_the_unit_of_the_logits():
    method = conventions.pytorch_grad_cam.variant(jaxcam.grad_cam_plus_plus)
    small = _tap(score_fn=lambda logits, target: logits[target] / 100)
    used = jaxcam.grad_cam_plus_plus(_tap()) > 0
    own, exact = (
        (m(small) / m(_tap()))[used] for m in (method, jaxcam.grad_cam_plus_plus)
    )  # 0.01, but for what Sigma g adds to 2
    assert (exact > 0.01).all()
    assert (own < 0.01).all()


def test_pytorch_grad_cam_ablates_signed_layers_far_below_zero():
    own = conventions.pytorch_grad_cam.variant(jaxcam.ablation_cam)
    tap = _tap(_signed, "signed")
    score = tap.score_activations(tap.activations)
    # The three channels weigh the same, and lose 1, 2 and 3 times 1e7.
    np.testing.assert_allclose(own(tap)[0, 0] * score, [1e7, 2e7, 3e7], rtol=1e-3)
    assert abs(jaxcam.ablation_cam(tap) * score).max() < 1


def test_pytorch_grad_cam_centres_before_the_singular_vector():
    own = conventions.pytorch_grad_cam.variant(jaxcam.eigen_cam)(_tap())
    np.testing.assert_allclose(own.mean(), 0, atol=1e-5)
    assert jaxcam.combine(jaxcam.eigen_cam(_tap()), _tap().activations).mean() > 0.1


def test_pytorch_grad_cam_weighs_by_how_often_an_activation_is_rare():
    weights = conventions.pytorch_grad_cam.variant(jaxcam.fem)(_tap())
    counts = weights * _tap().activations[..., 0].size
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)


def test_pytorch_grad_cam_weighs_comparisons_by_probability():
    logits = jnp.array([2.0, 1.0, 0.0, -9.0])
    share = jnp.exp(logits[:3]) / jnp.exp(logits[:3]).sum()
    own = conventions.pytorch_grad_cam.variant(jaxcam.finer)
    wanted = (share[1] * 1 + share[2] * 2 + 0) / (share[1] + share[2])
    np.testing.assert_allclose(own(logits, 0, references=2), wanted, rtol=1e-5)
    np.testing.assert_allclose(jaxcam.finer(logits, 0, references=2, gamma=1.0), 1.5, rtol=1e-6)


def test_torchcam_is_left_with_cubed_gradients():
    tap = _tap()
    gradient = jax.grad(tap.score_activations)(tap.activations)
    own = conventions.torchcam.variant(jaxcam.grad_cam_plus_plus)(tap)
    np.testing.assert_allclose(own[0, 0], (jax.nn.relu(gradient) ** 3).sum((0, 1)), rtol=1e-5)


def test_torchcam_smooth_map_is_that_of_the_last_noisy_image():
    tap = _tap()  # linear behind the layer: one noisy image has the gradient of the clean one
    own = conventions.torchcam.variant(jaxcam.smooth_grad_cam_plus_plus)(tap, key=KEY, samples=1)
    weights = jaxcam.smooth_grad_cam_plus_plus(tap, key=KEY, samples=1)
    noise = jax.random.normal(jax.random.split(KEY, 1)[0], tap.image.shape)
    noisy = tap.at_image(tap.image + 0.3 * noise)
    np.testing.assert_allclose(own, jaxcam.combine(weights, noisy.activations), rtol=1e-4)
    assert not np.allclose(own, jaxcam.combine(weights, tap.activations), rtol=0.1)


def test_torchcam_masks_are_scaled_before_they_are_resized():
    """At half a pixel from its peak a resized mask has lost a part of it, each another one."""
    tap = dataclasses.replace(_tap(), image=jnp.ones((12, 10, 1)), score_image=jnp.max)
    live = tap.activations.max((0, 1)) > 0
    own = conventions.torchcam.variant(jaxcam.score_cam)(tap)[0, 0][live]
    papers = jaxcam.score_cam(tap)[0, 0][live]
    np.testing.assert_allclose(papers, papers[0], rtol=1e-5)
    assert np.ptp(own) > 0.01 * own.mean()


def test_torchcam_strengths_add_up():
    """Of two samples the strengths are 0.5 and 0.5 + 1."""
    tap = _tap()
    score_cam = conventions.torchcam.variant(jaxcam.score_cam)

    def log_weights(strength):
        score_image = lambda image: tap.score_image(strength * image)  # noqa: E731  # one line
        return jnp.log(score_cam(dataclasses.replace(tap, score_image=score_image)))

    found = jnp.log(conventions.torchcam.variant(jaxcam.is_cam)(tap, samples=2))
    wanted = (log_weights(0.5) + log_weights(1.5)) / 2  # up to a constant
    np.testing.assert_allclose(found - found.mean(), wanted - wanted.mean(), atol=1e-4)


def test_torchcam_lifts_the_last_layer_too():
    maps = jnp.array([[[0.2, 0.4]], [[0.5, 1.0]]])
    own = conventions.torchcam.variant(jaxcam.fuse_layer_cam)
    np.testing.assert_allclose(own(maps), jnp.tanh(2 * maps[1]), rtol=1e-6)
    np.testing.assert_allclose(jaxcam.fuse_layer_cam(maps), maps[1], rtol=1e-6)


def test_torchcam_cam_is_signed_before_its_range():
    own = conventions.torchcam.variant(jaxcam.cam)(_tap())
    assert own.min() < 0


def test_tf_keras_vis_overflows_where_the_score_is_large():
    own = conventions.tf_keras_vis.variant(jaxcam.grad_cam_plus_plus)
    high = _tap(score_fn=lambda logits, target: logits[target] + 100)
    assert not np.isfinite(own(high)).all()
    assert np.isfinite(jaxcam.grad_cam_plus_plus(high)).all()


def test_tf_keras_vis_weights_are_probabilities_of_no_sum():
    own = conventions.tf_keras_vis.variant(jaxcam.score_cam)(_tap())
    assert (own > 0).all()
    assert (own < 1).all()
    assert abs(own.sum() - 1) > 0.1
    np.testing.assert_allclose(jaxcam.score_cam(_tap()).sum(), 1, rtol=1e-6)


def test_xplique_has_the_mean_where_the_sum_belongs():
    tap = _tap()
    gradient = jax.grad(tap.score_activations)(tap.activations)
    mean = tap.activations.mean((0, 1), keepdims=True)
    wanted = (jax.nn.relu(gradient) / (2 + mean * gradient)).mean((0, 1))
    own = conventions.xplique.variant(jaxcam.grad_cam_plus_plus)(tap)
    np.testing.assert_allclose(own[0, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["xplique", "captum"])
def test_some_heatmaps_go_below_zero(name):
    assert _heatmap(getattr(conventions, name)).min() < 0
    assert _heatmap(conventions.paper).min() == 0
