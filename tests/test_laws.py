"""What every adapter and every method must keep. A new one is added to a list here, no more."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import CASES, CLASSES, image

import jaxcam

METHODS = {
    "cam": jaxcam.cam,
    "grad_cam": jaxcam.grad_cam,
    "grad_cam_plus_plus": jaxcam.grad_cam_plus_plus,
    "grad_cam_plus_plus_closed": functools.partial(
        jaxcam.grad_cam_plus_plus, derivatives_fn=jaxcam.closed_form
    ),
    "layer_cam": jaxcam.layer_cam,
    "score_cam": jaxcam.score_cam,
}

adapters = pytest.mark.parametrize("case", CASES, indirect=True)
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


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
        np.testing.assert_allclose(head(activations), logits, rtol=1e-6, atol=1e-6)
        assert not np.allclose(head(jnp.zeros_like(activations)), logits, rtol=1e-3)


@adapters
@methods
def test_eager_jit_and_vmap_agree(case, method):
    explain = jaxcam.explainer(case.apply_fn, case.layer, method)
    images, targets = jnp.stack([image(0), image(1)]), jnp.array([3, 0])
    eager = [explain(case.variables, x, t) for x, t in zip(images, targets, strict=True)]
    jitted = [jax.jit(explain)(case.variables, x, t) for x, t in zip(images, targets, strict=True)]
    mapped = jax.jit(jax.vmap(explain, in_axes=(None, 0, 0)))(case.variables, images, targets)
    # Loose: the three sum in different orders, and dividing by the map's range magnifies it.
    for other in (_stack(jitted), mapped):
        chex.assert_trees_all_close(_stack(eager), other, rtol=1e-4, atol=1e-5)


@adapters
@methods
def test_heatmap_is_in_range_and_not_flat(case, method):
    explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer, method))
    explanation = explain(case.variables, case.image, 1)
    heatmap = explanation.heatmap
    assert heatmap.shape == case.image.shape[:-1]
    assert heatmap.min() == 0
    np.testing.assert_allclose(heatmap.max(), 1, rtol=1e-6)
    assert explanation.cam.min() >= 0
    chex.assert_tree_all_finite(explanation)


@adapters
@methods
def test_one_trace_serves_all_targets(case, method):
    chex.clear_trace_counter()
    explain = jaxcam.explainer(case.apply_fn, case.layer, method)
    once = jax.jit(chex.assert_max_traces(explain, n=1))
    maps = [once(case.variables, case.image, target).cam for target in range(CLASSES)]
    assert len({np.asarray(m).tobytes() for m in maps}) > 1


@adapters
def test_no_target_means_the_top_class(case):
    explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer))
    explanation = explain(case.variables, case.image)
    top = case.apply_fn(case.variables, case.image).argmax()
    assert explanation.target == top
    chex.assert_trees_all_close(explanation, explain(case.variables, case.image, top))


@adapters
@methods
def test_a_map_can_sit_in_a_loss(case, method):
    def loss(variables, x):
        explanation = jaxcam.explainer(case.apply_fn, case.layer, method)(variables, x, 2)
        return explanation.heatmap.mean() + explanation.cam.mean()

    variables = jax.tree.map(jnp.asarray, case.variables)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True))(variables, case.image)
    floats = [g for g in jax.tree.leaves(gradients) if jnp.issubdtype(g.dtype, jnp.floating)]
    chex.assert_tree_all_finite(floats)
    assert max(float(abs(g).max()) for g in floats) > 0


@methods
def test_permuted_channels_permute_the_weights(method):
    order = jnp.array([2, 0, 1, 3])
    head = jax.random.normal(jax.random.key(0), (4, CLASSES))
    x = jax.random.uniform(jax.random.key(1), (6, 5, 4))

    def apply_fn(order, x):
        tagged = jaxcam.tag(x[..., order], "layer")
        return jnp.tanh(tagged.mean((0, 1))) @ head[order]

    def linear_fn(order, x):
        return jaxcam.tag(x[..., order], "layer").mean((0, 1)) @ head[order]

    fn = linear_fn if method is jaxcam.cam else apply_fn
    explain = jaxcam.explainer(fn, "layer", method)
    plain, permuted = explain(jnp.arange(4), x, 0), explain(order, x, 0)
    np.testing.assert_allclose(permuted.weights, plain.weights[..., order], rtol=1e-5)
    # Loose: the channels are summed in another order.
    np.testing.assert_allclose(permuted.heatmap, plain.heatmap, atol=1e-5)


@methods
def test_activations_in_reduced_precision(method):
    head = jax.random.normal(jax.random.key(0), (4, CLASSES))

    def apply_fn(variables, x):
        features = jaxcam.tag(x.astype(jnp.bfloat16), "layer")
        return features.mean((0, 1)).astype(jnp.float32) @ head

    x = jax.random.uniform(jax.random.key(1), (6, 5, 4))
    explanation = jax.jit(jaxcam.explainer(apply_fn, "layer", method))(None, x)
    assert explanation.weights.dtype == explanation.heatmap.dtype == jnp.bfloat16
    assert explanation.heatmap.max() == 1
    chex.assert_tree_all_finite(explanation)


@methods
@pytest.mark.parametrize("spatial", [1, 3], ids=["signal", "volume"])
def test_signals_and_volumes_go_the_same_way(method, spatial):
    case = CASES["plain"](spatial)
    explanation = jax.jit(jaxcam.explainer(case.apply_fn, case.layer, method))(
        case.variables, case.image
    )
    assert explanation.heatmap.shape == case.image.shape[:-1]
    chex.assert_tree_all_finite(explanation)


def _stack(explanations):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *explanations)
