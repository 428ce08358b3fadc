"""The audit against arithmetic by hand, and on the bundled networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxcam
from jaxcam._src.audit import EXACT, MAPS, MEASURES, POSITIVE
from jaxcam._src.methods.closed_forms import CLOSED_FORMS
from jaxcam._src.metrics import agreement

SHAPE = (4, 3, 5)
ROW = np.random.default_rng(1).normal(size=(5, 3))


def _network(activation):
    def apply_fn(variables, x):
        activations = activation(jaxcam.tag(x, "layer"))
        return activations.mean((0, 1)) @ jnp.asarray(ROW, x.dtype)

    return apply_fn


def _image(dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(0).uniform(size=SHAPE), dtype)


def _audit(activation, image, target=1):
    audit = functools.partial(jaxcam.audit, _network(activation), "layer", None)
    return jax.jit(audit)(image, target)


def _relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_errors_of_the_closed_form_by_hand(x64):
    """A head whose derivatives are known: `S = sum_k r_k mean(sin(A_k))`."""
    image = _image()
    found = _audit(jnp.sin, image)
    a, r = np.asarray(image), ROW[:, 1] / 12
    first, second, third = r * np.cos(a), -r * np.sin(a), -r * np.cos(a)
    y2, y3 = first**2 + second, first**3 + 3 * first * second + third
    assert abs(found.second_error - _relative(first**2, y2)) < 1e-9
    assert abs(found.third_error - _relative(first**3, y3)) < 1e-9
    total = a.sum((0, 1))
    alpha = y2 / (2 * y2 + total * y3)
    closed = 1 / (2 + total * first)
    np.testing.assert_allclose(found.alpha_exact, alpha, rtol=1e-8)
    np.testing.assert_allclose(found.alpha_closed, closed, rtol=1e-8)
    positive = np.maximum(first, 0)
    assert abs(found.alpha_error - _relative(closed * positive, alpha * positive)) < 1e-8
    is_off = abs(closed - alpha) > 0.1 * abs(alpha)
    np.testing.assert_allclose(found.alpha_off, is_off[first > 0].mean())
    np.testing.assert_allclose(found.exact.negative, (alpha < 0).mean())
    sums = np.quantile(abs(total * first), [0, 0.05, 0.5, 0.95, 1])
    np.testing.assert_allclose(found.sum_gradient, sums, rtol=1e-9)


def test_maps_of_exact_forms_are_those_of_the_method(x64):
    image = _image()
    found = _audit(jnp.tanh, image)
    forms = {
        "exact exp": (jaxcam.logit, jaxcam.exponential),
        "exact probability": (jaxcam.log_probability, jaxcam.exponential),
        "exact log-probability": (jaxcam.log_probability, jaxcam.identity),
    }
    for name, (score_fn, form_fn) in forms.items():
        method = functools.partial(jaxcam.grad_cam_plus_plus, form_fn=form_fn)
        explain = jaxcam.explainer(_network(jnp.tanh), "layer", method, score_fn=score_fn)
        cam = jax.jit(explain)(None, image, 1).cam
        np.testing.assert_allclose(found.maps[name], jaxcam.unit_range(cam), atol=1e-9)


def test_every_map_and_measure_is_there():
    found = _audit(jnp.tanh, _image(jnp.float32))
    assert set(found.maps) == set(MAPS)
    assert {m.shape for m in found.maps.values()} == {SHAPE[:-1]}
    assert set(found.agreement) == set(MEASURES)
    for name in MAPS:
        np.testing.assert_allclose(found.between("pearson", name, name), 1, rtol=1e-5)
        assert found.between("largest_difference", name, name) == 0


def test_a_piecewise_linear_head_has_no_error():
    found = _audit(jax.nn.relu, _image(jnp.float32))
    assert found.structure.kind == "piecewise linear"
    assert found.second_error == found.third_error == found.alpha_error == 0
    assert jaxcam.verdict(found).startswith("The closed form is exact here, since")


@pytest.mark.thorough
def test_the_verdict_takes_means_over_images():
    images = jnp.stack([_image(jnp.float32), _image(jnp.float32) / 2])
    both = jax.jit(jax.vmap(functools.partial(jaxcam.audit, _network(jnp.sin), "layer", None)))(
        images
    )
    sentence = jaxcam.verdict(both)
    assert f"off by {float(both.alpha_error.mean()):.1%}" in sentence
    likeness = float(both.between("pearson", EXACT, POSITIVE).mean())
    assert f"(r = {likeness:.3f})." in sentence


def test_a_broken_network_has_no_verdict():
    found = _audit(lambda a: jnp.sin(a) / 0, _image(jnp.float32))
    assert jaxcam.verdict(found) == "There is no verdict: the derivatives are not finite."


@pytest.mark.thorough
@pytest.mark.parametrize("layer", ["stage3", "stage3/conv2"])
def test_the_bundled_networks(layer):
    canvas = jaxcam.load_canvases().images[0]

    def of(model):
        return jax.jit(functools.partial(jaxcam.audit, model.apply_fn, layer))(
            model.variables, canvas
        )

    relu, silu = of(jaxcam.digits_relu()), of(jaxcam.digits_silu())
    assert relu.alpha_error <= 1e-6
    # Behind stage3 are a pool and a dense layer alone; behind conv2 a SiLU too.
    assert (silu.alpha_error > 0.1) == (layer == "stage3/conv2")


def _by_hand(name, g, a):
    """The weights of one channel as the library has them, position by position."""
    total = a.mean() if name == "xplique" else a.sum()
    eps = 1e-6 if name == "pytorch-grad-cam" else 0
    alphas = [0 if x == 0 else x**2 / (2 * x**2 + total * x**3 + eps) for x in g]
    if name == "torchcam":
        alphas = [x**2 for x in g]
    if name == "tf-keras-vis":
        alphas = [x / sum(alphas) for x in alphas]
    if name == "the paper's code":
        norm = sum(x for x, gradient in zip(alphas, g, strict=True) if gradient > 0)
        alphas = [x / norm for x in alphas]
    return sum(alpha * max(x, 0) for alpha, x in zip(alphas, g, strict=True))


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_closed_forms_of_the_libraries(x64, name):
    rng = np.random.default_rng(2)
    gradient, activations = rng.normal(size=(2, 2, 3, 4)) * np.array([1e-3, 1])[:, None, None, None]
    gradient[0, 0] = 0
    found = CLOSED_FORMS[name](jnp.asarray(gradient), jnp.asarray(abs(activations)))
    flat = gradient.reshape(-1, 4), abs(activations).reshape(-1, 4)
    wanted = [_by_hand(name, flat[0][:, k], flat[1][:, k]) for k in range(4)]
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-9)


def test_correlations_are_those_of_scipy(x64):
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, (2, 6, 7)).astype(float)  # with many ties
    found = agreement.pearson(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(
        found, np.asarray(scipy.stats.pearsonr(a.ravel(), b.ravel()))[0], rtol=1e-9
    )
    found = agreement.spearman(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(
        found, np.asarray(scipy.stats.spearmanr(a.ravel(), b.ravel()))[0], rtol=1e-9
    )


def test_flat_maps():
    flat, other = jnp.ones((2, 3)), jnp.arange(6.0).reshape(2, 3)
    assert agreement.pearson(flat, flat) == agreement.spearman(flat, flat) == 1
    assert agreement.pearson(flat, other) == agreement.spearman(flat, other) == 0


def test_top_overlap_and_largest_difference_by_hand():
    a = jnp.array([[5.0, 4, 1, 1, 0], [0, 0, 0, 0, 0]])
    b = jnp.array([[5.0, 0, 4, 1, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_allclose(agreement.top_overlap(a, b), 1 / 3, rtol=1e-6)
    assert agreement.largest_difference(a, b) == 4


def test_shifted_logits_change_the_map_and_not_the_answer():
    case = jaxcam.digits_silu()
    canvas = jnp.asarray(jaxcam.load_canvases().images[0])

    def corner(activations):
        return 5 * activations[:3, :3].sum()

    shifted = jaxcam.shift_logits(case.apply_fn, "stage3", corner)
    both = case.apply_fn, shifted
    before, after = (jax.nn.softmax(jax.jit(f)(case.variables, canvas)) for f in both)
    np.testing.assert_allclose(before, after, atol=1e-5)
    for score_fn, changes in ((jaxcam.logit, True), (jaxcam.log_probability, False)):
        maps = [
            jax.jit(jaxcam.explainer(f, "stage3", score_fn=score_fn))(case.variables, canvas, 0)
            for f in both
        ]
        difference = abs(maps[0].heatmap - maps[1].heatmap).max()
        assert (difference > 0.1) == changes
        assert changes or difference < 1e-3


@pytest.mark.thorough
def test_an_exact_map_that_is_flat_is_said_to_be(x64):
    """Every gradient is negative, and so no weight is left of Grad-CAM++."""

    def apply_fn(variables, x):
        pooled = jaxcam.tag(jax.nn.softplus(x), "layer").mean((0, 1))
        return -jnp.tanh(pooled) * variables

    audit = functools.partial(jaxcam.audit, apply_fn, "layer", jnp.ones(3), target=1)
    images = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    assert "The exact map is flat: the weighted sum" in jaxcam.verdict(jax.jit(audit)(images[0]))
    stacked = jax.jit(jax.vmap(audit))(images)
    assert "The exact map of 100% of the images is flat" in jaxcam.verdict(stacked)
