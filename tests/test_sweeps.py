"""Two sweeps through a program against nested derivatives, and where they are not proved."""

import functools

import heads
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcam
from jaxcam._src.derivatives.directions import directional
from jaxcam._src.derivatives.structure.program import read
from jaxcam._src.derivatives.sweeps import sweeping

SHAPE = (3, 2, 4)


def _attention(a):
    tokens = a.reshape(-1, 4)
    weights = jax.nn.softmax(tokens @ heads.dense(tokens, 4).T, -1)
    return heads.logit(jnp.tanh(weights @ tokens).mean(0))


def _twice_used(a):
    z = jax.nn.silu(heads.dense(a, 5))
    return jnp.log1p((z * jnp.flip(z, 0)).sum() ** 2) + jnp.prod(jnp.cos(a))


def _normed(a):
    z = jax.nn.gelu(heads.layer_norm(heads.conv(a, 4, seed=3)))
    return heads.log_probability(heads.gap(z * heads.gate(z)))


def _in_two_results(a):
    largest, _ = lax.top_k(jnp.sin(a), 2)
    low, high = jnp.split(jnp.sort(a * a, 0), [1])
    return (largest.sum() * high.sum()) ** 2 + jnp.exp(low).sum()


FUNCTIONS = {
    "attention": _attention,
    "twice used": _twice_used,
    "norm and gate": _normed,
    "equations with two results": _in_two_results,
    "complex": lambda a: (jnp.abs(jnp.fft.fft(jnp.tanh(a), axis=0)) ** 2).sum() ** 2,
    "custom rule": lambda a: heads.log_probability(heads.gap(heads.straight_through(a))),
    "piecewise linear": lambda a: heads.logit(heads.gap(jax.nn.relu(a))),
    "a ReLU in a call": lambda a: jnp.sin(jax.checkpoint(jax.nn.relu)(a)).sum() ** 2,
    "a loop that is linear": lambda a: jnp.sin(lax.scan(lambda c, x: (c + x, c), a[0], a)[1]).sum(),
}


def _curve(seed):
    return [jnp.asarray(d) for d in np.random.default_rng(seed).normal(size=(3, *SHAPE))]


def _nested(f, x, first, second, third):
    """The derivatives of `t -> f(c(t))` at 0, each differentiating the one before."""

    def at(t):
        return f(x + t * first + t**2 / 2 * second + t**3 / 6 * third)

    by_one = jax.jacfwd(at)
    by_two = jax.jacfwd(by_one)
    return [g(0.0) for g in (by_one, by_two, jax.jacfwd(by_two))]


def _along(f, x):
    along = sweeping(read(f, x))
    assert along is not None
    return along


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_along_a_curve_equal_nested_ones(x64, name):
    f, x = FUNCTIONS[name], jnp.asarray(np.random.default_rng(0).normal(size=SHAPE))
    curve = _curve(1)

    @jax.jit
    def swept(x, curve):
        along = _along(f, x)
        return along(*curve), along(*curve[:2]), along(curve[0])

    nested, nothing = jax.jit(functools.partial(_nested, f)), jnp.zeros(SHAPE)
    for found, known in zip(swept(x, curve), (3, 2, 1), strict=True):
        wanted = nested(x, *curve[:known], *[nothing] * (3 - known))
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


def test_many_curves_at_once(x64):
    x, curves = (
        jnp.asarray(np.random.default_rng(0).normal(size=SHAPE)),
        [_curve(n) for n in range(3)],
    )
    found = jax.jit(jax.vmap(_along(_normed, x)))(*map(jnp.stack, zip(*curves, strict=True)))
    nested = jax.jit(functools.partial(_nested, _normed))
    wanted = [nested(x, *curve) for curve in curves]
    np.testing.assert_allclose(jnp.stack(found, 1), wanted, rtol=1e-10, atol=1e-10)


def _in_a_loop(a):
    return lax.scan(lambda carry, x: (jnp.tanh(carry * x), None), a[0], a)[0].sum()


def _in_a_branch(a):
    return lax.cond(a.sum() > 0, jnp.sin, jnp.cos, a).sum()


