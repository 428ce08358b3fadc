"""Ablation-CAM and Recipro-CAM against plain loops and closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam


def _tap(score_fn=jaxcam.logit, target=1):
    case = plain()
    return jaxcam.tap(
        case.apply_fn, case.layer, case.variables, case.image, target, score_fn=score_fn
    )


@pytest.mark.parametrize("score_fn", [jaxcam.logit, jaxcam.probability])
def test_ablation_cam_is_the_share_of_the_score_that_a_channel_holds(score_fn):
    tap = _tap(score_fn)
    score = tap.score_activations(tap.activations)
    without = [
        tap.score_activations(tap.activations.at[..., k].set(0))
        for k in range(tap.activations.shape[-1])
    ]
    wanted = (score - np.array(without)) / score
    # Differences of scores that are nearly equal.
    np.testing.assert_allclose(jaxcam.ablation_cam(tap)[0, 0], wanted, rtol=1e-4, atol=1e-6)


def test_channels_that_ablation_does_not_change_cost_nothing():
    whole, passes = _tap(), []
    dead = whole.activations.at[..., :3].set(0)

    def score_activations(activations):
        jax.debug.callback(lambda: passes.append(1))
        return whole.score_activations(activations)

    tap = dataclasses.replace(whole, activations=dead, score_activations=score_activations)
    weights = jax.block_until_ready(jaxcam.ablation_cam(tap, chunk_size=1))
    jax.effects_barrier()
    alive = jnp.any(dead != 0, axis=(0, 1))
    assert len(passes) == 1 + alive.sum() <= dead.shape[-1] - 2  # and once for the score itself
    np.testing.assert_array_equal(weights[..., :3], 0)


@pytest.mark.thorough
def test_a_dead_channel_has_a_derivative_too():
    """The score without channel k does not depend on it: `d w_k / d A_k` is that of S over S."""
    tap = _tap(jaxcam.probability)
    dead = tap.activations.at[..., 0].set(0)

    def weight(activations):
        return jaxcam.ablation_cam(dataclasses.replace(tap, activations=activations))[0, 0, 0]

    score, gradient = jax.value_and_grad(tap.score_activations)(dead)
    found = jax.grad(weight)(dead)[..., 0]
    np.testing.assert_allclose(found, gradient[..., 0] / score, rtol=1e-5)


def test_ablation_cam_behind_a_global_pool_is_the_share_of_the_logit():
    case, tap = plain(), _tap()
    parts = case.variables["dense"][:, 1] * tap.activations.mean((0, 1))
    wanted = parts / parts.sum()
    np.testing.assert_allclose(jaxcam.ablation_cam(tap)[0, 0], wanted, rtol=1e-4, atol=1e-6)


def test_ablation_cam_of_no_score_is_zero():
    tap = _tap(lambda logits, target: 0 * logits[target])
    np.testing.assert_array_equal(jaxcam.ablation_cam(tap), 0)


def test_recipro_cam_scores_each_neighbourhood_alone():
    tap = _tap(jaxcam.probability)
    height, width, _ = tap.activations.shape
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    wanted = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            mask = np.zeros((height + 2, width + 2))
            mask[i : i + 3, j : j + 3] = kernel
            kept = tap.activations * jnp.asarray(mask[1:-1, 1:-1, None], jnp.float32)
            wanted[i, j] = tap.score_activations(kept)
    np.testing.assert_allclose(jaxcam.recipro_cam(tap), wanted, rtol=1e-5)


@pytest.mark.parametrize("method", [jaxcam.ablation_cam, jaxcam.recipro_cam])
@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_results_do_not_depend_on_chunk_size(method, chunk_size):
    found = functools.partial(method, chunk_size=chunk_size)(_tap())
    # Another batch size is another order of sums; the weights are differences of scores.
    np.testing.assert_allclose(found, method(_tap()), rtol=1e-4, atol=1e-6)


def test_chunk_size_below_1_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size is 0; .* choose 1 or more"):
        jaxcam.ablation_cam(_tap(), chunk_size=0)
