"""Derivatives along each coordinate against full derivative arrays, and the proof behind CAM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import rest_is_thorough, thorough_but

import jaxcam
from jaxcam._src.derivatives.structure.pooled_linear import why_not_pooled_linear

POINT = jax.random.normal(jax.random.key(0), (2, 3, 2))


def _brute(f, x):
    """The full gradient, Hessian and third derivative by reverse mode, and their diagonals."""
    flat = x.reshape(-1)

    def g(v):
        return f(v.reshape(x.shape))

    i = jnp.arange(flat.size)
    second = jax.jit(jax.hessian(g))(flat)[i, i]
    third = jax.jit(jax.jacfwd(jax.hessian(g)))(flat)[i, i, i]
    return [d.reshape(x.shape) for d in (jax.jit(jax.grad(g))(flat), second, third)]


def _mixing(x):
    hidden = jax.nn.silu(jnp.einsum("ijk,kl->ijl", x, jnp.array([[1.0, -0.5], [0.3, 2.0]])))
    return jnp.log(1 + jnp.sum(hidden**2)) + jnp.prod(jnp.cos(x))


FUNCTIONS = {
    "cubic": lambda x: jnp.sum(x**3),
    "mixing": _mixing,
    "softmax": lambda x: jax.nn.softmax(x.mean((0, 1)) * 3)[0],
    "relu": lambda x: jax.nn.relu(x).sum() ** 2,
}


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_derivatives_equal_float64_brute_force(x64, f):
    x = jnp.asarray(POINT, jnp.float64)
    exact = jax.jit(functools.partial(jaxcam.derivatives, f))
    for found, wanted in zip(exact(x), _brute(f, x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk_size", [1, 5, 12, 1000])
def test_derivatives_do_not_depend_on_chunk_size(chunk_size):
    exact = functools.partial(jaxcam.derivatives, _mixing)
    found = jax.jit(functools.partial(exact, chunk_size=chunk_size))(POINT)
    wanted = jax.jit(exact)(POINT)
    # Loose: another batch is vectorised otherwise, and float32 rounds otherwise.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


AT = np.array([[7, 0, 3], [11, 7, 2]])
OF_AT = FUNCTIONS | {
    "piecewise linear": lambda x: jax.nn.relu(x).max(axis=0).sum() - 2 * x[0, 0, 0]
}


@pytest.mark.parametrize("name", thorough_but(OF_AT, {"mixing", "softmax"}.__contains__))
def test_derivatives_of_chosen_coordinates_are_those_of_all(x64, name):
    f = OF_AT[name]
    x = jnp.asarray(POINT, jnp.float64)
    few = jax.jit(lambda x, at: jaxcam.derivatives(f, x, at=at))
    for at in (AT, AT[0, 0]):  # of several, all may be the cheaper way; of one, they are not
        for found, wanted in zip(few(x, at), _brute(f, x), strict=True):
            assert found.shape == at.shape
            np.testing.assert_allclose(found, wanted.reshape(-1)[at], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk_size", rest_is_thorough([4, 1, 1000]))
def test_chosen_coordinates_do_not_depend_on_chunk_size_or_vmap(chunk_size):
    wanted = jax.jit(functools.partial(jaxcam.derivatives, _mixing))(POINT)
    few = functools.partial(jaxcam.derivatives, _mixing, POINT, chunk_size=chunk_size)
    for found in (jax.jit(lambda: few(at=AT))(), jax.jit(jax.vmap(lambda at: few(at=at)))(AT)):
        for one, of_all in zip(found, wanted, strict=True):
            # Loose: another batch is vectorised otherwise, and float32 rounds otherwise.
            np.testing.assert_allclose(one, of_all.reshape(-1)[AT], rtol=1e-4, atol=1e-5)


def test_chosen_coordinates_cost_a_direction_each():
    runs = []

    def f(x):
        jax.debug.callback(lambda: runs.append(1))
        return _mixing(x)

    jax.block_until_ready(jaxcam.derivatives(f, POINT, at=AT, chunk_size=1))
    jax.effects_barrier()
    assert len(runs) == 1 + AT.size  # one to read the program


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_derivatives_may_be_differentiated_by_what_the_function_closes_over(weight):
    def second(weight):
        return jaxcam.derivatives(lambda x: (weight * x**2 + jnp.sin(x)).sum(), POINT).second

    by_weight = jax.jit(jax.jacfwd(second))(weight)
    np.testing.assert_allclose(by_weight, np.full(POINT.shape, 2), rtol=1e-6)


@jax.custom_vjp
def _backward_only(x):
    return x


_backward_only.defvjp(lambda x: (x, None), lambda _, g: (g,))


@pytest.mark.parametrize("at", [None, np.array([3])])
def test_what_is_dead_needs_no_derivatives_forward(at):
    def with_what_is_dead(x):
        return _mixing(x), _backward_only(x)

    found = jaxcam.derivatives(lambda x: with_what_is_dead(x)[0], POINT, at=at)
    wanted = jaxcam.derivatives(_mixing, POINT, at=at)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_rule_may_close_over_what_the_function_computes():
    def closing(x):
        twice = 2 * jnp.ones(())

        @jax.custom_vjp
        def scaled(y):
            return y * twice

        scaled.defvjp(lambda y: (y * twice, y), lambda _, g: (g * twice,))
        return jnp.sin(scaled(x).sum() ** 2)

    wanted = jaxcam.derivatives(lambda x: jnp.sin((2 * x).sum() ** 2), POINT)
    np.testing.assert_allclose(jaxcam.derivatives(closing, POINT), wanted, rtol=1e-3, atol=1e-3)


def test_a_window_of_any_reducer_is_differentiated_forward():
    def summed(reducer):
        def f(x):
            windows = jax.lax.reduce_window(jnp.sin(x), 0.0, reducer, (2, 1, 1), (1, 1, 1), "VALID")
            return (windows.sum((0, 1)) ** 2).sum()

        return f

    found = jaxcam.derivatives(summed(lambda a, b: a + b * 1), POINT)
    wanted = jaxcam.derivatives(summed(jax.lax.add), POINT)
    np.testing.assert_allclose(found[1:], wanted[1:], rtol=1e-4, atol=1e-5)


def test_an_index_of_no_coordinate_is_refused_or_nan():
    for at in (12, -1, np.array([0, 12]), np.uint8(200)):
        with pytest.raises(ValueError, match=r"at holds .*; x has the flat indices 0 to 11\. For"):
            jaxcam.derivatives(_mixing, POINT, at=at)
    for at in (1.0, True, jnp.ones(2)):
        with pytest.raises(ValueError, match=r"at is of dtype \w+; wanted flat indices"):
            jaxcam.derivatives(_mixing, POINT, at=at)
    for f in (_mixing, jnp.sum):
        traced = jax.jit(lambda at, f=f: jaxcam.derivatives(f, POINT, at=at))(
            jnp.array([-1, 2, 12])
        )
        for found, wanted in zip(traced, jaxcam.derivatives(f, POINT), strict=True):
            assert np.isnan(found[jnp.array([0, 2])]).all()
            np.testing.assert_allclose(found[1], wanted.reshape(-1)[2], rtol=1e-4, atol=1e-5)


def test_no_coordinate_has_no_derivatives():
    for f in FUNCTIONS.values():
        none = jaxcam.derivatives(f, POINT, at=np.zeros((2, 0), int))
        assert [d.shape for d in none] == [(2, 0)] * 3
    assert jaxcam.derivatives(FUNCTIONS["cubic"], POINT, at=np.zeros(0)).first.shape == (0,)


def test_closed_form_is_exact_for_a_piecewise_linear_function():
    def f(x):
        return jax.nn.relu(x).max(axis=0).sum() - 2 * x[0, 0, 0]

    np.testing.assert_allclose(jaxcam.closed_form(f, POINT), jaxcam.derivatives(f, POINT))


def test_derivatives_work_under_jit_and_vmap():
    points = jnp.stack([POINT, 2 * POINT])
    mapped = jax.jit(jax.vmap(lambda x: jaxcam.derivatives(_mixing, x)))(points)
    alone = [jaxcam.derivatives(_mixing, x) for x in points]
    for found, wanted in zip(mapped, zip(*alone, strict=True), strict=True):
        # Loose: float32, and a third derivative.
        np.testing.assert_allclose(found, jnp.stack(wanted), rtol=1e-4, atol=1e-5)


def test_chunk_size_below_1_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size is 0; .* choose 1 or more"):
        jaxcam.derivatives(_mixing, POINT, chunk_size=0)


WEIGHTS = jnp.array([1.0, -2.0])
POOLED = {
    "mean": lambda x: x.mean((0, 1)) @ WEIGHTS,
    "mean that keeps its axes": lambda x: (x.mean((0, 1), keepdims=True) @ WEIGHTS).sum(),
    "sum, axis by axis": lambda x: x.sum(0).sum(0) @ WEIGHTS + 3,
    "batch axis": lambda x: (2 * x[None]).mean((1, 2))[0] @ WEIGHTS,
    "channels first": lambda x: jnp.moveaxis(x, -1, 0).mean((1, 2)) @ WEIGHTS,
    "flatten the positions": lambda x: x.reshape(-1, 2).mean(0) @ WEIGHTS,
    "average pool": lambda x: (
        jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 3, 1), (1, 1, 1), "VALID")[0, 0] @ WEIGHTS
    ),
}
NOT_POOLED = {
    "relu": lambda x: jax.nn.relu(x).mean((0, 1)) @ WEIGHTS,
    "probability": lambda x: jax.nn.softmax(x.mean((0, 1)))[0],
    "flatten": lambda x: x.reshape(-1) @ jnp.arange(12.0),
    "corner": lambda x: x[0, 0] @ WEIGHTS,
    "uneven mask": lambda x: (x * jnp.arange(3.0)[None, :, None]).mean((0, 1)) @ WEIGHTS,
    "one axis": lambda x: x.mean(0)[0] @ WEIGHTS,
    "small window": lambda x: jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 2, 1), (1, 1, 1), "VALID"
    ).sum(),
    "strided window": lambda x: jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 1, 1), (1, 2, 1), "VALID"
    ).sum(),
    "dilated window": lambda x: jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 1, 1), (1, 2, 1), "VALID", base_dilation=(1, 3, 1)
    ).sum(),
    "whole numbers": lambda x: (
        x.astype(jnp.int32).sum((0, 1)).astype(jnp.float32) @ WEIGHTS + x.mean()
    ),
    "positions mixed with channels": lambda x: x.reshape(2, -1).sum(0) @ jnp.arange(6.0),
    "max": lambda x: x.max((0, 1)) @ WEIGHTS,
}


@pytest.mark.parametrize("f", POOLED.values(), ids=POOLED)
def test_a_pooled_linear_function_is_proved(f):
    assert why_not_pooled_linear(f, POINT) is None
    gradient = jax.grad(f)(POINT)
    np.testing.assert_allclose(gradient, jnp.broadcast_to(gradient[:1, :1], gradient.shape))


@pytest.mark.parametrize("f", NOT_POOLED.values(), ids=NOT_POOLED)
def test_anything_else_is_not(f):
    assert why_not_pooled_linear(f, POINT) is not None


@pytest.mark.parametrize(
    ("f", "x", "message"),
    [
        (jnp.sum, jnp.ones(2, int), r"dtype int32; wanted floating-point"),
        (lambda x: 2 * x, jnp.ones(3), r"returned float32\[3\].*wanted a real scalar"),
        (
            lambda x: jax.lax.complex(x, x).sum(),
            jnp.ones(3),
            "dtype=complex64.*wanted a real scalar",
        ),
        (jnp.argmax, jnp.ones(3), "dtype=int32.*wanted a real scalar"),
    ],
)
def test_what_has_no_derivatives_is_refused(f, x, message):
    with pytest.raises(ValueError, match=message):
        jaxcam.derivatives(f, x)
