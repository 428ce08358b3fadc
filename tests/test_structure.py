"""Exact derivatives by structure, against float64 brute force; and that no claim is ever wrong."""

import functools
import re

import heads
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heads import HEADS
from hypothesis import strategies as st
from jax import lax
from tiers import rest_is_thorough, thorough_but

import jaxcam
from jaxcam._src.base import Derivatives
from jaxcam._src.derivatives.structure.program import depends, read

OFTEN = [*HEADS][::10]


def _point(shape, dtype):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def _brute(f, x):
    """Three nested forward derivatives along every coordinate."""

    def along(direction):
        def at(t):
            return f(x + t * direction)

        def first(t):
            return jax.jvp(at, (t,), (jnp.ones_like(t),))[1]

        def second(t):
            return jax.jvp(first, (t,), (jnp.ones_like(t),))[1]

        zero = jnp.zeros((), x.dtype)
        return first(zero), *jax.jvp(second, (zero,), (jnp.ones_like(zero),))

    basis = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    return [d.reshape(x.shape) for d in jax.jit(jax.vmap(along))(basis)]


def _assert_close(found, wanted, tolerance):
    for order, (f, w) in enumerate(zip(found, wanted, strict=True), start=1):
        scale = max(float(np.nan_to_num(abs(w)).max()), 1e-3)
        np.testing.assert_allclose(f, w, rtol=0, atol=tolerance * scale, err_msg=f"order {order}")


@pytest.mark.parametrize("name", thorough_but(HEADS, OFTEN.__contains__))
def test_derivatives_equal_float64_brute_force(x64, name, monkeypatch):
    head = HEADS[name]
    x = _point(head.shape, jnp.float64)
    exact = jax.jit(functools.partial(jaxcam.derivatives, head.function, chunk_size=7))
    found = exact(x)
    narrow = exact(x.astype(jnp.float32))
    # Forward derivatives cannot pass a custom_vjp; the function without it has the same.
    monkeypatch.setattr(heads, "sine", jnp.sin)
    wanted = _brute(head.function, x)
    _assert_close(found, wanted, head.tolerance)
    # Of float32 no more can be asked: its own rounding, through three derivatives.
    _assert_close(narrow, wanted, 1e-4)
    assert {d.dtype.name for d in narrow} == {"float32"}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_structure_is_the_one_expected(head):
    x = jax.ShapeDtypeStruct(head.shape, jnp.float32)
    printed, _, _ = str(jaxcam.structure(head.function, x)).partition("; all meet in")
    assert printed == head.printed


