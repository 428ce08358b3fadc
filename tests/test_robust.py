"""Hostile circumstances: threads, processes, the strict modes of JAX, the ends of every range."""

import functools
import inspect
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from cases import ONE_OF_EACH
from flax import nnx
from tiers import rest_is_thorough, thorough_but

import jaxcam
from jaxcam._src import cli, methods

FEW = {"samples": 2, "steps": 2}
KEYED = {"random_cam", "ss_cam", "smooth_grad_cam_plus_plus", "rise"}
BLIND = {"eigen_cam", "fem", "random_cam", "uniform"}  # to the score
SPREAD = {"score_cam", "ss_cam", "is_cam", "opti_cam"}  # a softmax, of equal scores 1 / K
MAPS = {"recipro_cam", "integrated_grad_cam", "group_cam", "rise", "fem"}  # in place of weights
NEGATIVE = {"counterfactual_grad_cam", "random_cam"}  # here, where there is one channel


def _network(channels=4, classes=5):
    rng = np.random.default_rng(0)
    mix, dense = rng.random((3, channels), np.float32), rng.random((channels, classes), np.float32)
    return {"mix": mix - np.float32(0.2), "dense": dense, "bias": np.ones(classes, np.float32)}


def _image(height=4, width=5):
    image = np.random.default_rng(1).random((height, width, 3), np.float32)
    image[0, 0] = 9  # which is rare enough for FEM
    return image


def _with_pixel(value):
    image = _image()
    image[1, 2, 0] = value
    return image


NETWORK, IMAGE = _network(), _image()
CASES = {
    "sound": (NETWORK, IMAGE, 1),
    "black image": (NETWORK, 0 * IMAGE, 1),
    "constant score": (NETWORK | {"dense": 0 * NETWORK["dense"]}, IMAGE, 1),
    "one position": (NETWORK, _image(1, 1), 1),
    "one channel": (_network(1, 1), IMAGE, 0),  # and one class
    "NaN in the image": (NETWORK, _with_pixel(np.nan), 1),
    "infinite image": (NETWORK, _with_pixel(np.inf), 1),
    "NaN in the head": (NETWORK | {"dense": np.nan * NETWORK["dense"]}, IMAGE, 1),
    "NaN behind a dead layer": (NETWORK | {"dense": np.nan * NETWORK["dense"]}, 0 * IMAGE, 1),
    "no such class": (NETWORK, IMAGE, 5),
}


def _explainer(name, **knobs):
    def apply_fn(variables, image):
        x = image @ variables["mix"]
        x = jaxcam.tag(jnp.where(x > 0, x, 0), "layer").mean((0, 1))  # which loses a NaN
        x = x if name == "cam" else jnp.tanh(x)
        return (x[None] @ variables["dense"])[0] + variables["bias"]

    method = cli.METHODS[name]
    few = FEW.keys() & inspect.signature(method).parameters.keys()
    method = functools.partial(method, **{knob: FEW[knob] for knob in few})
    return jaxcam.explainer(apply_fn, "layer", methods.seeded(method, 0), **knobs)


@functools.partial(jax.jit, static_argnames="group")
def _explained(group, variables, image, target):
    """In one program, which compiles in less time than one for each."""
    return {name: _explainer(name)(variables, image, target) for name in GROUPS[group]}


GROUPS = {
    "one of each": [*ONE_OF_EACH, "uniform"],  # the map of SPREAD where all scores are equal
    "the others": [name for name in cli.METHODS if name not in ONE_OF_EACH],
}
each_group = pytest.mark.parametrize("group", rest_is_thorough(GROUPS))


def _is_flat(explanation):
    """Whether the heatmap is 0, which must have a reason."""
    flat = not np.any(explanation.heatmap)
    assert (jaxcam.why_flat(explanation) is not None) == flat
    return flat


def _dtypes(found):
    return {x.dtype for x in (found.heatmap, found.cam, found.weights, found.logits)}


