"""RISE against its means written out in NumPy, and what it must find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain
from tiers import rest_is_thorough

import jaxcam

KEY = jax.random.key(0)


def _tap(apply_fn, image):
    return jaxcam.tap(apply_fn, "image", None, image, 0)


def _drawn(samples, cells, keep, cell):
    """Grids and moves as the method draws them."""
    for_grids, for_moves = jax.random.split(KEY)
    grids = jax.random.bernoulli(for_grids, keep, (samples, cells, cells))
    moves = jax.random.randint(for_moves, (samples, 2), 0, jnp.array([cell]))
    return np.asarray(grids, float), np.asarray(moves)


def _enlarged(values, size):
    """Linear interpolation between the centres of cells, along the first axis."""
    at = (np.arange(size) + 0.5) * len(values) / size - 0.5
    return np.stack([np.interp(at, np.arange(len(values)), column) for column in values.T], axis=-1)


@pytest.mark.parametrize("chunk_size", rest_is_thorough([3, 1, 100]))
def test_rise_is_the_mean_score_of_the_masks_that_keep_a_place(chunk_size):
    def apply_fn(variables, x):
        return jnp.sin(3 * jaxcam.tag(x, "image")).mean((0, 1))

    samples, cells, keep = 7, 3, 0.3
    tap = _tap(apply_fn, jax.random.uniform(jax.random.key(1), (8, 11, 2)))
    masks, scores = [], []
    for grid, (down, right) in zip(*_drawn(samples, cells, keep, (3, 4)), strict=True):
        large = _enlarged(_enlarged(grid, 12).T, 16).T
        masks.append(large[down : down + 8, right : right + 11])
        scores.append(np.sin(3 * tap.image[..., 0] * masks[-1]).mean())
    total, seen = np.tensordot(scores, masks, 1), np.sum(masks, axis=0)
    wanted = np.where(seen > 0, total / np.where(seen > 0, seen, 1), np.mean(scores))
    knobs = {"samples": samples, "cells": cells, "keep": keep, "chunk_size": chunk_size}
    found = jax.jit(lambda: jaxcam.rise(tap, key=KEY, **knobs))()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.thorough
def test_rise_finds_the_place_that_is_looked_at():
    def apply_fn(variables, x):
        return jaxcam.tag(x, "image")[9, 20]

    tap = _tap(apply_fn, jnp.ones((28, 28, 1)))
    found = jax.jit(lambda: jaxcam.rise(tap, key=KEY, samples=1000))()
    assert np.hypot(*(np.argwhere(found == found.max())[0] - [9, 20])) < 4  # a cell is 4 wide
    far = found[:, :10]
    # What is far is kept or not whatever the place is: its share of the score is that of all.
    np.testing.assert_allclose(far.mean(), 0.5, atol=0.03)
    assert found.max() > 1.3 * far.max()


@pytest.mark.thorough
def test_rise_at_a_layer_is_the_mean_of_the_pixels_there():
    def apply_fn(variables, x):
        x = jaxcam.tag(x, "image")
        halves = x.reshape(4, 2, 4, 2, 3).mean((1, 3))
        return jaxcam.tag(halves, "layer").mean((0, 1))

    image = jax.random.uniform(jax.random.key(2), (8, 8, 3))
    method = functools.partial(jaxcam.rise, key=KEY, samples=5)
    explain = [jaxcam.explainer(apply_fn, layer, method) for layer in ("image", "layer")]
    pixels, places = (jax.jit(e)(None, image, 0).cam for e in explain)
    assert pixels.shape == (8, 8)
    wanted = jax.image.resize(pixels, (4, 4), "linear", antialias=True)
    np.testing.assert_allclose(places, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"samples": 0}, r"samples is 0; .* choose 1 or more"),
        ({"cells": 0}, r"cells is 0; .* choose 1 or more"),
        ({"chunk_size": 0}, r"chunk_size is 0; .* choose 1 or more"),
        ({"keep": 1.0}, r"keep is 1\.0; it is the share of cells kept"),
    ],
)
def test_knobs_of_no_sense_are_refused(knobs, message):
    case = plain()
    tap = jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image, 1)
    with pytest.raises(ValueError, match=message):
        jaxcam.rise(tap, key=KEY, **knobs)