PIECES = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "convolution": lambda a: heads.conv(a, 2),
    "depthwise": lambda a: heads.conv(a, 2, groups=2),
    "mix": lambda a: heads.dense(a, 2),
    "roll": lambda a: jnp.roll(a, 1, 0),
    "cumsum": lambda a: jnp.cumsum(a, 1) / 2,
    "cummax": lambda a: lax.cummax(a, 0),
    "affine": lambda a: a * heads.weights(a, *a.shape) + 1,
    "neighbours": lambda a: a * jnp.flip(a, 1) / 2,
    "transpose": lambda a: a.transpose(1, 0, 2),
    "reshape": lambda a: a.reshape(2, 8, 2).transpose(1, 0, 2).reshape(4, 4, 2),
    "layer norm": heads.layer_norm,
    "sort": lambda a: jnp.sort(a, 0),
    "softmax": lambda a: jax.nn.softmax(a, 1),
    "max-pool": lambda a: lax.reduce_window(a, -jnp.inf, lax.max, (3, 3, 1), (1, 1, 1), "SAME"),
    "half smooth": lambda a: jnp.concatenate([a[:2], jnp.tanh(a[2:])], 0),
    "one channel smooth": lambda a: jnp.concatenate([jax.nn.silu(a[..., :1]), a[..., 1:]], -1),
    "less mean": lambda a: a - a.mean(0, keepdims=True),
    "gather": lambda a: a[jnp.array([0, 0, 3, 1])],
    "write": lambda a: a.at[1:3].set(a[:2] * 2),
    "scan": lambda a: lax.scan(lambda c, x: (jnp.tanh(c) + x, c), jnp.zeros_like(a[0]), a)[1],
    "where": lambda a: jnp.where(jnp.flip(a, 0) > 0, a, 2 * a),
    "cond": lambda a: lax.cond(a[0, 0, 0] > 0, jax.nn.silu, jax.nn.relu, a),
    "custom rule": heads.straight_through,
    "remat": jax.checkpoint(lambda a: jnp.tanh(a) + a[::-1]),
    "product": lambda a: a * jnp.prod(a, -1, keepdims=True),
    "quotient": lambda a: a / (1 + a[..., :1] ** 2),
    "residual": lambda a: a + jax.nn.gelu(heads.conv(a, 2, seed=5)),
    "pad and cut": lambda a: jnp.pad(a, ((1, 0), (0, 0), (0, 0)))[:-1],
    "split": lambda a: jnp.concatenate(jnp.split(a, 2, 0)[::-1], 0),
    "stack": lambda a: jnp.stack([a[..., 1], a[..., 0]], -1),
    "tile": lambda a: jnp.tile(a[:2], (2, 1, 1)),
    "gate": lambda a: a * heads.gate(a),
    "gate by itself": lambda a: heads.gated_alone(jnp.tanh(a)),
    "norm": heads.instance_norm,
    "response norm": heads.response_norm,
    "context": lambda a: a + jnp.tanh(a.mean((0, 1), keepdims=True)),
}
POOLS = {
    "mean": heads.gap,
    "maximum": lambda a: a.max((0, 1)),
    "uneven": heads.uneven_mean,
    "flatten": lambda a: heads.dense(a.reshape(-1), 3),
    "corner": lambda a: a[0, 1],
    "column": lambda a: a.sum(1)[2],
    "probe": lambda a: heads.probed(a, 1)[0],
    "class token": heads.transformer,
    "shares": heads.weighted_mean,
    "both": lambda a: jnp.concatenate([a.mean((0, 1)), a.max((0, 1))]),
}
ENDS = {
    "sum": jnp.sum,
    "log-softmax": lambda z: jax.nn.log_softmax(z)[0],
    "silu": lambda z: jax.nn.silu(z).sum(),
    "layer norm": lambda z: heads.layer_norm(jnp.concatenate([z, z[:1] ** 2]))[0],
    "mlp": lambda z: jax.nn.gelu(heads.dense(z, 4)).sum(),
}


@pytest.mark.parametrize("number", rest_is_thorough([5, 30]))
def test_no_random_head_finds_a_wrong_claim(number):
    parts = st.lists(st.sampled_from([*PIECES]), max_size=3), st.sampled_from([*POOLS])
    check = hypothesis.given(*parts, st.sampled_from([*ENDS]))(_check_head)
    hypothesis.settings(max_examples=number, deadline=None, derandomize=True)(check)()


def _check_head(pieces, pool, end):
    def f(a):
        for piece in pieces:
            a = PIECES[piece](a)
        return ENDS[end](POOLS[pool](a))

    with jax.enable_x64(True):
        x = _point((4, 4, 2), jnp.float64)
        found = jax.jit(functools.partial(jaxcam.derivatives, f, chunk_size=5))(x)
        _assert_close(found, _brute(f, x), 1e-9)


