"""Winsor-CAM's fusion of layers, against NumPy in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam

IMPORTANCE = [0.3, -0.2, 0.05, 2.0, 0.0, 0.4]


def _weights(importance=IMPORTANCE):
    """Layers of other numbers of channels, whose weights have these means."""
    key = jax.random.key(0)
    drawn = [jax.random.normal(key, (1, 1, 4 + n)) for n in range(len(importance))]
    return [w - w.mean() + mean for w, mean in zip(drawn, importance, strict=True)]


def _heatmaps(count=6):
    return jax.random.uniform(jax.random.key(1), (count, 5, 7))


def _brute_force(heatmaps, weights, percentile, low):
    importance = [max(np.asarray(w, np.float64).mean(), 0) for w in weights]
    importance = [0 if value < 1e-7 else value for value in importance]  # the mean of _weights
    positive = [value for value in importance if value > 0]
    total = np.zeros(heatmaps.shape[1:])
    threshold = np.percentile(positive, percentile)
    cut = [min(value, threshold) for value in positive]
    for heatmap, value in zip(np.asarray(heatmaps, np.float64), importance, strict=True):
        if value > 0 and max(cut) == min(cut):
            total += heatmap
        elif value > 0:
            share = (min(value, threshold) - min(cut)) / (max(cut) - min(cut))
            total += heatmap * (low + (1 - low) * share)
    return total


@pytest.mark.parametrize("percentile", [0.0, 10.0, 50.0, 80.0, 99.0, 100.0])
@pytest.mark.parametrize("low", [0.0, 0.1, 1.0])
def test_the_fusion_is_that_of_the_formula(percentile, low):
    weights = [w.at[:].set(0) if n == 4 else w for n, w in enumerate(_weights())]
    knobs = {"percentile": percentile, "low": low}
    found = jaxcam.fuse_winsor(_heatmaps(), weights=weights, **knobs)
    wanted = _brute_force(_heatmaps(), weights, **knobs)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)  # of float32 means


def test_by_hand():
    heatmaps = jnp.eye(4)  # so that the fusion is what each layer counts
    weights = [jnp.full((1, 3), value) for value in (1.0, 3.0, -1.0, 5.0)]
    found = jaxcam.fuse_winsor(heatmaps, weights=weights, percentile=75.0)  # cut at 4
    np.testing.assert_allclose(found, [0.1, 0.1 + 0.9 * 2 / 3, 0, 1], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_unit_of_the_score_does_not_matter(scale):
    weights = _weights([0.3, 1.0, 0.5])
    found = jaxcam.fuse_winsor(_heatmaps(3), weights=[w * scale for w in weights], percentile=60.0)
    wanted = jaxcam.fuse_winsor(_heatmaps(3), weights=weights, percentile=60.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)  # means round anew


def test_layers_that_are_alike_count_alike_and_those_against_the_class_not_at_all():
    same = [jnp.full((1, 1, 4), 0.7)] * 3
    np.testing.assert_array_equal(jaxcam.fuse_winsor(jnp.eye(3), weights=same), 1)
    against = [-w for w in same]
    np.testing.assert_array_equal(jaxcam.fuse_winsor(_heatmaps(3), weights=against), 0)


def test_the_explainer_gives_the_weights_of_its_layers():
    case = plain()
    fuse = partial(jaxcam.fuse_winsor, percentile=50.0)
    explain = jaxcam.explainer(case.apply_fn, ["block1", "block2"], jaxcam.grad_cam, fuse=fuse)
    found = jax.jit(explain)(case.variables, case.image, 1)
    cams = [jaxcam.upsample(cam, case.image.shape[:2]) for cam in found.cam]
    wanted = _brute_force(jnp.stack([*map(jaxcam.unit_range, cams)]), found.weights, 50, 0.1)
    np.testing.assert_allclose(found.heatmap, jaxcam.unit_range(wanted), atol=1e-5)
    mapped = jax.vmap(explain, (None, 0, None))(case.variables, case.image[None], 1)
    np.testing.assert_allclose(mapped.heatmap[0], found.heatmap, atol=1e-5)


@pytest.mark.parametrize("importance", [[0.3, 1.0, 0.5], [0.3, -1.0, -0.5], [-0.3, -1.0, -0.5]])
def test_its_gradient_is_finite(importance):
    def total(weights, heatmaps):
        return jaxcam.fuse_winsor(heatmaps, weights=weights, percentile=60.0).sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(_weights(importance), _heatmaps(3))
    for gradient in jax.tree.leaves(gradients):
        assert jnp.isfinite(gradient).all()


def test_a_map_that_is_nan_stays_nan():
    heatmaps = _heatmaps(3).at[1].set(jnp.nan)
    assert jnp.isnan(jaxcam.fuse_winsor(heatmaps, weights=_weights([0.3, -1.0, 0.5]))).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"percentile=101\.0 and low=0\.1; wanted a percentile in"):
        jaxcam.fuse_winsor(_heatmaps(), weights=_weights(), percentile=101.0)
    explain = jaxcam.explainer(
        plain().apply_fn, ["block1", "block2"], jaxcam.fem, fuse=jaxcam.fuse_winsor
    )
    with pytest.raises(ValueError, match=r"this method gives a map without any; choose one with"):
        explain(plain().variables, plain().image)
