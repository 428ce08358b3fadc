"""Models in half precision: maps are float32, and those of float32 up to what the model rounds."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ONE_OF_EACH
from tiers import rest_is_thorough, thorough_but

import jaxcam
from jaxcam._src import cli, methods

FEW = {"samples": 2, "steps": 3}
# Side and scale of the activations: their sum overflows float16, or their squares underflow it.
LAYERS = {"overflow": (112, 10.0), "underflow": (112, 1e-3), "small": (12, 1.0)}
TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2}  # about ten units in the last place
# Its threshold is met or missed by a rounding; and its score, that of one place in 12,544 times
# 1e-3, is below what float16 can hold.
BEYOND = {("fem", size) for size in LAYERS} | {("recipro_cam", "underflow")}


def _quick(method):
    knobs = FEW.keys() & inspect.signature(method).parameters.keys()
    return methods.seeded(functools.partial(method, **{name: FEW[name] for name in knobs}), 0)


def _apply(variables, image):
    activations = jaxcam.tag(jax.nn.relu(image @ variables["mix"]) * variables["scale"], "features")
    pooled = activations.astype(jnp.float32).mean((0, 1)).astype(activations.dtype)
    return pooled @ variables["dense"]


def _given(side, scale, dtype):
    """Numbers that bfloat16 holds, so that all dtypes start from the same."""
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 3)
    drawn = (
        jax.random.uniform(keys[0], (3, 4)),
        jax.random.normal(keys[1], (4, 5)),
        jax.random.uniform(keys[2], (side, side, 3)),
    )
    mix, dense, image = (x.astype(jnp.bfloat16).astype(dtype) for x in drawn)
    return {"mix": mix, "dense": dense, "scale": jnp.asarray(scale, dtype)}, image


@functools.cache
def _explained(name, size, dtype):
    explain = jaxcam.explainer(_apply, "features", _quick(cli.METHODS[name]))
    return jax.jit(explain)(*_given(*LAYERS[size], dtype), 1)


@pytest.mark.parametrize("dtype", rest_is_thorough(TOLERANCES))
@pytest.mark.parametrize("size", rest_is_thorough(LAYERS))
@pytest.mark.parametrize("name", thorough_but(cli.METHODS, ONE_OF_EACH.__contains__))
def test_a_method_sums_in_float32(name, size, dtype):
    found, wanted = (_explained(name, size, d) for d in (dtype, "float32"))
    assert (found.heatmap.dtype, found.cam.dtype) == (jnp.float32, jnp.float32)
    assert np.isfinite(found.heatmap).all()
    if (name, size) not in BEYOND:
        np.testing.assert_allclose(found.heatmap, wanted.heatmap, atol=TOLERANCES[dtype])


def test_xgrad_cam_is_grad_cam_on_a_linear_head_in_float16():
    """The sum of 12,544 activations of mean 10 is beyond float16."""
    found = [_explained(name, "overflow", "float16").weights for name in ("xgrad_cam", "grad_cam")]
    np.testing.assert_allclose(*found, rtol=1e-3)
    assert abs(found[0]).max() > 0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_range_below_the_smallest_normal_number_is_a_range(dtype):
    values = jnp.asarray([0, 2.5e-6, 5e-6, 1e-5], dtype)
    np.testing.assert_allclose(jaxcam.unit_range(values), [0, 0.25, 0.5, 1], atol=0.01)


@pytest.mark.parametrize("score_fn", [jaxcam.probability, jaxcam.log_probability, jaxcam.rest])
def test_a_score_over_many_classes_sums_in_float32(score_fn):
    logits = jnp.zeros(100_000, jnp.float16)  # whose exponentials add up beyond float16
    np.testing.assert_allclose(score_fn(logits, 3), score_fn(jnp.zeros(100_000), 3), rtol=1e-6)


@pytest.mark.parametrize("fuse", [jaxcam.fuse_max, jaxcam.fuse_layer_cam, jaxcam.fuse_refine_cam])
def test_a_fusion_is_in_float32(fuse):
    heatmaps = jnp.asarray([[1e-3, 1.0], [1e-5, 0.5], [1e-3, 1.0]], jnp.float16)
    np.testing.assert_allclose(fuse(heatmaps), fuse(heatmaps.astype(jnp.float32)), rtol=1e-3)
