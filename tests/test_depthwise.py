"""Depthwise convolutions as sums: the same numbers, the same layers, and what stays as it is."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import pytest
import small_networks
from jax import lax

import jaxcam
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cut.depthwise import shifted_on_cpu
from jaxcam._src.cut.programs import place_of, programs_in

if jax.default_backend() != "cpu":
    pytest.skip("on a CPU alone", allow_module_level=True)

IMAGE = np.random.default_rng(0).normal(size=(2, 9, 8, 6))


def _convolution(seed=0, window=(3, 3), times=1, layout="NHWC", **how):
    """Of each of six channels alone, with a kernel of its own."""
    how = {"strides": (1,) * len(window), "padding": "SAME"} | how
    kernel = np.random.default_rng(seed).normal(size=(*window, 1, 6 * times))
    places = "DHW"[3 - len(window) :]

    def convolved(image):
        return lax.conv_general_dilated(
            image,
            jnp.asarray(kernel, image.dtype),
            window_strides=how["strides"],
            padding=how["padding"],
            lhs_dilation=how.get("apart"),
            rhs_dilation=how.get("dilation"),
            dimension_numbers=(layout, f"{places}IO", layout),
            feature_group_count=6,
        )

    return convolved


def _found(f, *arguments):
    """What the program with sums returns, and the primitives in it."""
    closed = jax.make_jaxpr(f)(*arguments)
    program = shifted_on_cpu(closed.jaxpr)
    return jax.core.eval_jaxpr(program, closed.consts, *arguments)[0], _names(program)


def _names(program):
    inside = [_names(body) for eqn in program.eqns for body in programs_in(eqn)]
    return {eqn.primitive.name for eqn in program.eqns}.union(*inside)


VARIANTS = {
    "same": {},
    "valid": {"padding": "VALID"},
    "one side": {"padding": ((2, 0), (0, 1))},
    "cropped": {"padding": ((-1, 2), (3, -2))},
    "strides": {"strides": (2, 3)},
    "dilated": {"dilation": (2, 1), "window": (2, 4)},
    "apart": {"apart": (2, 3), "padding": ((1, 2), (2, 0))},
    "all at once": {
        "strides": (2, 1),
        "dilation": (1, 2),
        "apart": (3, 2),
        "padding": ((4, -1), (0, 5)),
    },
    "two of each channel": {"times": 2},
    "channels first": {"layout": "NCHW"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_sums_equal_the_convolution(x64, name):
    f, image = _convolution(**VARIANTS[name]), jnp.asarray(IMAGE)
    image = image.transpose(0, 3, 1, 2) if VARIANTS[name].get("layout") == "NCHW" else image
    found, names = _found(f, image)
    assert "conv_general_dilated" not in names
    np.testing.assert_allclose(found, f(image), atol=1e-12)
    assert found.shape == f(image).shape


@pytest.mark.parametrize(
    ("shape", "window", "layout"),
    [((1, 11, 6), (5,), "NWC"), ((1, 5, 4, 7, 6), (3, 1, 3), "NDHWC")],
    ids=["signal", "volume"],
)
def test_signals_and_volumes(x64, shape, window, layout):
    f, image = _convolution(window=window, layout=layout), jnp.ones(shape)
    found, names = _found(f, image)
    assert "conv_general_dilated" not in names
    np.testing.assert_allclose(found, f(image), atol=1e-12)


def test_reduced_precision_is_summed_in_float32():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(7, 7, 1, 6)), jnp.bfloat16)
    image = jnp.asarray(IMAGE, jnp.bfloat16)
    found, _ = _found(_with_kernel, image, kernel)
    wanted = _with_kernel(image.astype(jnp.float32), kernel.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    rounding = 2.0**-8  # one, at the end, to eight bits
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=rounding, atol=1e-5)


def _with_kernel(image, kernel, **how):
    return lax.conv_general_dilated(
        image,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
        **how,
    )


def test_the_result_may_be_wanted_in_more_digits(x64):
    given = jnp.asarray(IMAGE, jnp.float32), jnp.full((3, 3, 1, 6), 1 / 3, jnp.float32)
    f = functools.partial(_with_kernel, preferred_element_type=jnp.float64)
    found, _ = _found(f, *given)
    assert found.dtype == jnp.float64
    wanted = _with_kernel(*(g.astype(jnp.float64) for g in given))
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def _in_a_loop(x):
    return lax.scan(lambda carry, _: (_convolution()(carry), None), x, length=2)[0]


def _in_a_branch(x):
    return lax.cond(x.sum() > 0, _convolution(1), _convolution(2), x)


def _while_small(x):
    return lax.while_loop(lambda y: jnp.abs(y).max() < 9, _convolution(), x)


@pytest.mark.parametrize(
    "f",
    [
        jax.jit(_convolution()),
        jax.checkpoint(_convolution()),
        _in_a_loop,
        _in_a_branch,
        _while_small,
    ],
    ids=["call", "remat", "scan", "cond", "while"],
)
def test_programs_inside_are_changed_too(x64, f):
    image = jnp.asarray(IMAGE)
    found, names = _found(f, image)
    assert "conv_general_dilated" not in names
    np.testing.assert_allclose(found, f(image), atol=1e-9)


def _of_groups(x):
    return lax.conv_general_dilated(
        x,
        jnp.ones((3, 3, 2, 6)),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )


OTHERS = {
    "groups": _of_groups,
    "one place": _convolution(window=(1, 1)),
    "many places": _convolution(window=(9, 9)),
    "empty": _convolution(padding=((-8, 0), (0, 0)), strides=(2, 2)),
}


@pytest.mark.parametrize("f", OTHERS.values(), ids=OTHERS)
def test_other_convolutions_stay(f):
    assert "conv_general_dilated" in _found(f, jnp.asarray(IMAGE, jnp.float32))[1]


def test_derivatives_are_those_of_the_convolution(x64):
    def loss(image, kernel):
        return jnp.sin(_with_kernel(image, kernel)).sum()

    given = jnp.asarray(IMAGE), jnp.ones((3, 3, 1, 6))
    closed = jax.make_jaxpr(loss)(*given)
    program = shifted_on_cpu(closed.jaxpr)
    of_sums = jax.grad(lambda *g: jax.core.eval_jaxpr(program, closed.consts, *g)[0], (0, 1))
    for found, wanted in zip(of_sums(*given), jax.grad(loss, (0, 1))(*given), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-11)


def test_what_has_none_is_the_same_program():
    layer = jax.jit(lambda x: jnp.tanh(x) * 2)
    closed = jax.make_jaxpr(lambda x: lax.cond(x.sum() > 0, layer, jnp.sin, layer(x)))(1.0)
    assert shifted_on_cpu(closed.jaxpr) is closed.jaxpr


def test_a_body_that_is_called_twice_stays_one():
    layer = jax.jit(_convolution())
    program = shifted_on_cpu(jax.make_jaxpr(lambda x: layer(layer(x)))(IMAGE).jaxpr)
    first, second = (body for eqn in program.eqns for body in programs_in(eqn))
    assert first is second


def test_the_line_of_the_model_is_kept():
    (before,) = jax.make_jaxpr(_convolution())(IMAGE).eqns
    (after,) = shifted_on_cpu(jax.make_jaxpr(_convolution())(IMAGE).jaxpr).eqns
    assert place_of(after) == place_of(before) != ""


def test_derivatives_take_the_sums():
    program = jax.make_jaxpr(functools.partial(jaxcam.derivatives, _smooth, chunk_size=1))(IMAGE[0])
    loops = [eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "scan"]
    inside = set().union(*(_names(body) for loop in loops for body in programs_in(loop)))
    assert "pad" in inside
    assert "conv_general_dilated" not in inside


def _smooth(x):
    return jnp.log1p(jnp.tanh(_convolution()(x[None])).sum() ** 2)


class _Mobile(nn.Module):
    """Two blocks of a depthwise and a 1x1 convolution."""

    @nn.compact
    def __call__(self, x):
        for block, features in enumerate((8, 12)):
            depthwise = nn.Conv(x.shape[-1], (3, 3), feature_group_count=x.shape[-1])
            x = nn.relu6(depthwise(x))
            x = nn.relu6(nn.Conv(features, (1, 1), name=f"mix{block}")(x))
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.fixture(scope="module")
def mobile():
    image = jax.random.normal(jax.random.key(0), (12, 12, 4))
    variables = _Mobile().init(jax.random.key(1), image[None])
    return jaxcam.from_linen(_Mobile()), variables, image


@pytest.mark.parametrize("method", [jaxcam.grad_cam, jaxcam.grad_cam_plus_plus, jaxcam.score_cam])
def test_maps_of_a_model_are_the_same(mobile, method):
    apply_fn, variables, image = mobile
    fast_fn = jaxcam.depthwise_on_cpu(apply_fn)
    assert jaxcam.layers(fast_fn, variables, image) == jaxcam.layers(apply_fn, variables, image)
    plain, fast = (
        jax.jit(jaxcam.explainer(f, "mix0", method))(variables, image, 2)
        for f in (apply_fn, fast_fn)
    )
    np.testing.assert_allclose(fast.logits, plain.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fast.heatmap, plain.heatmap, atol=1e-4)


def test_it_runs_without_jit(mobile):
    apply_fn, variables, image = mobile
    with jax.disable_jit():
        found = jaxcam.depthwise_on_cpu(apply_fn)(variables, image)
    np.testing.assert_allclose(found, apply_fn(variables, image), rtol=1e-5, atol=1e-6)


def test_the_command_line_takes_them(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(small_networks, "mobile", _as_model, raising=False)
    model = load_model("small_networks:mobile")
    image = jnp.ones((12, 12, 4))
    program = jax.make_jaxpr(model.apply_fn)(model.variables, image)
    assert "feature_group_count=4" not in str(program)


def _as_model():
    image = jnp.ones((12, 12, 4))
    variables = _Mobile().init(jax.random.key(1), image[None])
    return jaxcam.Model(jaxcam.from_linen(_Mobile()), variables, np.asarray, [*"abcde"])


def test_elsewhere_the_model_stays(mobile, monkeypatch):
    apply_fn, _, _ = mobile
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert jaxcam.depthwise_on_cpu(apply_fn) is apply_fn


def test_a_model_that_is_no_function_is_refused():
    with pytest.raises(ValueError, match="from_linen"):
        jaxcam.depthwise_on_cpu(_Mobile())  # pyright: ignore[reportArgumentType]
