"""Metrics against arithmetic by hand."""

import jax.numpy as jnp
import numpy as np

import jaxcam


def test_energy_inside_is_the_share_of_the_sum():
    heatmap = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    inside = jnp.array([[False, True], [False, True]])
    np.testing.assert_allclose(jaxcam.energy_inside(heatmap, inside), 0.6, rtol=1e-6)


def test_energy_inside_of_ones_is_the_share_of_the_area():
    inside = jnp.zeros((4, 5), bool).at[1:3, 2:4].set(True)
    np.testing.assert_allclose(jaxcam.energy_inside(jnp.ones((4, 5)), inside), 0.2, rtol=1e-6)


def test_energy_inside_of_nothing_is_0():
    assert jaxcam.energy_inside(jnp.zeros((2, 2)), jnp.ones((2, 2), bool)) == 0
