"""Methods and metrics together: the numbers of each alone, for one forward pass."""

import functools
import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain

import jaxcam
from jaxcam import metrics
from jaxcam._src.evaluation.measures import MEASURES

METHODS = {"grad_cam": jaxcam.grad_cam, "layer_cam": jaxcam.layer_cam, "uniform": jaxcam.uniform}
CHEAP = {"drop": metrics.drop, "complexity": metrics.complexity, "gini": metrics.gini}
INSIDE = np.zeros((12, 10), bool)
INSIDE[3:9, 2:7] = True


def _quick(metric):
    knobs = {"steps": 4, "samples": 3, "shares": (0.3, 0.6)}
    taken = knobs.keys() & inspect.signature(metric).parameters.keys()
    return functools.partial(metric, **{name: knobs[name] for name in taken})


def _evaluator(measures=CHEAP, methods=METHODS, **knobs):
    return jaxcam.evaluator(plain().apply_fn, plain().layer, methods, measures, **knobs)


def test_numbers_are_those_of_the_maps_that_explainers_make():
    case = plain()
    found = jax.jit(_evaluator())(case.variables, case.image, 1)
    probability = jax.nn.softmax(case.apply_fn(case.variables, case.image))[1]
    np.testing.assert_allclose(found.score, probability, rtol=1e-5)
    for name, method in METHODS.items():
        explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer, method))
        explanation = explain(case.variables, case.image, 1)
        heatmap = explanation.heatmap
        masked = case.apply_fn(case.variables, case.image * heatmap[..., None])
        drop = max(0, 1 - jax.nn.softmax(masked)[1] / probability)
        np.testing.assert_allclose(found.numbers[name]["drop"], drop, atol=1e-5)
        np.testing.assert_allclose(found.numbers[name]["complexity"], heatmap.mean(), rtol=1e-5)
        assert found.flat[name] == explanation.flat


@pytest.mark.thorough
def test_all_metrics_under_vmap_are_those_of_each_image():
    case = plain()
    measures = {name: _quick(getattr(metrics, name)) for name in MEASURES}
    assert len(measures) > 20
    evaluate = functools.partial(_evaluator(measures, {"grad_cam": jaxcam.grad_cam}), inside=INSIDE)
    images = jnp.stack([case.image, -case.image])
    together = jax.jit(jax.vmap(evaluate, in_axes=(None, 0)))(case.variables, images)
    chex.assert_tree_all_finite(together.numbers)
    alone = jax.jit(evaluate)(case.variables, images[1])
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[1], together.numbers), alone.numbers, atol=1e-4
    )


def test_no_target_is_the_top_class_and_another_score_judges():
    case = plain()
    found = jax.jit(_evaluator(judge_fn=jaxcam.logit))(case.variables, case.image)
    logits = case.apply_fn(case.variables, case.image)
    assert found.target == logits.argmax()
    np.testing.assert_allclose(found.score, logits.max(), rtol=1e-5)


def test_methods_share_the_forward_pass():
    case = plain()

    def flops(f, *arguments):
        cost = jax.jit(f).lower(case.variables, case.image, *arguments).compile().cost_analysis()
        assert cost is not None
        return cost["flops"]

    forward = flops(case.apply_fn)
    shapes = {"complexity": metrics.complexity}
    one = flops(_evaluator(shapes, {"grad_cam": jaxcam.grad_cam}), 1)
    three = flops(_evaluator(shapes), 1)
    assert three - one < 2 * (one - forward)  # each further method costs its map, and no pass


def test_a_flat_map_is_kept_as_0():
    case = plain()
    evaluate = jax.jit(_evaluator({"energy": metrics.energy}))
    silent = {**case.variables, "dense": 0 * case.variables["dense"]}
    found = evaluate(silent, case.image, 1, inside=INSIDE)
    assert found.flat["grad_cam"] > 0
    assert found.flat["uniform"] == 0
    assert found.numbers["grad_cam"]["energy"] == 0
    assert 0 < found.numbers["uniform"]["energy"] < 1


