"""Combining, upsampling and scaling maps, against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tiers import rest_is_thorough

import jaxcam


def test_combine_sums_channels_and_drops_what_is_negative():
    activations = jnp.array([[[1.0, 2.0]], [[3.0, 1.0]]])
    combined = jaxcam.combine(jnp.array([[[-1.0, 1.0]]]), activations)
    np.testing.assert_array_equal(combined, [[1.0], [0.0]])
    elementwise = jaxcam.combine(jnp.array([[[1.0, 0.5]], [[2.0, -1.0]]]), activations)
    np.testing.assert_array_equal(elementwise, [[2.0], [5.0]])


def test_combine_leaves_a_map_as_it_is():
    cam = jnp.array([[-1.0, 2.0]])
    np.testing.assert_array_equal(jaxcam.combine(cam, jnp.ones((1, 2, 5))), cam)


@pytest.mark.parametrize("shape", [(2,), (1, 1, 3), (4, 1, 2)])
def test_combine_refuses_weights_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"wanted \(1, 1, 2\) .* \(4, 3, 2\) .* or a map \(4, 3\)"):
        jaxcam.combine(jnp.ones(shape), jnp.ones((4, 3, 2)))


def test_upsample_interpolates_between_pixel_centres():
    # Twice as many pixels: each new centre lies a quarter of an old pixel from an old centre.
    np.testing.assert_allclose(
        jaxcam.upsample(jnp.array([0.0, 4.0]), (4,)), [0.0, 1.0, 3.0, 4.0], rtol=1e-6
    )


def test_upsample_that_shrinks_takes_the_nearest_centres_alone():
    values = jnp.array([0.0, 10.0, 0.0, 0.0, 10.0, 0.0])
    np.testing.assert_allclose(jaxcam.upsample(values, (2,)), [10.0, 10.0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(8,), (6, 8), (4, 6, 8)])
def test_upsample_keeps_a_constant_in_any_number_of_axes(shape):
    constant = jnp.full((2,) * len(shape), 3.0)
    np.testing.assert_allclose(jaxcam.upsample(constant, shape), np.full(shape, 3.0), rtol=1e-6)


def test_unit_range_moves_minimum_to_0_and_maximum_to_1():
    np.testing.assert_allclose(jaxcam.unit_range(jnp.array([-2.0, 0.0, 6.0])), [0.0, 0.25, 1.0])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_unit_range_does_not_depend_on_scale(scale):
    values = jnp.array([1.0, 2.0, 5.0]) * scale
    np.testing.assert_allclose(jaxcam.unit_range(values), [0.0, 0.25, 1.0], rtol=1e-6)


def test_unit_range_of_a_flat_array_is_0_and_so_is_its_gradient():
    flat = jnp.full((3,), 7.0)
    np.testing.assert_array_equal(jaxcam.unit_range(flat), np.zeros(3))
    gradient = jax.grad(lambda x: jaxcam.unit_range(x).sum())(flat)
    np.testing.assert_array_equal(gradient, np.zeros(3))


@pytest.mark.parametrize("size", [3, 64 * 64])
def test_unit_range_does_not_hide_a_nan(size):
    assert np.isnan(jaxcam.unit_range(jnp.ones(size).at[1].set(jnp.nan))).all()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only CPUs flush subnormal numbers to 0")
def test_unit_range_of_a_range_too_small_for_a_float_is_0():
    tiny = jnp.array([1.18e-38, 1.2e-38, 1.19e-38])
    np.testing.assert_array_equal(jaxcam.unit_range(tiny), np.zeros(3))


def test_fuse_max_takes_the_larger_of_the_layers():
    heatmaps = jnp.array([[0.1, 0.9], [0.4, 0.2]])
    np.testing.assert_allclose(jaxcam.fuse_max(heatmaps), [0.4, 0.9], rtol=1e-6)


def test_fuse_max_does_not_hide_a_nan():
    heatmaps = jnp.zeros((2, 64, 64)).at[0].set(jnp.nan)
    assert np.isnan(jaxcam.fuse_max(heatmaps)).all()


def test_fuse_layer_cam_lifts_all_but_the_deepest():
    heatmaps = jnp.array([[0.1, 0.5], [0.4, 0.2]])
    wanted = [0.4, np.tanh(2 * 0.5)]
    np.testing.assert_allclose(jaxcam.fuse_layer_cam(heatmaps), wanted, rtol=1e-6)


_unit_range = jax.jit(jaxcam.unit_range)  # one program for each shape
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@settings(deadline=None, max_examples=50)
@given(npst.arrays(np.float32, npst.array_shapes(min_dims=1, max_dims=3), elements=FLOATS))
def test_unit_range_of_anything_finite_is_in_range_and_keeps_the_order(values):
    scaled = np.asarray(_unit_range(values))
    assert ((scaled >= 0) & (scaled <= 1)).all()
    order = np.argsort(values, axis=None)
    assert (np.diff(scaled.reshape(-1)[order]) >= 0).all()
    assert scaled.max() == 0 if values.min() == values.max() else scaled.max() > 0.999999


def test_refine_cam_multiplies_the_layers():
    heatmaps = jnp.array([[[0.5, 1.0]], [[1.0, 0.2]], [[0.0, 0.5]]])
    np.testing.assert_allclose(jaxcam.fuse_refine_cam(heatmaps), [[0, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("dtype", rest_is_thorough([jnp.float16, jnp.bfloat16, jnp.float32]))
@pytest.mark.parametrize("value", [0.37, -0.37, 1e-30, 3e4, 0.0])
@pytest.mark.parametrize(
    ("before", "after"), [((7, 7), (224, 224)), ((3, 5), (11, 2)), ((9,), (4,))]
)
def test_a_flat_map_stays_flat_when_it_is_resized(dtype, value, before, after):
    def heatmap(cam):
        return jaxcam.unit_range(jaxcam.upsample(cam, after))

    cam = jnp.full(before, value, dtype)
    for found in (heatmap(cam), jax.jit(heatmap)(cam), jax.vmap(heatmap)(cam[None])[0]):
        np.testing.assert_array_equal(found, np.zeros(after))


def test_a_flat_map_stays_flat_in_float64(x64):
    resized = jaxcam.upsample(jnp.full((7, 7), 0.37), (224, 224))
    np.testing.assert_array_equal(jaxcam.unit_range(resized), np.zeros((224, 224)))


def test_neighbouring_numbers_are_a_flat_map_and_small_ones_are_not():
    neighbours = jnp.asarray([0.37, np.nextafter(np.float32(0.37), np.float32(1))])
    np.testing.assert_array_equal(jaxcam.unit_range(neighbours), [0, 0])
    np.testing.assert_allclose(jaxcam.unit_range(jnp.asarray([1.0, 1.00001])), [0, 1])
    np.testing.assert_allclose(jaxcam.unit_range(jnp.asarray([0.0, 1e-30])), [0, 1])


def test_a_resized_map_stays_in_its_range_and_keeps_its_gradient():
    cam = jnp.asarray([[0.1, 0.9], [0.3, 0.3]])
    resized = jaxcam.upsample(cam, (50, 50))
    assert resized.min() == cam.min()
    assert resized.max() == cam.max()
    gradient = jax.grad(lambda cam: jaxcam.upsample(cam, (50, 50)).sum())(cam)
    np.testing.assert_allclose(gradient, np.full((2, 2), 625.0), rtol=1e-5)


@pytest.mark.parametrize(("value", "wanted", "slope"), [(-1, 0, 0), (0, 0, 0), (1, 1, 1)])
def test_the_relu_of_a_map_is_flat_at_0(value, wanted, slope):
    weights, activations = jnp.ones((1, 1, 1)), jnp.full((1, 1, 1), float(value))
    assert jaxcam.combine(weights, activations).item() == wanted
    assert jax.grad(lambda a: jaxcam.combine(weights, a).sum())(activations).item() == slope
    assert np.isnan(jaxcam.combine(weights, activations * np.nan)).all()


def test_a_map_of_other_axes_than_the_size_is_refused():
    with pytest.raises(ValueError, match=r"a map \[2\] to resize to \(4, 4\); wanted as many axes"):
        jaxcam.upsample(jnp.ones(2), (4, 4))
