"""Opti-CAM: the score of the masked image rises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam


def _tap():
    case = plain()
    return jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image, 1)


def _masked_score(tap, weights):
    cam = (weights * tap.activations).sum(-1)
    mask = jaxcam.unit_range(jaxcam.upsample(cam, tap.image.shape[:-1]))
    return tap.score_image(tap.image * mask[..., None])


def test_the_score_of_the_masked_image_rises_with_the_steps():
    tap = _tap()
    scores = [_masked_score(tap, jaxcam.opti_cam(tap, steps=n)) for n in (1, 10, 60)]
    assert _masked_score(tap, jaxcam.uniform(tap)) < scores[0] < scores[1] < scores[2]


def test_the_first_step_of_adam_goes_along_the_signs_of_the_gradient():
    tap = _tap()
    slope = jax.jit(jax.grad(lambda u: _masked_score(tap, jax.nn.softmax(u))))(jnp.zeros((1, 1, 8)))
    wanted = jax.nn.softmax(0.2 * jnp.sign(slope))
    found = jaxcam.opti_cam(tap, steps=1, learning_rate=0.2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)  # Adam's own epsilon


def test_no_step_is_refused():
    with pytest.raises(ValueError, match=r"steps is 0; .* choose 1 or more"):
        jaxcam.opti_cam(_tap(), steps=0)