def _at_once(calls):
    """What the calls return, which begin at one moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def begin(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(begin, calls))


@pytest.mark.parametrize("kind", ["jitted", "eager", "one for each"])
def test_threads_explain_as_one_does(kind):
    make = functools.partial(_explainer, "hires_cam")
    shared = make() if kind == "eager" else jax.jit(make())
    used = [jax.jit(make()) if kind == "one for each" else shared for _ in range(16)]
    calls = [functools.partial(f, NETWORK, IMAGE, n % 5) for n, f in enumerate(used)]
    for found, call in zip(_at_once(calls), calls, strict=True):
        np.testing.assert_array_equal(found.heatmap, call().heatmap)


def test_threads_name_the_layers_of_their_own_model():
    """An adapter's batch of one is not seen by another thread, nor by what JAX has traced."""
    named = jax.jit(functools.partial(jaxcam.tag, name="named"))  # on one shape, by all

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="dense")(named(x).mean((1, 2)))

    class Nnx(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.dense(named(x).mean((1, 2)))

    dense = {"params": {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}}
    graphdef, state = nnx.split(Nnx())
    inside = [("named", (4, 5, 3)), ("dense", (2,))]
    cases = 5 * [
        (jaxcam.from_linen(Linen()), dense, IMAGE, inside),
        (jaxcam.from_nnx(graphdef), state, IMAGE, inside),
        (lambda _, x: named(x).mean(), None, IMAGE[None], [("named", (1, 4, 5, 3))]),
    ]
    found = _at_once([functools.partial(jaxcam.layers, *case[:3]) for case in cases])
    for layers, (*_, wanted) in zip(found, cases, strict=True):
        assert [(layer.name, layer.shape) for layer in layers] == wanted


def test_a_spawned_process_explains_as_this_one_does():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_allclose(pool.apply(processes.explained), processes.explained())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_process_may_fork_between_the_import_and_the_first_map():
    script = [sys.executable, Path(processes.__file__)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")  # JAX warns of a fork that comes too late
    np.testing.assert_allclose(json.loads(done.stdout), processes.explained())


@pytest.mark.parametrize("name", thorough_but(cli.METHODS, ONE_OF_EACH[:2].__contains__))
def test_no_tracer_leaks_and_x64_widens_nothing(name):
    with jax.checking_leaks(), jax.enable_x64(True):
        found = jax.eval_shape(_explainer(name), *CASES["sound"])
    assert _dtypes(found) == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "case", rest_is_thorough(["black image", "constant score", "one position", "sound"])
)
@each_group
def test_no_nan_where_little_is_to_explain(case, group):
    """A constant score is explained by 0; by a method that is blind to it, as any other score."""
    sound = _explained(group, *CASES["sound"])
    with jax.debug_nans(True):
        found = _explained(group, *CASES[case])
    for name in GROUPS[group]:
        if case == "constant score" and name in BLIND | SPREAD:
            wanted = sound[name if name in BLIND else "uniform"].heatmap
            np.testing.assert_allclose(found[name].heatmap, wanted, atol=1e-6, err_msg=name)
        else:
            speaks_for_it = name == "counterfactual_grad_cam"  # all that there is
            assert _is_flat(found[name]) == (case != "sound" or speaks_for_it), name


@pytest.mark.parametrize("case", rest_is_thorough(list(CASES)[5:], first=2))
@each_group
def test_what_is_not_finite_shows_in_the_map(case, group):
    for name, found in _explained(group, *CASES[case]).items():
        assert np.isnan(found.heatmap).all(), name
        assert jaxcam.why_flat(found) is None


@each_group
def test_the_map_of_one_channel_is_the_channel(group):
    variables, image, _ = CASES["one channel"]
    channel = jaxcam.unit_range(np.maximum(image @ variables["mix"], 0)[..., 0])
    for name, found in _explained(group, *CASES["one channel"]).items():
        assert _is_flat(found) == (name in NEGATIVE), name
        if name not in NEGATIVE | MAPS:
            np.testing.assert_allclose(found.heatmap, channel, atol=1e-6, err_msg=name)


@each_group
def test_a_map_in_float64_is_that_in_float32(group):
    sound = _explained(group, *CASES["sound"])
    with jax.enable_x64(True):
        wide = _explained(group, *jax.tree.map(np.float64, (NETWORK, IMAGE)), 1)
    for name, found in wide.items():
        assert _dtypes(found) == {np.dtype(np.float64)}, name
        if name not in KEYED:  # a key draws other numbers in float64
            # Loose: what float32 rounds is divided by the map's range.
            wanted = sound[name].heatmap
            np.testing.assert_allclose(found.heatmap, wanted, atol=1e-5, err_msg=name)


def test_a_hundred_thousand_classes_are_as_good_as_one():
    """To the logit, which sees one of them; a probability of so many is still a score."""
    many, names = _network(classes=100_000), ["grad_cam_plus_plus", "score_cam"]
    one = {"mix": many["mix"], "dense": many["dense"][:, -1:], "bias": many["bias"][-1:]}

    @jax.jit
    def explain(image):
        last = [_explainer(name)(many, image, 99_999).heatmap for name in names]
        only = [_explainer(name)(one, image, 0).heatmap for name in names]
        odds = _explainer(names[0], score_fn=jaxcam.log_probability)(many, image).heatmap
        return last, only, odds

    last, only, odds = explain(IMAGE)
    np.testing.assert_allclose(last, only, atol=1e-5)  # loose: of sums in another order
    np.testing.assert_allclose(odds.max(), 1, rtol=1e-6)
