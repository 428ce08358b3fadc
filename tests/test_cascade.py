"""Cascading randomisation: layers from the top in every framework, and which maps follow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, plain
from tiers import rest_is_thorough

import jaxcam
from jaxcam._src.evaluation.cascade import top_down

LAYERS = {"plain": ["dense", "conv2", "conv1"]}


def _spoilt(leaf):
    is_real = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jnp.full_like(leaf, jnp.nan) if is_real else leaf


@pytest.mark.parametrize("name", rest_is_thorough(CASES, first=3))
def test_layers_come_from_the_top(name):
    case = CASES[name]()
    layers = top_down(case.apply_fn, case.variables, case.image)
    leaves = jax.tree.leaves(case.variables)
    listed = [place for _, places in layers for place in places]
    assert len(listed) == len({*listed})
    others = [x if i in listed else _spoilt(x) for i, x in enumerate(leaves)]
    spoilt = jax.tree.unflatten(jax.tree.structure(case.variables), others)
    logits = case.apply_fn(case.variables, case.image)
    np.testing.assert_array_equal(case.apply_fn(spoilt, case.image), logits)  # which use no other
    classes = len(logits)
    first, last = (max((jnp.shape(leaves[i]) for i in layers[at][1]), key=len) for at in (0, -1))
    assert classes in first  # the classifier
    assert 3 in last  # what meets the three colours
    assert LAYERS.get(name, [n for n, _ in layers]) == [n for n, _ in layers]


def test_weights_that_are_cast_first_are_in_order_too():
    case = plain()

    def apply_fn(variables, image):
        cast = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), variables)
        return jax.jit(case.apply_fn)(cast, image)

    layers = top_down(apply_fn, case.variables, case.image)
    assert [name for name, _ in layers] == LAYERS["plain"]


@pytest.mark.thorough
def test_a_map_of_the_model_changes_and_one_of_the_image_does_not():
    case = plain()
    image = jnp.asarray(np.random.default_rng(0).normal(size=(24, 20, 3)), jnp.float32)
    similar = {}
    for method in (jaxcam.grad_cam, jaxcam.edge_map):
        explain = jax.jit(jaxcam.explainer(case.apply_fn, case.layer, method))
        similar[method.__name__] = jaxcam.cascade(
            case.apply_fn, explain, case.variables, image, key=jax.random.key(0)
        )
    assert [*similar["edge_map"]] == LAYERS["plain"]
    np.testing.assert_allclose([*similar["edge_map"].values()], 1, rtol=1e-6)
    assert max(similar["grad_cam"].values()) < 0.9


def test_each_step_stands_on_those_before_and_the_target_stays():
    case, seen = plain(), []

    def explain(variables, image, target):
        seen.append((variables, target))
        return jaxcam.explainer(case.apply_fn, case.layer)(variables, image, target)

    give = functools.partial(jaxcam.cascade, case.apply_fn, explain, case.variables, case.image)
    give(key=jax.random.key(0))
    same = [
        [np.array_equal(given[n], case.variables[n]) for n in LAYERS["plain"]] for given, _ in seen
    ]
    assert same == [[True] * 3, [False, True, True], [False, False, True], [False] * 3]
    assert seen[0][1] is None
    assert len({int(target) for _, target in seen[1:]}) == 1
    for name in LAYERS["plain"]:
        was, now = (np.sort(np.ravel(v[name])) for v in (case.variables, seen[-1][0]))
        np.testing.assert_array_equal(was, now)
