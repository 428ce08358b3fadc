"""Audits by a sample: even over channels, exact where it is everything, honest where it is not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam._src.audit import CLOSED, price
from jaxcam._src.audit.figures import Ratio
from jaxcam._src.audit.sample import _of_share, drawn

SHAPE = (8, 6, 5)
ROW = np.random.default_rng(1).normal(size=(5, 3))


def _apply_fn(variables, x):
    activations = jax.nn.silu(jaxcam.tag(x, "layer"))
    return activations.mean((0, 1)) @ jnp.asarray(ROW, x.dtype)


def _image():
    """Channels of different sizes."""
    drawn = np.random.default_rng(0).normal(size=SHAPE) * np.linspace(0.3, 2, SHAPE[-1])
    return jnp.asarray(drawn, jnp.float64)


@functools.cache
def _audit(samples=None, keys=1):
    """The whole audit, or one for each of some keys."""
    if samples is None:
        return jax.jit(functools.partial(jaxcam.audit, _apply_fn, "layer", None))(_image(), 1)

    def of_key(key, image):
        return jaxcam.audit(_apply_fn, "layer", None, image, 1, samples=samples, key=key)

    of_keys = jax.jit(jax.vmap(of_key, in_axes=(0, None)))
    return of_keys(jax.random.split(jax.random.key(0), keys), _image())


def _figures(found):
    """The figures of an audit or of an end of its intervals that a sample has."""
    names = "negative", "undefined", "near_pole"
    return [found.second_error, found.third_error, found.alpha_off] + [
        getattr(found.exact, name) for name in names
    ]


@pytest.mark.parametrize(("samples", "shape"), [(60, (12, 5)), (64, (12, 5)), (3, (1, 3))])
def test_as_many_positions_of_each_channel_are_drawn(samples, shape):
    indices = np.asarray(drawn(SHAPE, samples, jax.random.key(0)))
    assert indices.shape == shape
    assert len(np.unique(indices)) == indices.size
    assert 0 <= indices.min() <= indices.max() < 240
    assert (indices % 5 == indices[0] % 5).all()
    assert len(np.unique(indices[0] % 5)) == shape[1]


@pytest.mark.thorough
def test_a_sample_of_all_has_the_figures_of_all(x64):
    whole, sample = _audit(), jax.tree.map(lambda x: x[0], _audit(10**6))
    assert sample.sample.indices.size == 240
    for end in (sample, sample.sample.low, sample.sample.high):
        np.testing.assert_allclose(_figures(end), _figures(whole), rtol=1e-9, atol=1e-12)
    alphas = np.ravel(whole.alpha_exact)[sample.sample.indices]
    np.testing.assert_allclose(sample.alpha_exact, alphas, rtol=1e-9)
    assert sample.alpha_error is sample.exact.weight_near_pole is None
    left_out = {name for name in whole.maps if name.startswith("exact")}
    assert set(whole.maps) - set(sample.maps) == left_out != set()
    of_both = (found.between("spearman", CLOSED, "torchcam") for found in (whole, sample))
    np.testing.assert_allclose(*of_both, rtol=1e-9)


@pytest.mark.thorough
def test_what_needs_the_gradient_alone_is_of_all(x64):
    whole, sample = _audit(), jax.tree.map(lambda x: x[0], _audit(60, keys=100))
    for name in ("sum_gradient", "alpha_closed"):
        np.testing.assert_allclose(getattr(sample, name), getattr(whole, name), rtol=1e-9)


@pytest.mark.thorough
def test_intervals_hold_the_figures_of_all_at_about_the_nominal_rate(x64):
    sample = _audit(60, keys=100).sample
    low, high = (np.stack(_figures(end)) for end in (sample.low, sample.high))
    wanted = np.array(_figures(_audit()))[:, None]
    held = ((low <= wanted + 1e-12) & (wanted - 1e-12 <= high)).mean(1)
    # Of 100 draws, give or take. The error of Y''' adds sixth powers, which are rarely normal.
    assert held.min() >= 0.85, held
    assert held.mean() >= 0.93, held


def test_a_share_that_no_sample_has_is_bounded_by_wilson():
    """Of 0 among n the upper end is `z^2 / (n + z^2)`, here with nearly all left undrawn."""
    none = Ratio(jnp.zeros(50), jnp.ones(50))
    low, high = _of_share(none, 10**9)
    np.testing.assert_allclose([low, high], [0, 1.96**2 / (50 + 1.96**2)], rtol=1e-5, atol=1e-7)


def test_the_verdict_rests_on_a_sample(x64):
    sentence = jaxcam.verdict(_audit(10**6))
    assert "is not exact here, by a sample of 240 of 240 activations: its alpha is off" in sentence
    assert "95% interval" in sentence


def test_the_verdict_by_a_sample_looks_at_derivatives_too(x64):
    """Whose alphas may be off by less than a tenth, be they as wrong as they like."""
    found = _audit(10**6)
    near = dataclasses.replace(found, alpha_off=np.zeros(1))
    assert "is not exact here" in jaxcam.verdict(near)
    true = dataclasses.replace(near, second_error=np.zeros(1), third_error=np.zeros(1))
    assert "may be exact here" in jaxcam.verdict(true)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"samples": 0, "key": jax.random.key(0)}, "samples is 0; it counts activations"),
        ({"samples": 1, "key": jax.random.key(0)}, "so choose 2 or more, or None for all"),
        ({"samples": 9}, r"give its key, such as key=jax.random.key\(0\)"),
    ],
)
def test_what_is_no_sample_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        jaxcam.audit(_apply_fn, "layer", None, jnp.zeros(SHAPE), 1, **knobs)


def test_the_price_is_that_of_the_score(monkeypatch):
    monkeypatch.setattr(price, "_timed", lambda function: (1.0, function()))
    drawn = np.random.default_rng(2).normal(size=(100, 100)).astype(np.float32)

    def apply_fn(variables, x):
        return jaxcam.tag(x, "layer").reshape(-1) @ variables

    names = [str(c) for c in range(100)]
    model = jaxcam.Model(apply_fn, drawn, np.asarray, names)
    image = np.ones((5, 5, 4), np.float32)
    of_logit, of_likelihood = (
        price.price(model, "layer", image, 3, score_fn).most
        for score_fn in (jaxcam.logit, jaxcam.probability)
    )
    assert of_logit < 0.6 * of_likelihood  # one direction, beside those that both take
    assert not any(price.price(model, "layer", image, 3, enough=1e6))