def test_what_is_traced_may_differ_between_images(x64):
    """Under jit and vmap, with traced weights and targets, everything is decided while tracing."""
    images = jnp.stack([_point(heads.SHAPE, jnp.float64) * s for s in (1, 0.5)])
    kernels = jnp.stack([heads.weights(images, 3, 4, seed=s) for s in range(2)])

    def score(a, kernel, target):
        return jax.nn.log_softmax(heads.gap(jax.nn.silu(a @ kernel)))[target]

    @jax.jit
    @jax.vmap
    def found(a, kernel, target):
        return jaxcam.derivatives(lambda a: score(a, kernel, target), a, chunk_size=4)

    targets = jnp.array([1, 3])
    both = found(images, kernels, targets)
    for i in range(2):
        wanted = _brute(lambda a, i=i: score(a, kernels[i], targets[i]), images[i])
        _assert_close([d[i] for d in both], wanted, 1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_what_is_taken_out_of_a_sum_may_be_differentiated_by_parameters(x64, weight):
    x = _point((4, 3, 3), jnp.float64)

    def third(derivatives, weight):
        def f(a):
            z = jax.nn.relu(heads.conv(a, 4))
            gated = weight * heads.dense(z * heads.gate(z), 3)
            return heads.logit(heads.gap(jax.nn.relu(a + gated)))

        return derivatives(f, x).third

    ways = jaxcam.derivatives, lambda f, x: Derivatives(*_brute(f, x))
    found, wanted = (jax.jit(jax.jacrev(functools.partial(third, way)))(weight) for way in ways)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def _gate_of_many_steps(a):
    z = jnp.tanh(heads.dense(a, 5))
    g = jnp.broadcast_to(heads.gap(z), z.shape)
    for _ in range(400):
        g = jnp.sin(g)
    return heads.logit(heads.gap(jax.nn.relu(z * g)))


def _sum_of_many_steps(a):
    y = z = jnp.tanh(heads.dense(a, 5))
    for _ in range(400):
        y = y + z
    return heads.logit(heads.gap(jax.nn.relu(y * heads.gate(z))))


def _each_step_used_twice(a):
    y = z = jnp.tanh(heads.dense(a, 5))
    y = y * heads.gate(z)
    for _ in range(40):
        y = y * (2 - z * y)
    return heads.logit(heads.gap(jax.nn.relu(y)))


@pytest.mark.parametrize(
    ("f", "kind"),
    [
        (_gate_of_many_steps, "local, then pooled"),
        (_sum_of_many_steps, "local, then pooled"),
        (_each_step_used_twice, "dense"),
    ],
)
def test_long_programs_are_read(f, kind):
    assert jaxcam.structure(f, jax.ShapeDtypeStruct(heads.SHAPE, jnp.float32)).kind == kind


def test_the_result_may_have_another_dtype(x64):
    x = _point(heads.SHAPE, jnp.float32)

    def f(a):
        z = jnp.tanh(heads.dense(a, 5))
        gated = jax.nn.relu(z * heads.gate(z))
        return jax.nn.log_softmax(heads.gap(gated.astype(jnp.float64)))[1]

    found = jax.jit(functools.partial(jaxcam.derivatives, f))(x)
    _assert_close(found, _brute(f, x), 1e-5)


def test_reduced_precision_is_accumulated_in_float32():
    def f(a):
        return heads.logit(heads.gap(jax.nn.silu(heads.dense(a, 5)))).astype(jnp.float32)

    x = _point(heads.SHAPE, jnp.float32)
    found = jax.jit(functools.partial(jaxcam.derivatives, f))(x.astype(jnp.bfloat16))
    assert {d.dtype.name for d in found} == {"float32"}
    # Loose: the head computes in bfloat16, of eight bits.
    _assert_close(found, jaxcam.derivatives(f, x), 0.05)


@pytest.mark.parametrize("chunk_size", [1, 7, 10**6])
@pytest.mark.parametrize("name", ["residual silu block", "1x1, silu, gap, log-softmax"])
def test_chunk_size_changes_nothing(x64, name, chunk_size):
    head = HEADS[name]
    x = _point(head.shape, jnp.float64)
    found = jax.jit(functools.partial(jaxcam.derivatives, head.function, chunk_size=chunk_size))(x)
    _assert_close(found, jax.jit(functools.partial(jaxcam.derivatives, head.function))(x), 1e-12)


def test_no_array_grows_with_the_square_of_the_activations():
    x = jax.ShapeDtypeStruct((16, 16, 32), jnp.float32)  # 8,192 numbers
    exact = functools.partial(jaxcam.derivatives, chunk_size=16)
    for head in (HEADS["residual silu block"], HEADS["squeeze-and-excitation"]):
        compiled = jax.jit(functools.partial(exact, head.function)).lower(x).compile()
        used = compiled.memory_analysis()
        assert used is not None
        assert used.temp_size_in_bytes < 8192**2  # a quarter of such an array


def test_structure_takes_the_real_size_in_no_time_and_no_memory():
    """Abstractly: of ResNet-50's last stage there is not one number."""
    x = jax.ShapeDtypeStruct((7, 7, 2048), jnp.float32)
    found = jaxcam.structure(lambda a: heads.log_probability(heads.gap(a)), x)
    assert found.kind == "pooled first"
    assert (found.size, found.directions) == (100_352, heads.CLASSES)


def test_a_dense_head_says_why():
    found = jaxcam.structure(HEADS["padding that depends"].function, jnp.ones(heads.SHAPE))
    assert found.opaque == {"pad"}


@pytest.mark.parametrize(
    ("name", "meeting"),
    [
        ("gate by a mixture of silu", r"`mul` at heads.py:\d+ \(<lambda>\)"),
        ("self-attention", r"`div` at heads.py:\d+ \(attention\)"),
        ("class token, softmax detached", r"`dot_general` at heads.py:\d+ \(attend\)"),
        ("while loop", r"`while` at heads.py:\d+ \(while_loop\)"),
    ],
)
def test_a_dense_head_says_where(name, meeting):
    found = jaxcam.structure(HEADS[name].function, jnp.ones(heads.SHAPE))
    assert re.fullmatch(meeting, found.meeting)
    assert str(found).endswith(f"; all meet in {found.meeting}")


def test_a_read_of_one_token_leaves_out_what_the_others_need():
    """At the real size of a transformer the tail must not run for every token."""
    x = jax.ShapeDtypeStruct((14, 14, 64), jnp.float32)
    found = []
    jax.eval_shape(lambda x: found.append(read(heads.HEADS["class token"].function, x)) or x, x)
    made = [v.aval.shape for eqn in found[0].jaxpr.eqns for v in eqn.outvars]
    hidden = {shape[0] for shape in made if len(shape) == 2 and shape[1] == 7}
    assert hidden == {1}  # of the 197 tokens


def test_modes_of_differentiation_are_told():
    loop = jaxcam.structure(HEADS["while loop"].function, jnp.ones(heads.SHAPE))
    rule = jaxcam.structure(HEADS["custom_vjp"].function, jnp.ones(heads.SHAPE))
    assert (loop.forward, loop.reverse, rule.forward, rule.reverse) == (True, False, False, True)


def test_windows_with_holes_have_no_reverse_mode():
    def f(a):
        largest = functools.partial(lax.reduce_window, a, -jnp.inf, lax.max, (2, 2, 1), (1, 1, 1))
        return jnp.sin(largest("VALID", window_dilation=(1, 2, 1))).sum()

    x = _point(heads.SHAPE, jnp.float32)
    assert not jaxcam.structure(f, x).reverse
    _assert_close(jax.jit(functools.partial(jaxcam.derivatives, f))(x), _brute(f, x), 1e-4)


def test_what_sees_no_channel_does_not_move_though_its_positions_are_not_known():
    def f(a):  # so large that which positions are seen is no longer kept apart
        kept = jnp.concatenate([jax.nn.silu(a), jnp.ones_like(a)], -1)[..., a.shape[-1] :]
        beside = jnp.sin(jnp.concatenate([kept, a], -1))[..., : a.shape[-1]]
        return (kept + beside).sum()

    found = jaxcam.structure(f, jax.ShapeDtypeStruct((64, 64, 512), jnp.float32))
    assert str(found) == heads.LINEAR


def test_a_ref_may_hold_all():
    x = jnp.ones(heads.SHAPE)
    assert depends(HEADS["ref"].function, x)
    assert not depends(lambda a: jnp.zeros(()), x)


def test_what_no_mode_passes_is_refused():
    def f(a):
        return heads.while_loop(a) + heads.sine(a).sum()

    with pytest.raises(ValueError, match=r"both a custom_vjp and a while_loop.*neither mode"):
        jaxcam.derivatives(f, jnp.ones(3))


def test_no_activation_at_all():
    found = jaxcam.derivatives(lambda a: jnp.zeros(()), jnp.ones(heads.SHAPE))
    assert not any(d.any() for d in found)