@pytest.mark.thorough
def test_what_is_not_finite_has_no_number():
    case = plain()
    measures = {name: _quick(getattr(metrics, name)) for name in MEASURES}
    evaluate = jax.jit(_evaluator(measures, {"grad_cam": jaxcam.grad_cam}))
    broken = case.image.at[3, 4, 0].set(jnp.nan)
    for name, number in (
        evaluate(case.variables, broken, 1, inside=INSIDE).numbers["grad_cam"].items()
    ):
        assert np.isnan(number), name


def test_what_is_missing_is_named():
    case = plain()
    with pytest.raises(ValueError, match="evaluator got no method"):
        _evaluator(methods={})
    with pytest.raises(ValueError, match="evaluator got no metric"):
        _evaluator(measures={})
    with pytest.raises(ValueError, match=r"inside has the shape \(12, 10, 1\); wanted \(12, 10\)"):
        _evaluator()(case.variables, case.image, 1, inside=INSIDE[..., None])
    with pytest.raises(ValueError, match=r"inside=mask"):
        _evaluator({"energy": metrics.energy})(case.variables, case.image, 1)


@pytest.mark.thorough
def test_each_method_is_asked_again_for_its_own_map():
    case, again = plain(), {"coherency": metrics.coherency, "random_logit": metrics.random_logit}
    together = jax.jit(_evaluator(again))(case.variables, case.image, 1).numbers
    for name, method in METHODS.items():
        alone = jax.jit(_evaluator(again, {name: method}))(case.variables, case.image, 1)
        # Loose: another program adds in another order.
        chex.assert_trees_all_close(together[name], alone.numbers[name], atol=1e-5)
    assert together["grad_cam"]["coherency"] != together["layer_cam"]["coherency"]


@pytest.mark.parametrize("library", ["torchcam", "captum", "xplique"])
def test_maps_of_any_convention_are_judged_at_the_images_size_from_0_to_1(library):
    case, seen = plain(), []

    def look(trial):
        seen.append(trial.heatmap.shape)
        return jnp.stack([trial.heatmap.min(), trial.heatmap.max()])

    convention = getattr(jaxcam.conventions, library)
    evaluate = jax.jit(_evaluator({"ends": look}, convention=convention))
    for numbers in evaluate(case.variables, case.image, 1).numbers.values():
        np.testing.assert_allclose(numbers["ends"], [0, 1], atol=1e-6)
    assert seen == [case.image.shape[:-1]]


@pytest.mark.parametrize("fuse", [None, jaxcam.fuse_layer_cam])
def test_the_map_of_fused_layers_is_that_of_the_explainer(fuse):
    case, layers = plain(), ["block1", "block2"]
    methods = {"layer_cam": jaxcam.layer_cam, "uniform": jaxcam.uniform}
    looks = {"map": lambda trial: trial.heatmap, "again": lambda t: t.heatmap_of(t.image)}
    evaluate = jax.jit(jaxcam.evaluator(case.apply_fn, layers, methods, looks, fuse=fuse))
    found = evaluate(case.variables, case.image, 1)
    for name, method in methods.items():
        explain = jax.jit(jaxcam.explainer(case.apply_fn, layers, method, fuse=fuse))
        wanted = explain(case.variables, case.image, 1)
        for heatmap in found.numbers[name].values():
            np.testing.assert_allclose(heatmap, wanted.heatmap, atol=1e-5)
        assert found.flat[name] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["grad_cam"]}, "no method in"),
        ({"methods": {"a": None}}, "method is None; wanted a function"),
        ({"metrics": {}}, "no metric in"),
        ({"layer": []}, "empty sequence of layers"),
        ({"convention": None}, "convention is None; wanted one of jaxcam.conventions"),
        ({"score_fn": "logit"}, "score_fn is 'logit'; wanted a function, such as jaxcam.logit"),
    ],
)
def test_what_is_no_function_is_refused_at_the_door(given, message):
    chosen = {"layer": plain().layer, "methods": METHODS, "metrics": CHEAP} | given
    unchecked: Any = inspect.unwrap(jaxcam.evaluator)  # without the types that the tests check
    with pytest.raises(ValueError, match=message):
        unchecked(plain().apply_fn, **chosen)
