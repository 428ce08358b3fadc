"""Overlays against arithmetic by hand."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

import jaxcam
from jaxcam._src.render import COLORMAP, save_panels

HEATMAP = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3)])
def test_overlay_blends_image_and_colours(shape):
    image = np.full(shape, 0.25, np.float32)
    wanted = np.round(255 * (0.7 * 0.25 + 0.3 * colormaps[COLORMAP](HEATMAP)[..., :3]))
    found = jaxcam.overlay(image, HEATMAP, alpha=0.3)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, wanted, atol=2)  # matplotlib takes one of 256 colours


def test_overlay_takes_uint8_as_it_is():
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(jaxcam.overlay(pixels, HEATMAP, alpha=0.0), pixels)


@pytest.mark.parametrize(
    ("image", "heatmap", "alpha", "message"),
    [
        (np.zeros((2, 4, 3)), HEATMAP, 0.5, r"heatmap \[3, 4\] does not fit image \[2, 4, 3\]"),
        (np.zeros((3, 4, 2)), HEATMAP, 0.5, r"image of shape \[3, 4, 2\]; wanted \[H, W, 3\]"),
        (np.full((3, 4), -2.1), HEATMAP, 0.5, r"image spans \[-2\.1, -2\.1\].*unit_range"),
        (np.zeros((3, 4)), HEATMAP * 2, 0.5, r"heatmap spans \[0, 2\]"),
        (np.zeros((3, 4)), HEATMAP * np.nan, 0.5, r"heatmap holds NaN; .* target is a class"),
        (np.zeros((3, 4)), HEATMAP, 1.5, r"alpha is 1\.5; wanted an opacity"),
    ],
)
def test_overlay_refuses_what_it_cannot_show(image, heatmap, alpha, message):
    with pytest.raises(ValueError, match=message):
        jaxcam.overlay(image, heatmap, alpha=alpha)


def test_panels_are_a_picture_of_the_rows(tmp_path):
    rows = [[HEATMAP, jaxcam.overlay(HEATMAP, HEATMAP)]] * 3
    with (tmp_path / "panels.png").open("wb") as file:
        save_panels(
            rows, ["image", "map"], file, captions=["a", "b", "c"], boxes=[(0, 0, 2, 2)] * 3
        )
    picture = np.asarray(Image.open(tmp_path / "panels.png"))
    assert picture.shape[0] > picture.shape[1]  # three rows of two
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20


def test_overlay_of_an_explanation_says_what_of_it_is_wanted():
    parts = [jnp.asarray(HEATMAP)] * len(dataclasses.fields(jaxcam.Explanation))
    whole = jaxcam.Explanation(*parts)
    with pytest.raises(ValueError, match=r"heatmap is an Explanation; .* explanation\.heatmap"):
        jaxcam.overlay(HEATMAP, whole)
