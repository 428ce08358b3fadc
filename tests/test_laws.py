"""What every adapter and every method must keep. A new one is added to a list here, no more."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, CLASSES, ONE_OF_EACH, image
from tiers import rest_is_thorough, thorough_but

import jaxcam
from jaxcam._src import cli, methods

FEW = {"samples": 2, "steps": 3}  # where a method has such a knob


def _quick(method):
    knobs = FEW.keys() & inspect.signature(method).parameters.keys()
    return methods.seeded(functools.partial(method, **{name: FEW[name] for name in knobs}), 0)


METHODS = {name: _quick(method) for name, method in cli.METHODS.items()}
# The methods see nothing of the framework, so each framework's network meets a few of them only.
KINDS = ["score_cam", "integrated_grad_cam"]
MAPS = {"recipro_cam", "integrated_grad_cam", "group_cam", "rise", "fem"}  # without weights
BLIND = {"eigen_cam", "fem", "random_cam", "uniform"}  # to the score
# Where nothing speaks against the class, no activation is rare, and no group helps the class.
FLAT_HERE = {"counterfactual_grad_cam", "fem", "group_cam"}

adapters = pytest.mark.parametrize("case", CASES, indirect=True)
EVERYWHERE = [("plain", name) for name in METHODS]
EVERYWHERE += [(case, name) for case in CASES if case != "plain" for name in KINDS]


def _each(is_kept):
    cases = thorough_but(EVERYWHERE, lambda case: case[0] == "plain" and is_kept(case[1]))
    return pytest.mark.parametrize(("case", "name"), cases, indirect=["case"])


of_every_method = _each(METHODS.__contains__)
of_one_of_each = _each(ONE_OF_EACH.__contains__)  # the others with the thorough tests


@pytest.fixture
def case(request):
    return CASES[request.param]()


@adapters
def test_head_of_activations_is_the_model(case):
    for layer in jaxcam.layers(case.apply_fn, case.variables, case.image):
        split_fn = jaxcam.split(case.apply_fn, layer.name)
        activations, head = split_fn(case.variables, case.image)
        assert (activations.shape, activations.dtype) == (layer.shape, layer.dtype)
        logits = case.apply_fn(case.variables, case.image)
        head = jax.jit(head)
        np.testing.assert_allclose(head(activations), logits, rtol=1e-6, atol=1e-6)
        assert not np.allclose(head(jnp.zeros_like(activations)), logits, rtol=1e-3)


@of_one_of_each
def test_eager_jit_and_vmap_agree(case, name):
    explain = jaxcam.explainer(case.apply_fn, case.layer, METHODS[name])
    images, targets = jnp.stack([image(0), image(1)]), jnp.array([3, 0])
    eager = [explain(case.variables, x, t) for x, t in zip(images, targets, strict=True)]
    jitted = [jax.jit(explain)(case.variables, x, t) for x, t in zip(images, targets, strict=True)]
    mapped = jax.jit(jax.vmap(explain, in_axes=(None, 0, 0)))(case.variables, images, targets)
    # Loose: the three sum in different orders, and dividing by the map's range magnifies it.
    for other in (_stack(jitted), mapped):
        chex.assert_trees_all_close(_stack(eager), other, rtol=1e-4, atol=1e-5)


@of_every_method
def test_heatmap_is_in_range_and_not_flat(case, name):
    explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer, METHODS[name]))
    explanation = explain(case.variables, case.image, 1)
    heatmap = explanation.heatmap
    assert heatmap.shape == case.image.shape[:-1]
    assert heatmap.min() == 0
    np.testing.assert_allclose(heatmap.max(), 1, rtol=1e-6)
    assert explanation.cam.min() >= 0 or name in {"recipro_cam", "rise"}  # of scores
    chex.assert_tree_all_finite(explanation)


@of_one_of_each
def test_one_trace_serves_all_targets(case, name):
    chex.clear_trace_counter()
    explain = jaxcam.explainer(case.apply_fn, case.layer, METHODS[name])
    once = jax.jit(chex.assert_max_traces(explain, n=1))
    maps = [once(case.variables, case.image, target).cam for target in range(CLASSES)]
    assert (len({np.asarray(m).tobytes() for m in maps}) > 1) == (name not in BLIND)


@pytest.mark.parametrize("case", rest_is_thorough(CASES), indirect=True)
def test_no_target_means_the_top_class(case):
    explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer))
    explanation = explain(case.variables, case.image)
    top = case.apply_fn(case.variables, case.image).argmax()
    assert explanation.target == top
    chex.assert_trees_all_close(explanation, explain(case.variables, case.image, top))


@of_one_of_each
def test_a_map_can_sit_in_a_loss(case, name):
    def loss(variables, x):
        explanation = jaxcam.explainer(case.apply_fn, case.layer, METHODS[name])(variables, x, 2)
        return explanation.heatmap.mean() + explanation.cam.mean()

    variables = jax.tree.map(jnp.asarray, case.variables)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))(variables, case.image)
    floats = [g for g in jax.tree.leaves(gradients) if jnp.issubdtype(g.dtype, jnp.floating)]
    chex.assert_tree_all_finite(floats)
    assert max(float(abs(g).max()) for g in floats) > 0


@pytest.mark.parametrize(
    "name", thorough_but(sorted(METHODS.keys() - {"random_cam"}), ONE_OF_EACH.__contains__)
)
def test_permuted_channels_permute_the_weights(name):
    order = jnp.array([2, 0, 1, 3])
    head = jax.random.normal(jax.random.key(0), (4, CLASSES))
    x = jax.random.uniform(jax.random.key(1), (6, 5, 4))

    def apply_fn(order, x):
        tagged = jaxcam.tag(x[..., order], "layer")
        return jnp.tanh(tagged.mean((0, 1))) @ head[order]

    def linear_fn(order, x):
        return jaxcam.tag(x[..., order], "layer").mean((0, 1)) @ head[order]

    fn = linear_fn if name == "cam" else apply_fn
    explain = jax.jit(jaxcam.explainer(fn, "layer", METHODS[name]))
    plain, permuted = explain(jnp.arange(4), x, 0), explain(order, x, 0)
    wanted = plain.weights if name in MAPS else plain.weights[..., order]
    np.testing.assert_allclose(permuted.weights, wanted, rtol=1e-5, atol=1e-7)
    # Loose: the channels are summed in another order.
    np.testing.assert_allclose(permuted.heatmap, plain.heatmap, atol=1e-5)


@pytest.mark.parametrize("name", thorough_but(METHODS, ONE_OF_EACH.__contains__))
def test_activations_in_reduced_precision(name):
    head = jax.random.normal(jax.random.key(0), (4, CLASSES))

    def apply_fn(variables, x):
        features = jaxcam.tag(x.astype(jnp.bfloat16), "layer")
        return features.mean((0, 1)).astype(jnp.float32) @ head

    x = jax.random.uniform(jax.random.key(1), (6, 5, 4))
    explanation = jax.jit(jaxcam.explainer(apply_fn, "layer", METHODS[name]))(None, x)
    assert explanation.cam.dtype == explanation.heatmap.dtype == jnp.float32
    flat = FLAT_HERE - {"group_cam"}  # here a group does help
    assert explanation.heatmap.max() == (0 if name in flat else 1)
    chex.assert_tree_all_finite(explanation)


@pytest.mark.parametrize(
    ("name", "spatial"),
    thorough_but(
        [(name, spatial) for name in METHODS for spatial in (1, 3)],
        lambda case: case[0] in ONE_OF_EACH,
    ),
)
def test_signals_and_volumes_go_the_same_way(name, spatial):
    case = CASES["plain"](spatial)
    explanation = jax.jit(jaxcam.explainer(case.apply_fn, case.layer, METHODS[name]))(
        case.variables, case.image
    )
    assert explanation.heatmap.shape == case.image.shape[:-1]
    chex.assert_tree_all_finite(explanation)


def _stack(explanations):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *explanations)