def _of_a_quantiser(a):
    return heads.logit(heads.gap(heads.quantised(a, jnp.exp(a.mean()))))


NOT_PROVED = {
    "a smooth loop": _in_a_loop,
    "a smooth branch": _in_a_branch,
    "a rule that is no gradient": _of_a_quantiser,
    "a rule of another value": lambda a: jnp.sin(heads.rounded(a)).sum(),
    "backward alone": lambda a: heads.sine(a).sum(),
    "effects": lambda a: jnp.sin(a).sum() + heads.printed(a),
    "mutable refs": heads.kept_in_a_ref,
    "what does not move": lambda a: jnp.sum(lax.stop_gradient(a)),
}


@pytest.mark.parametrize("f", NOT_PROVED.values(), ids=NOT_PROVED)
def test_they_are_left_where_they_are_not_proved(f):
    assert sweeping(read(f, jnp.ones(SHAPE))) is None


def _masked(a):
    return jnp.log1p(jnp.where(a > 0, jnp.sqrt(a), 0).sum() ** 2)


def test_the_first_derivative_is_forward_where_the_gradient_is_none():
    x = jnp.abs(jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32))
    x = x.at[0, 0, 0].set(0.0)
    assert jnp.isnan(jax.grad(_masked)(x)).any()
    direction = jnp.ones(SHAPE).at[0, 0, 0].set(0.0)
    found, wanted = _along(_masked, x)(direction), directional(_masked, x, direction)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_reduced_precision():
    x = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.bfloat16)
    direction = jnp.ones(SHAPE, jnp.bfloat16)

    def f(a):
        return heads.log_probability(heads.gap(jax.nn.silu(heads.dense(a, 5)))).astype(jnp.float32)

    found = _along(f, x)(direction)
    wanted = directional(f, x.astype(jnp.float32), direction.astype(jnp.float32))
    assert {d.dtype.name for d in found} == {"float32"}
    # Loose: the head computes in bfloat16, of eight bits.
    np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.05)


def test_derivatives_of_images_and_by_parameters(x64):
    images, at = jnp.asarray(np.random.default_rng(0).normal(size=(2, *SHAPE))), np.array([0, 5, 9])

    def third(scale, x):
        return jaxcam.derivatives(functools.partial(_scaled, scale), x, at=at).third

    def wanted(scale, x):
        along = functools.partial(directional, functools.partial(_scaled, scale), x)
        return jax.vmap(along)(jnp.eye(x.size).reshape(-1, *SHAPE)[at]).third

    @functools.partial(jax.jit, static_argnums=0)
    def by_scale(third, x):
        return jax.jacfwd(third)(0.7, x), jax.grad(lambda scale: third(scale, x).sum())(0.7)

    of_images = jax.jit(jax.vmap(functools.partial(third, 0.7)))(images)
    for x, found in zip(images, of_images, strict=True):
        np.testing.assert_allclose(found, wanted(0.7, x), rtol=1e-10, atol=1e-12)
    for found, nested in zip(by_scale(third, images[0]), by_scale(wanted, images[0]), strict=True):
        np.testing.assert_allclose(found, nested, rtol=1e-9, atol=1e-12)


def _scaled(scale, a):
    return _twice_used(jnp.tanh(scale * jnp.cumsum(a, 0)))


def _deep(a):
    for seed in range(6):
        a = a + jax.nn.gelu(heads.layer_norm(heads.conv(a, 32, seed=seed)))
    return heads.log_probability(heads.gap(a * heads.gate(a * a)))


def test_a_chunk_of_sweeps_holds_no_more_than_one_of_nested_derivatives():
    x, count = jnp.ones((6, 6, 32)), 64

    def swept(x):
        return jaxcam.derivatives(_deep, x, at=np.arange(count), chunk_size=count)

    def nested(x):
        basis = jnp.eye(count, x.size).reshape(count, *x.shape)
        return jax.vmap(functools.partial(directional, _deep, x))(basis)

    def held(f):
        used = jax.jit(f).lower(x).compile().memory_analysis()
        assert used is not None
        return used.temp_size_in_bytes

    assert jaxcam.structure(_deep, x).kind == "dense"
    assert held(swept) < held(nested)
