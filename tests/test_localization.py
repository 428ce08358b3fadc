"""Localisation over many images, grids of photographs, and floors: numbers by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import metrics

# Maps and boxes of the published evaluation's own unit tests.
ONE = [[0, 0, 0, 0, 0], [0, 0.4, 0.4, 0.4, 0.6], [0, 0.4, 1, 0.8, 0.6], [0, 0.4, 0.4, 0.4, 0.6]]
OTHER = [[0.4, 0, 0.2, 0.2, 0.2], [0.4, 0.4, 0, 0.4, 0], [0, 0, 0, 0.4, 0], [1, 0.6, 0.8, 0.2, 0.2]]


def _largest(boxes, heatmap, threshold):
    """The box of the largest connected part, which the first version of the metric takes."""
    steps = (255 * np.asarray(heatmap)).astype(np.uint8)
    above = steps > int(threshold * steps.max())

    def size(box):
        x0, y0, x1, y1 = box.astype(int)
        return above[y0 : y1 + 1, x0 : x1 + 1].sum()

    return max(boxes, key=size)


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [(0.0, "1143"), (0.2, "1143"), (0.4, "2143"), (0.6, "2243"), (0.8, "2233")],
)
def test_boxes_around_one_part(threshold, wanted):
    (box,) = metrics.boxes_above(np.array(ONE, np.float32), threshold)
    assert "".join(str(int(x)) for x in box) == wanted


@pytest.mark.parametrize(("threshold", "wanted"), [(0.0, "0043"), (0.4, "0333"), (0.8, "0313")])
def test_boxes_around_several_parts(threshold, wanted):
    heatmap = np.array(OTHER, np.float32)
    boxes = metrics.boxes_above(heatmap, threshold)
    found = _largest(boxes, heatmap, threshold)
    assert "".join(str(int(x)) for x in found) == wanted


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [(0.0, "0043"), (0.2, "0022"), (0.4, "0333"), (0.6, "2333"), (0.8, "0313")],
)
def test_the_published_box_is_one_of_several(threshold, wanted):
    """That of the part with the largest outline."""
    boxes = metrics.boxes_above(np.array(OTHER, np.float32), threshold)
    assert wanted in {"".join(str(int(x)) for x in box) for box in boxes}


def test_nothing_has_a_box_of_zeros():
    np.testing.assert_array_equal(metrics.boxes_above(np.zeros((4, 5)), 0.5), [[0, 0, 0, 0]])


def test_overlap_of_boxes():
    a, b = np.array([[1.0, 2, 5, 6]]), np.array([[3.0, 1, 4, 5]])
    np.testing.assert_allclose(metrics.box_overlaps(a, b), [[8 / 27]])


def test_max_box_accuracy_takes_the_best_threshold_of_all_images():
    heatmaps = np.zeros((2, 20, 20), np.float32)
    heatmaps[0, 4:12, 5:15] = 1
    heatmaps[1, 2:18, 2:18] = 0.2  # which hides the box below one threshold
    heatmaps[1, 8:16, 3:9] = 1
    boxes = [np.array([[5.0, 4, 14, 11]]), np.array([[3.0, 8, 8, 15], [0, 0, 1, 1]])]
    assert metrics.max_box_accuracy(heatmaps, boxes) == 1
    assert metrics.max_box_accuracy(heatmaps, boxes, thresholds=[0.0]) == 0.5
    wrong = [np.array([[0.0, 15, 2, 17]])] * 2
    assert metrics.max_box_accuracy(heatmaps, wrong) == 0


def test_pixel_average_precision_is_that_of_all_pixels_sorted(rng):
    heatmaps = rng.integers(0, 1000, (3, 8, 9)) / 1000 + 0.0005
    inside = rng.uniform(size=heatmaps.shape) < heatmaps
    order = np.argsort(-heatmaps, axis=None, kind="stable")
    values, hits = heatmaps.ravel()[order], inside.ravel()[order]
    last = np.append(np.diff(values) != 0, True)  # of pixels with one value
    precision = (hits.cumsum() / np.arange(1, hits.size + 1))[last]
    recall = (hits.cumsum() / hits.sum())[last]
    wanted = (np.diff(recall, prepend=0) * precision).sum()
    np.testing.assert_allclose(metrics.pixel_average_precision(heatmaps, inside), wanted)


def test_masks_of_integers_are_those_of_booleans(rng):
    heatmaps, inside = rng.uniform(0, 1, (4, 6, 6)), rng.uniform(0, 1, (4, 6, 6)) < 0.3
    wanted = metrics.pixel_average_precision(heatmaps, inside)
    for dtype in (int, np.uint8):
        assert metrics.pixel_average_precision(heatmaps, inside.astype(dtype)) == wanted


def test_a_map_that_is_not_finite_makes_the_number_nan():
    heatmaps, inside = np.ones((2, 4, 5)), np.ones((2, 4, 5), bool)
    heatmaps[1, 0, 0] = np.nan
    assert np.isnan(metrics.pixel_average_precision(heatmaps, inside))
    assert np.isnan(metrics.max_box_accuracy(heatmaps, [np.array([[0.0, 0, 2, 2]])] * 2))


def test_truths_that_do_not_fit_the_maps_are_refused():
    maps = np.ones((2, 4, 5), np.float32)
    with pytest.raises(ValueError, match="masks of the shape"):
        metrics.pixel_average_precision(maps, np.ones((2, 4, 4), bool))
    with pytest.raises(ValueError, match="image 1 has no box"):
        metrics.max_box_accuracy(maps, [np.array([[0.0, 0, 2, 2]]), np.zeros((0, 4))])
    with pytest.raises(ValueError, match="one for each position"):
        jaxcam.energy_inside(maps[0], np.ones((2, 4, 5), bool))
    assert jaxcam.energy_inside(np.ones((2, 2), int), np.eye(2, dtype=bool)) == 0.5


def test_pixel_average_precision_at_its_ends():
    inside = np.zeros((1, 4, 5), bool)
    inside[0, 1:3, 1:3] = True
    assert metrics.pixel_average_precision(inside.astype(float), inside) == 1
    np.testing.assert_allclose(metrics.pixel_average_precision(np.ones((1, 4, 5)), inside), 0.2)
    with pytest.raises(ValueError, match="no pixel is inside"):
        metrics.pixel_average_precision(np.ones((1, 4, 5)), ~np.ones((1, 4, 5), bool))


def test_a_mosaic_and_its_cells():
    images = np.arange(4.0).reshape(4, 1, 1, 1) * np.ones((4, 3, 2, 1))
    whole = metrics.mosaic(images)
    assert whole.shape == (6, 4, 1)
    np.testing.assert_array_equal(whole[::3, ::2, 0], [[0, 1], [2, 3]])
    np.testing.assert_allclose(metrics.cell_shares(whole[..., 0] - 1), [0, 0, 1 / 3, 2 / 3])
    np.testing.assert_allclose(metrics.cell_shares(-whole[..., 0]), 1 / 4)
    with pytest.raises(ValueError, match="3 images make no square"):
        metrics.mosaic(images[:3])
    with pytest.raises(ValueError, match="a map of 5 x 4 has no cells"):
        metrics.cell_shares(jnp.ones((5, 4)))


def test_grids_have_one_image_of_each_class():
    labels = np.array([0, 0, 1, 2, 2, 3, 4])
    grids = metrics.draw_grids(labels, count=30)
    assert grids.shape == (30, 4)
    assert all(len({*labels[grid]}) == 4 for grid in grids)
    assert len({*grids.ravel()}) == 7
    with pytest.raises(ValueError, match="5 classes for a grid of 9 cells"):
        metrics.draw_grids(labels, count=1, side=3)


def _floor(method, image, size=(4, 6)):
    def apply_fn(variables, image):
        return jaxcam.tag(jnp.ones((*size, 2)) * image.mean(), "layer").mean((0, 1))

    return method(jaxcam.tap(apply_fn, "layer", None, image, 0))


def test_the_centre_is_largest_in_the_middle_and_even_on_both_sides():
    found = np.asarray(_floor(jaxcam.centred_gaussian, jnp.ones((8, 12, 3)), (5, 7)))
    assert found.shape == (5, 7)
    assert found.argmax() == 17
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-6)
    np.testing.assert_allclose(
        found[2, 5] / found[2, 3], np.exp(-((2 / (7 / 4)) ** 2) / 2), rtol=1e-5
    )


def test_edges_are_where_the_image_changes():
    image = jnp.zeros((8, 12, 3)).at[:, 6:].set(1)
    found = np.asarray(_floor(jaxcam.edge_map, image))
    assert found.shape == (4, 6)
    np.testing.assert_allclose(found.sum(0) > 0.1, [False, False, True, True, False, False])
    assert not _floor(jaxcam.edge_map, jnp.ones((8, 12, 3))).any()
