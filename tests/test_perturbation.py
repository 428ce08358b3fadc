"""Score-CAM against a plain loop over channels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import plain

import jaxcam


def _tap(score_fn=jaxcam.logit):
    case = plain()
    return jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image, 1, score_fn=score_fn)


@functools.cache
def _weights_by_loop(score_fn):
    tap = _tap(score_fn)
    scores = []
    for k in range(tap.activations.shape[-1]):
        mask = jax.image.resize(tap.activations[..., k], tap.image.shape[:2], "bilinear")
        if mask.max() > mask.min():
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        else:
            mask = jnp.zeros_like(mask)
        scores.append(float(tap.score_image(tap.image * mask[..., None])))
    return np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("score_fn", [jaxcam.logit, jaxcam.probability])
def test_score_cam_is_the_softmax_of_the_masked_scores(score_fn):
    found = jaxcam.score_cam(_tap(score_fn))
    assert found.shape == (1, 1, 8)
    np.testing.assert_allclose(found[0, 0], _weights_by_loop(score_fn), rtol=1e-4)  # float32 exp


@pytest.mark.parametrize("chunk_size", [1, 3, 8, 100])
def test_score_cam_does_not_depend_on_chunk_size(chunk_size):
    found = jaxcam.score_cam(_tap(), chunk_size=chunk_size)
    # Another batch size is another order of sums in the convolutions.
    np.testing.assert_allclose(found[0, 0], _weights_by_loop(jaxcam.logit), rtol=1e-4)


def test_a_flat_channel_masks_the_whole_image():
    def apply_fn(variables, x):
        flat = jnp.full((*x.shape[:2], 1), 3.0)
        features = jaxcam.tag(jnp.concatenate([x, flat], -1), "layer")
        return features.sum((0, 1)) @ jnp.ones((4, 2)) / 100

    image = jax.random.uniform(jax.random.key(0), (5, 4, 3))
    tap = jaxcam.tap(apply_fn, "layer", None, image, 0)
    weights = jaxcam.score_cam(tap)[0, 0]
    assert np.isfinite(weights).all()
    wanted = tap.score_image(jnp.zeros_like(image)) - tap.score_image(
        image * jaxcam.unit_range(image[..., 0])[..., None]
    )
    np.testing.assert_allclose(jnp.log(weights[3] / weights[0]), wanted, rtol=1e-4)  # float32 log


def test_masks_are_made_inside_the_chunk():
    """No array of all K masks at the size of the image: memory is set by `chunk_size`."""
    channels, side, chunk_size = 64, 48, 4

    def apply_fn(variables, x):
        small = jax.image.resize(x, (3, 3, 1), "linear")
        features = jaxcam.tag(small * jnp.arange(1.0, channels + 1)[None, None], "layer")
        return jnp.sin(features).sum((0, 1)).reshape(4, -1).sum(-1)

    method = functools.partial(jaxcam.score_cam, chunk_size=chunk_size)
    explain = jax.jit(jaxcam.explainer(apply_fn, "layer", method))
    image = jax.random.uniform(jax.random.key(0), (side, side, 1))
    memory = explain.lower(None, image, 0).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < channels * side * side * 4 / 2


def test_chunk_size_below_1_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size is 0; .* choose 1 or more"):
        jaxcam.score_cam(_tap(), chunk_size=0)
