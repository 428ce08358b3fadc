"""Heads for the exact derivatives: each a scalar function, and the structure it should show.

They take their dtype from the activations, so that one head serves float64 and float32.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CLASSES = 4
SHAPE = (5, 4, 3)  # 60 activations


class Head(NamedTuple):
    """A scalar function, what `structure` should print of it, and what it takes."""

    function: Callable
    printed: str
    shape: tuple[int, ...] = SHAPE
    tolerance: float = 1e-9  # in float64


def weights(like, *shape, seed=0):
    """Fixed numbers, in the dtype of another array."""
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return jnp.asarray(values / np.sqrt(shape[-2] if len(shape) > 1 else 1), like.dtype)


def conv(a, features, *, size=3, groups=1, seed=0, **options):
    window = (size,) * (a.ndim - 1)
    kernel = weights(a, *window, a.shape[-1] // groups, features, seed=seed) / size
    axes = "DHW"[-len(window) :]
    return lax.conv_general_dilated(
        a[None],
        kernel,
        options.pop("strides", (1,) * len(window)),
        options.pop("padding", "SAME"),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
        **options,
    )[0]


def dense(a, features, seed=1):
    return a @ weights(a, a.shape[-1], features, seed=seed)


def gap(a):
    return a.mean(tuple(range(a.ndim - 1)))


def logit(a):
    return dense(a, CLASSES, seed=2)[1]


def log_probability(a):
    return jax.nn.log_softmax(dense(a, CLASSES, seed=2))[1]


def layer_norm(a):
    centred = a - a.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-3)


def max_pool(a):
    window = (2, 2, 1)
    return lax.reduce_window(a, -jnp.inf, lax.max, window, window, "VALID")


def residual(a):
    features = a.shape[-1]
    hidden = jax.nn.silu(conv(a, features, seed=3))
    return jax.nn.silu(a + conv(hidden, features, seed=4))


def gate(a, sigmoid=jax.nn.sigmoid):
    """What squeeze-and-excitation multiplies with, and global context adds."""
    return sigmoid(dense(jax.nn.silu(dense(gap(a), 2)), a.shape[-1]))[None, None]


def squeeze_excite(a):
    return logit(gap(jax.nn.silu(a * gate(a))))


def attention(a):
    tokens = a.reshape(-1, a.shape[-1])
    queries, keys, values = (dense(tokens, 3, seed=s) for s in (5, 6, 7))
    return logit((jax.nn.softmax(queries @ keys.T) @ values).mean(0))


def attend(queries, tokens, *, softmax=jax.nn.softmax, count=2, mask=None):
    """Attention of several heads, each of 2 channels: queries `[q, C]`, tokens `[T, C]`."""
    of_heads = [
        dense(x, 2 * count, seed=s).reshape(-1, count, 2)
        for x, s in ((queries, 5), (tokens, 6), (tokens, 7))
    ]
    scores = jnp.einsum("qhd,khd->hqk", *of_heads[:2]) / math.sqrt(2)
    scores = scores if mask is None else jnp.where(mask, scores, -1e9)
    mixed = jnp.einsum("hqk,khd->qhd", softmax(scores), of_heads[2])
    return dense(mixed.reshape(len(queries), -1), queries.shape[-1], seed=8)


def transformer(a, *, registers=0, **options):
    """The last block of a transformer, of which the class token alone is read."""
    tokens = a.reshape(-1, a.shape[-1])
    tokens = jnp.concatenate([weights(a, 1 + registers, a.shape[-1], seed=9), tokens])
    normed = layer_norm(tokens)
    tokens = tokens + attend(normed, normed, **options)
    hidden = jax.nn.gelu(dense(layer_norm(tokens), 7, seed=10))
    tokens = tokens + dense(hidden, a.shape[-1], seed=11)
    return layer_norm(tokens)[0]


def probed(a, probes, **options):
    """Attention pooling by learned probes."""
    tokens = jnp.tanh(dense(a.reshape(-1, a.shape[-1]), 3))
    return attend(weights(a, probes, 3, seed=12), tokens, **options)


def attended(a, seed=5):
    """The positions, weighed by a softmax over them."""
    tokens = a.reshape(-1, a.shape[-1])
    return (jax.nn.softmax(dense(tokens, 1, seed=seed), 0) * tokens).sum(0)


def still_attention(a):
    """Its weights are a product of two sides that move, of which no derivative is taken."""
    tokens = a.reshape(-1, a.shape[-1])
    return (lax.stop_gradient(jax.nn.softmax(tokens @ tokens.T)) @ tokens).reshape(a.shape)


def context(a):
    return attended(a)[None, None]


def plain_softmax(scores):
    powers = jnp.exp(scores)
    return powers / powers.sum(-1, keepdims=True)


def shifted_softmax(scores):
    """That subtracts the largest, whose derivative cancels, along the last axis."""
    powers = jnp.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1)[..., None]


def detached_softmax(scores):
    """That looks like one, and whose derivative is another."""
    powers = jnp.exp(scores)
    return powers / lax.stop_gradient(powers.sum(-1, keepdims=True))


def rounded_softmax(scores):
    """That looks like one, whose denominator has no derivative."""
    powers = jnp.exp(scores)
    return powers / powers.astype(int).astype(powers.dtype).sum(-1, keepdims=True)


def weighted_mean(a):
    """As multiple instances are pooled: by a product and a sum."""
    tokens = dense(a.reshape(-1, a.shape[-1]), 3)
    shares = jax.nn.softmax(jnp.tanh(tokens) @ weights(a, 3, seed=13))
    return (shares[:, None] * tokens).sum(0)


def of_jax(a):
    """Attention pooling of 2 heads by JAX's own function."""
    probe, tokens = weights(a, 1, 2, 3, seed=15), a.reshape(-1, 1, 3).repeat(2, 1)
    with jax.numpy_dtype_promotion("standard"):
        return jax.nn.dot_product_attention(probe, tokens, tokens)[0, 0]


def of_flax(a, nnx=False):
    """Attention pooling by the modules of Flax, with a probe that is a class token."""
    from flax import linen
    from flax import nnx as flax_nnx

    probe, tokens = weights(a, 1, 4, seed=14), dense(a.reshape(-1, a.shape[-1]), 4)
    options = {"param_dtype": a.dtype, "dtype": a.dtype}

    def numbers(like):
        return weights(a, *like.shape)

    if nnx:
        rngs = flax_nnx.Rngs(0)
        module = flax_nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs, **options)
        graphdef, params, rest = flax_nnx.split(module, flax_nnx.Param, ...)
        module = flax_nnx.merge(graphdef, jax.tree.map(numbers, params), rest)
        with jax.numpy_dtype_promotion("standard"):
            return jnp.reshape(module(probe[None], tokens[None]), -1)
    module = linen.MultiHeadDotProductAttention(2, **options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), probe[None], probe[None])
    mixed = module.apply(jax.tree.map(numbers, shapes), probe[None], tokens[None])
    return jnp.reshape(jnp.asarray(mixed), -1)


def scan_of_blocks(a):
    kernels = jnp.stack([weights(a, 3, 3, seed=s) for s in range(3)])
    out, _ = lax.scan(lambda x, kernel: (jax.nn.silu(x @ kernel), None), a, kernels)
    return logit(gap(out))


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


@straight_through.defjvp
def _(primals, tangents):
    return straight_through(primals[0]), tangents[0] * jnp.cos(primals[0])


@jax.custom_jvp
def rounded(x):
    return jnp.round(x)


@rounded.defjvp
def _(primals, tangents):
    """As straight-through estimators are often written: the value does not call the function."""
    return jnp.round(primals[0]), tangents[0]


@jax.custom_jvp
def held_tanh(x):
    return jnp.tanh(x)


@held_tanh.defjvp
def _(primals, tangents):
    """Calls its function, but not of what it is given."""
    return held_tanh(lax.stop_gradient(primals[0])), tangents[0] * (1 - jnp.tanh(primals[0]) ** 2)


@jax.custom_jvp
def own_tanh(x):
    return jnp.tanh(x)


@own_tanh.defjvp
@jax.jit
def _(primals, tangents):
    return own_tanh(primals[0]), tangents[0] * (1 - own_tanh(primals[0]) ** 2)


def kept_in_a_ref(a):
    ref = jax.new_ref(jnp.zeros(a.shape[-1], a.dtype))
    ref[...] = gap(jnp.sin(a))
    return log_probability(ref[...])


def gate_of_every_second(a):
    """By a 1x1 convolution that skips positions, and pads as many zeros."""
    kernel, size = weights(a, 1, 1, 3, 3), a.shape[0] - 1 - (a.shape[0] - 1) // 2
    window = {"window_strides": (2, 1), "padding": ((0, 2 * size), (0, 0))}
    layout = ("NHWC", "HWIO", "NHWC")
    skipped = lax.conv_general_dilated(a[None], kernel, dimension_numbers=layout, **window)[0]
    return logit(gap(jax.nn.silu(a * jax.nn.sigmoid(gap(skipped))[None, None])))


def gate_of_permuted(a):
    pooled = lax.reshape(a, (a.size // 3, 3), (2, 0, 1)).mean(0)
    return logit(gap(jax.nn.silu(a * jax.nn.sigmoid(pooled)[None, None])))


def permuted_results(a):
    tokens = a.reshape(-1, 3)
    probes = jax.nn.softmax(weights(a, 3, 3) @ tokens.T) @ tokens
    return log_probability(lax.reshape(probes, (3, 3), (1, 0))[0])


def shared_by_heads(a):
    """The weights of one query, for the values of several heads."""
    tokens = a.reshape(-1, 3)
    shares = jax.nn.softmax(weights(a, 2, 3) @ tokens.T)[:, None]
    return log_probability((jnp.broadcast_to(shares, (2, 3, len(tokens))) @ tokens).reshape(-1))


def half_of_softmax(a):
    tokens = a.reshape(-1, 3)
    return log_probability((jax.nn.softmax(tokens @ weights(a, 3)) * 0.5) @ tokens)


def one_of_three(a):
    which = (a[0, 0, 0] > 0).astype(int)
    return logit(gap(lax.switch(which, [jnp.sin, jnp.cos, jnp.tanh], a)))


def number_or_sum(a):
    return lax.cond(a.sum() > 0, lambda a: jnp.sin(a).sum(), lambda a: jnp.zeros((), a.dtype), a)


def number_carried(a):
    scan = lax.scan(lambda carry, x: (0.0, x * jnp.asarray(carry, x.dtype)), 1.0, a)
    return logit(gap(jax.nn.silu(scan[1] + a)))


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


def while_loop(a):
    return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, a))[1].sum()


def branches(a):
    return logit(gap(lax.cond(a[0, 0, 0] > 0, jax.nn.silu, jax.nn.relu, a)))


def uneven_mean(a):
    return (a * weights(a, *a.shape[:2], 1)).mean((0, 1))


@jax.custom_jvp
def quantised(a, step):
    """A learned quantiser, whose rule is no gradient: its second derivatives are not symmetric."""
    return jnp.round(a / step) * step


@quantised.defjvp
def _(primals, tangents):
    (a, step), (of_a, of_step) = primals, tangents
    return quantised(a, step), of_a + (jnp.round(a / step) - a / step) * of_step


def printed(a):
    jax.debug.callback(lambda mean: None, a.mean())
    return a.sum()


def two_sums(a):
    """Of one loop, so that one equation makes both."""

    def step(sums, row):
        return (sums[0] + row.sum(0), sums[1] + abs(row).sum(0)), None

    sums, _ = lax.scan(step, (jnp.zeros_like(a[0, 0]),) * 2, a)
    return [s[None, None] / (a.shape[0] * a.shape[1]) for s in sums]


def standardised(a):
    mean, deviation = two_sums(a)
    return (a - mean) / (1 + deviation)


def instance_norm(a):
    centred = a - a.mean((0, 1), keepdims=True)
    return centred * lax.rsqrt((centred**2).mean((0, 1), keepdims=True) + 1e-3)


def group_norm(a):
    """In two groups of channels, with the variance as Flax has it."""
    grouped = a.reshape(*a.shape[:2], 2, -1)
    mean, square = (m.mean((0, 1, 3), keepdims=True) for m in (grouped, grouped**2))
    return ((grouped - mean) * lax.rsqrt(square - mean**2 + 1e-3)).reshape(a.shape)


def response_norm(a):
    """What ConvNeXt V2 has in the place of squeeze-and-excitation."""
    norms = jnp.sqrt((a**2).sum((0, 1), keepdims=True))
    return a + a * norms / norms.mean()


def gated_alone(a):
    """A gate for each channel, of that channel alone."""
    return a * jax.nn.sigmoid(a.mean((0, 1), keepdims=True))


def gated_mixture(a, activation=jax.nn.relu, features=5, **options):
    """As a network of ReLUs has squeeze-and-excitation: behind a mixture, before another."""
    z = activation(conv(a, features, **options))
    return jax.nn.relu(a + dense(z * gate(z), 3))


def gate_of_each_position(a):
    """Looks like a gate, and weighs the positions."""
    z = jax.nn.relu(conv(a, 3))
    return jax.nn.relu(a + z * jax.nn.sigmoid(gap(z)[None, None] * weights(a, *a.shape[:2], 1)))


def gate_repeated(a):
    z = jax.nn.relu(conv(a, 3))
    return jax.nn.relu(a - z / (1 + jnp.exp(jnp.broadcast_to(gap(z), z.shape))))


def group_norm_of_flax(a):
    """Whose variance is the mean of squares of what is centred."""
    from flax import linen

    options = {"param_dtype": a.dtype, "dtype": a.dtype}
    module = linen.GroupNorm(2, use_fast_variance=False, **options)
    params = {"scale": weights(a, 4, seed=3), "bias": weights(a, 4, seed=5)}
    with jax.numpy_dtype_promotion("standard"):
        return module.apply({"params": params}, dense(a, 4)[None])[0]


def summed_by_a_product(a):
    return jnp.einsum("hwc,hw->c", a, jnp.ones(a.shape[:2], a.dtype))[None, None] / 9


def maximum_and_mean(a):
    f = jnp.tanh(dense(a, 4))
    return jnp.concatenate([f.max((0, 1)), gap(f)])


def pyramid(a):
    """Means of the whole and of its parts (He et al. 2014)."""
    f = jnp.tanh(a)
    return jnp.concatenate([gap(f), gap(f[:2]), gap(f[2:])])


def window_of_none(a):
    padded = lax.pad(a, jnp.zeros((), a.dtype), [(-2, -3, 0), (0, 0, 0), (0, 0, 0)])
    return logit(gap(jnp.sin(a))) + padded.sum()


def mean_and_deviation(a):
    f = jnp.tanh(dense(a, 4))
    return jnp.concatenate([gap(f), jnp.sqrt(gap(f**2) - gap(f) ** 2)])


def over_their_sum(a):
    weight = jax.nn.sigmoid(dense(a, 1, seed=3))
    return (weight * a).sum((0, 1)) / weight.sum((0, 1))


def gram(a):
    tokens = a.reshape(-1, a.shape[-1])
    return (tokens.T @ tokens / len(tokens)).reshape(-1)


def linear_attention(a):
    """Of one probe: the keys' features meet the values before the probe does."""
    tokens = a.reshape(-1, a.shape[-1])
    keys, values = jax.nn.softplus(dense(tokens, 4)), dense(tokens, 5, seed=3)
    probe = abs(weights(a, 4))
    return probe @ (keys.T @ values) / (probe @ keys.sum(0))


def netvlad(a):
    """Residuals of soft clusters (Arandjelovic et al. 2016)."""
    tokens = a.reshape(-1, a.shape[-1])
    shares, centres = jax.nn.softmax(dense(tokens, 4)), weights(a, 4, a.shape[-1], seed=3)
    residuals = jnp.einsum("tk,tc->kc", shares, tokens) - shares.sum(0)[:, None] * centres
    return (residuals / jnp.linalg.norm(residuals, axis=1, keepdims=True)).reshape(-1)


LINEAR = "piecewise linear: one gradient"
ALL = "dense: 60 directions"
POOLED = "pooled first: 3 directions instead of 60"
ONE = "local, 1 colour: 1 direction instead of 60"
GATED = "local but for a gate, then pooled, 1 colour: 6 directions instead of 60"
FED_BACK = "local but for pools fed back, then pooled, 1 colour: 15 directions instead of 60"
STILL = "local, then pooled, 1 colour: 3 directions instead of 60"
THREE = "local, 1 colour: 3 directions instead of 60"

HEADS = {
    "relu": Head(lambda a: logit(gap(jax.nn.relu(a - 0.1))), LINEAR),
    "relu6": Head(lambda a: logit(gap(jax.nn.relu6(conv(a, 3)))), LINEAR),
    "leaky relu": Head(lambda a: logit(gap(jax.nn.leaky_relu(conv(a, 3)))), LINEAR),
    "max-pool": Head(lambda a: logit(gap(max_pool(conv(a, 3)))), LINEAR),
    "flatten, dense": Head(lambda a: logit(jax.nn.relu(dense(a.reshape(-1), 6))), LINEAR),
    "gap, dense": Head(lambda a: logit(gap(a)), LINEAR),
    "clip": Head(lambda a: logit(gap(jnp.clip(a, -0.5, 0.5))), LINEAR),
    "sort": Head(lambda a: jnp.sort(a.reshape(-1)) @ weights(a, 60), LINEAR),
    "argmax": Head(lambda a: (jnp.argmax(a, -1).astype(a.dtype) * a[..., 0]).sum(), LINEAR),
    "stop gradient": Head(lambda a: (lax.stop_gradient(a) * a).sum(), LINEAR),
    "select": Head(lambda a: jnp.where(jnp.flip(a) > 0, a, -2 * a).sum(), LINEAR),
    "gap, layer norm, dense": Head(lambda a: logit(layer_norm(gap(a))), POOLED),
    "gap, mlp": Head(lambda a: logit(jax.nn.gelu(dense(gap(a), 6))), POOLED),
    "softmax score": Head(lambda a: jax.nn.softmax(dense(gap(a), CLASSES))[1], POOLED),
    "log-softmax score": Head(lambda a: log_probability(gap(a)), POOLED),
    "uneven mean": Head(lambda a: log_probability(uneven_mean(a)), POOLED),
    "global max-pool": Head(lambda a: log_probability(a.max((0, 1))), POOLED),
    "gap, silu": Head(
        lambda a: logit(jax.nn.silu(gap(a))),
        "pooled first to 3 of 60 numbers; local, 1 colour: 1 direction instead of 3",
    ),
    "max-pool, 1x1, silu": Head(
        lambda a: logit(gap(jax.nn.silu(dense(max_pool(a), 5)))),
        "pooled first to 12 of 60 numbers; local, 1 colour: 3 directions instead of 12",
    ),
    "flatten, dense, log-softmax": Head(
        lambda a: log_probability(jax.nn.relu(dense(a.reshape(-1), 6))),
        "piecewise linear first: 4 directions instead of 60",
    ),
    "top-k": Head(
        lambda a: jax.nn.silu(lax.top_k(a.reshape(-1), 5)[0]).sum(),
        "piecewise linear first: 5 directions instead of 60",
    ),
    "1x1, silu, gap": Head(lambda a: logit(gap(jax.nn.silu(dense(a, 5)))), THREE),
    "silu, gap": Head(lambda a: logit(gap(jax.nn.silu(a))), ONE),
    "layer norm, gap": Head(lambda a: logit(gap(jax.nn.gelu(dense(layer_norm(a), 5)))), THREE),
    "depthwise 3x3, silu": Head(
        lambda a: logit(gap(jax.nn.silu(conv(a, 3, groups=3)))),
        "local, 9 colours: 9 directions instead of 60",
    ),
    "strided 3x3": Head(
        lambda a: logit(gap(jax.nn.silu(conv(a, 5, strides=(2, 2))))),
        "local, 9 colours: 27 directions instead of 60",
    ),
    "dilated 3x3": Head(
        lambda a: logit(gap(jax.nn.silu(conv(a, 5, rhs_dilation=(2, 2))))),
        "local, 6 colours: 18 directions instead of 60",
    ),
    "1x1 transposed": Head(
        lambda a: logit(
            gap(jax.nn.silu(conv(a, 5, size=1, padding=((0, 0), (0, 1)), lhs_dilation=(2, 2))))
        ),
        "local, 1 colour: 3 directions instead of 60",
    ),
    "residual silu block": Head(
        lambda a: logit(gap(residual(a))),
        "local, 25 colours: 75 directions instead of 126",
        (7, 6, 3),
    ),
    "residual silu block, log-softmax": Head(
        lambda a: log_probability(gap(residual(a))),
        "local, then pooled, 25 colours: 75 directions instead of 126",
        (7, 6, 3),
    ),
    "1x1, silu, gap, log-softmax": Head(
        lambda a: log_probability(gap(jax.nn.silu(dense(a, 5)) + conv(a, 5))),
        STILL,
    ),
    "generalised mean": Head(
        lambda a: logit(gap(jnp.maximum(a, 0.1) ** 3) ** (1 / 3)),
        "local, then pooled, 1 colour: 3 directions instead of 60",
    ),
    "instance norm": Head(
        lambda a: logit(gap(jax.nn.silu(instance_norm(a)))),
        "local, 20 colours: 20 directions instead of 60",
    ),
    "cumsum": Head(
        lambda a: logit(gap(jax.nn.silu(jnp.cumsum(a, 0)))),
        "local, 5 colours: 5 directions instead of 60",
    ),
    "neighbours multiplied": Head(
        lambda a: (a[:-1] * a[1:]).sum() + (a**3).sum(),
        "local, 2 colours: 2 directions instead of 60",
    ),
    "product": Head(lambda a: jnp.prod(a, -1).sum(), THREE),
    "quotient": Head(
        lambda a: (a / (1 + a[..., :1] ** 2)).sum(), "local, 1 colour: 2 directions instead of 60"
    ),
    "scalar times vector": Head(
        lambda a: jax.nn.log_softmax(a.sum() * weights(a, 4))[0],
        "pooled first: 1 direction instead of 60",
    ),
    "vector over scalar": Head(lambda a: (weights(a, 4) / (9 + jnp.tanh(a).sum()))[1], STILL),
    "scalar beside a map": Head(
        lambda a: (jnp.maximum(a.mean(), a[..., 0]) ** 3).sum(),
        "piecewise linear first: 20 directions instead of 60",
    ),
    "scan of blocks": Head(scan_of_blocks, THREE),
    "remat": Head(
        lambda a: logit(gap(jax.checkpoint(lambda a: jax.nn.silu(dense(a, 5)))(a))), THREE
    ),
    "custom_jvp": Head(lambda a: logit(gap(straight_through(a))), ONE),
    "custom_jvp of another value": Head(
        lambda a: log_probability(gap(rounded(a))),
        f"{ALL} (no rule for custom_jvp_call whose rule does not call its function)",
    ),
    "gate by such a value": Head(
        lambda a: logit(gap(jax.nn.silu(a * jax.nn.sigmoid(rounded(gap(a)))[None, None]))),
        f"{ALL} (no rule for custom_jvp_call whose rule does not call its function)",
    ),
    "custom_jvp of a held value": Head(
        lambda a: log_probability(gap(held_tanh(a))),
        f"{ALL} (no rule for custom_jvp_call whose rule does not call its function)",
    ),
    "custom_jvp under jit": Head(lambda a: log_probability(gap(own_tanh(a))), STILL),
    "softplus": Head(lambda a: logit(gap(jax.nn.softplus(a))), ONE),
    "mish": Head(lambda a: log_probability(gap(jax.nn.mish(a))), STILL),
    "cond": Head(branches, ONE),
    "switch": Head(one_of_three, ONE),
    "cond with a number": Head(number_or_sum, ALL),
    "scan that carries a number": Head(
        number_carried, "local, 5 colours: 5 directions instead of 60"
    ),
    "ref": Head(kept_in_a_ref, f"{ALL} (no rule for swap)"),
    "tokens": Head(lambda a: logit(jax.nn.silu(dense(a.reshape(-1, 3), 5)).mean(0)), THREE),
    "channels first": Head(lambda a: logit(jax.nn.silu(jnp.moveaxis(a, -1, 0)).mean((1, 2))), ONE),
    "split and joined": Head(
        lambda a: logit(gap(jnp.concatenate([jax.nn.silu(a[..., :1]), a[..., 1:]], -1))),
        "local, 1 colour: 1 direction instead of 60",
    ),
    "rows gathered": Head(
        lambda a: logit(gap(jax.nn.silu(a[jnp.array([2, 0, 2])]))),
        "local, 5 colours: 5 directions instead of 60",
    ),
    "slice at a place": Head(
        lambda a: jax.nn.silu(
            lax.dynamic_slice(a, (jnp.argmax(a[:, 0, 0]), 0, 0), (2, 4, 3))
        ).sum(),
        "local, 5 colours: 5 directions instead of 60",
    ),
    "written into": Head(
        lambda a: jax.nn.silu(a.at[1:3].set(a[:2] * 2)).sum(), "dense: 60 directions"
    ),
    "fft": Head(
        lambda a: logit(gap(jnp.abs(jnp.fft.fft(a, axis=0)) ** 2)),
        "dense: 60 directions (no rule for abs, convert_element_type, fft, transpose)",
    ),
    "padding that depends": Head(
        lambda a: jax.nn.silu(lax.pad(a, a.sum(), ((1, 0, 0),) + ((0, 0, 0),) * 2)).sum(),
        "dense: 60 directions (no rule for pad)",
    ),
    "squeeze-and-excitation": Head(squeeze_excite, GATED),
    "gate after 1x1": Head(
        lambda a: logit(gap(jax.nn.silu(gate(dense(a, 5)) * dense(a, 5)))), GATED
    ),
    "gate, residual, silu": Head(
        lambda a: log_probability(gap(jax.nn.silu(a + dense(a * gate(a), 3)))), GATED
    ),
    "hard gate": Head(
        lambda a: log_probability(gap(jax.nn.silu(a * gate(a, jax.nn.hard_sigmoid)))), GATED
    ),
    "gate before 3x3": Head(
        lambda a: log_probability(gap(jax.nn.silu(conv(a * gate(a), 4)))),
        "local but for a gate, then pooled, 9 colours: 30 directions instead of 126",
        (7, 6, 3),
    ),
    "global context": Head(lambda a: log_probability(gap(jax.nn.silu(a + gate(a)))), GATED),
    "gate of a signal": Head(
        lambda a: logit(gap(jax.nn.silu(a * gate(a)[0]))),
        "local but for a gate, then pooled, 1 colour: 6 directions instead of 27",
        (9, 3),
    ),
    "gate of a part": Head(lambda a: logit(gap(jax.nn.silu(a[:3] * gate(a)))), FED_BACK),
    "two gates": Head(lambda a: logit(gap(jax.nn.silu(gate(a * gate(a)) * a * gate(a)))), ALL),
    "gate by a maximum": Head(
        lambda a: log_probability(
            gap(jax.nn.silu(a * jax.nn.sigmoid(a.max((0, 1), keepdims=True))))
        ),
        FED_BACK,
    ),
    "gate by a depthwise context": Head(
        lambda a: log_probability(gap(jax.nn.silu(a * gate(conv(a, 3, groups=3))))), FED_BACK
    ),
    "gate by an uneven mean": Head(
        lambda a: log_probability(gap(jax.nn.silu(a * jnp.tanh(uneven_mean(a))[None, None]))),
        FED_BACK,
    ),
    "gate by every second position": Head(gate_of_every_second, ALL),
    "gate by a pool across channels": Head(gate_of_permuted, ALL),
    "gate by a relu": Head(
        lambda a: log_probability(gap(jax.nn.silu(a * gate(jax.nn.relu(a))))), FED_BACK
    ),
    "gate by a mixture of silu": Head(
        lambda a: log_probability(gap(jax.nn.silu(a * gate(dense(jax.nn.silu(a), 5))[..., :3]))),
        ALL,
    ),
    "silu, gate": Head(lambda a: squeeze_excite(jax.nn.silu(a)), FED_BACK),
    "3x3 of each channel, silu, gate": Head(
        lambda a: squeeze_excite(jax.nn.silu(conv(a, 3, groups=3))),
        "local but for pools fed back, then pooled, 9 colours: 135 directions instead of 216",
        (8, 9, 3),
    ),
    "gate by a product with ones": Head(
        lambda a: logit(gap(jax.nn.silu(a * jnp.tanh(summed_by_a_product(a))))), FED_BACK
    ),
    "quantised pool": Head(
        lambda a: log_probability(quantised(z := dense(gap(jnp.tanh(a)), 3), abs(z).mean() / 4)),
        STILL,
    ),
    "quantised by a pool": Head(
        lambda a: log_probability(gap(jnp.tanh(quantised(a, abs(a).mean() / 2)))), ALL
    ),
    "maximum of what is masked": Head(
        lambda a: log_probability(gap(max_pool(jnp.log(jax.nn.relu(abs(a) - 0.3))))),
        "local, then pooled, 1 colour: 3 directions instead of 72",
        (4, 6, 3),
    ),
    "gates of one loop": Head(lambda a: log_probability(gap(jnp.tanh(standardised(a)))), ALL),
    "third derivative that is none": Head(
        lambda a: log_probability(gap(jax.nn.relu(a - 0.5) ** 2.5)),
        STILL,
    ),
    "print": Head(printed, LINEAR),
    "nothing": Head(lambda a: jnp.tanh(a[0][:, None] * weights(a, 1, 0, 3)).sum(), LINEAR),
    "product of two pools": Head(
        lambda a: log_probability(gap(jnp.tanh(dense(a, 5))) * gap(jax.nn.silu(dense(a, 5, 3)))),
        STILL,
    ),
    "weights over their sum": Head(lambda a: log_probability(over_their_sum(a)), STILL),
    "mean and deviation": Head(lambda a: log_probability(mean_and_deviation(a)), STILL),
    "maximum and mean": Head(lambda a: log_probability(maximum_and_mean(a)), STILL),
    "pyramid": Head(lambda a: log_probability(pyramid(a)), STILL),
    "window of none": Head(window_of_none, ONE),
    "gram matrix": Head(lambda a: log_probability(gram(a)), STILL),
    "gram matrix of 3x3": Head(
        lambda a: log_probability(gram(jnp.tanh(conv(a, 4)))),
        "local, then pooled, 9 colours: 27 directions instead of 60",
    ),
    "covariance": Head(lambda a: log_probability(gram(a - gap(a)[None, None])), GATED),
    "linear attention of a probe": Head(lambda a: log_probability(linear_attention(a)), STILL),
    "clusters": Head(lambda a: log_probability(netvlad(a)), STILL),
    "attention that does not move, silu": Head(
        lambda a: log_probability(gap(jax.nn.silu(still_attention(a)))), ALL
    ),
    "two softmaxes over positions": Head(
        lambda a: log_probability(jnp.concatenate([attended(a), attended(a, 7)])), STILL
    ),
    "logarithm of a sum of exponentials, beside a mean": Head(
        lambda a: log_probability(jnp.concatenate([jax.nn.logsumexp(a, (0, 1)), gap(a)])), STILL
    ),
    "attended context, added": Head(lambda a: log_probability(gap(a + context(a))), STILL),
    "attended context, relu, added": Head(lambda a: logit(gap(a + jax.nn.relu(context(a)))), STILL),
    "attended context, added, relu": Head(lambda a: logit(gap(jax.nn.relu(a + context(a)))), STILL),
    "attended context, added, silu": Head(lambda a: logit(gap(jax.nn.silu(a + context(a)))), ALL),
    "product of a pool and what passes it": Head(
        lambda a: log_probability(
            gap(jnp.sin(dense(a, 3) * gap(jnp.tanh(dense(a, 3)))[None, None]))
        ),
        ALL,
    ),
    "gate of a gate": Head(
        lambda a: log_probability(gap(gated_alone(gated_alone(jnp.tanh(a))))),
        "local but for pools fed back, then pooled, 1 colour: 45 directions instead of 60",
    ),
    "gate that stays, beside the pool": Head(
        lambda a: log_probability(jnp.concatenate([gap(gated_alone(a**2)), gap(a**2)])), FED_BACK
    ),
    "instance norm, log-softmax": Head(
        lambda a: log_probability(gap(jax.nn.silu(instance_norm(a)))),
        "local but for pools fed back, then pooled, 1 colour: 45 directions instead of 60",
    ),
    "group norm": Head(
        lambda a: log_probability(gap(jax.nn.relu(group_norm(a)))),
        "local but for pools fed back, then pooled, 1 colour: 48 directions instead of 80",
        (4, 5, 4),
    ),
    "response norm": Head(lambda a: log_probability(gap(jnp.sin(response_norm(a)))), FED_BACK),
    "relu, gate, skip, relu": Head(
        lambda a: logit(gap(gated_mixture(a))),
        "piecewise linear first: 8 directions instead of 60",
    ),
    "relu, gate, relu, log-softmax": Head(
        lambda a: log_probability(gap(gated_mixture(a))),
        "piecewise linear first: 20 directions instead of 60",
    ),
    "silu, gate, skip, relu": Head(
        lambda a: logit(gap(gated_mixture(a, jax.nn.silu, size=1))), STILL
    ),
    "3x3, silu, gate, skip, relu": Head(
        lambda a: logit(gap(gated_mixture(a, jax.nn.silu))),
        "local, then pooled, 9 colours: 27 directions instead of 60",
    ),
    "relu, gates of gates, relu": Head(lambda a: logit(gap(gated_mixture(gated_mixture(a)))), ALL),
    "gate that weighs positions": Head(lambda a: logit(gap(gate_of_each_position(a))), ALL),
    "gate that is repeated": Head(
        lambda a: log_probability(gap(gate_repeated(a))),
        "piecewise linear first: 9 directions instead of 60",
    ),
    "instance norm of a mixture": Head(
        lambda a: log_probability(gap(jax.nn.relu(instance_norm(jax.nn.silu(dense(a, 5)))))), STILL
    ),
    "instance norm of a mixture, silu": Head(
        lambda a: log_probability(gap(jax.nn.silu(instance_norm(jax.nn.silu(dense(a, 5)))))), ALL
    ),
    "group norm of Flax": Head(
        lambda a: log_probability(gap(jax.nn.relu(group_norm_of_flax(a)))), STILL
    ),
    "mixture over its deviation and a number": Head(
        lambda a: logit(
            gap(jax.nn.relu((z := jnp.tanh(dense(a, 5))) / 6.0 / jnp.std(z, (0, 1), keepdims=True)))
        ),
        STILL,
    ),
    "variance of a mixture": Head(
        lambda a: log_probability(jnp.var(jax.nn.silu(dense(a, 5)), (0, 1))), STILL
    ),
    "response norm of a mixture": Head(
        lambda a: log_probability(gap(jax.nn.relu(response_norm(jax.nn.gelu(dense(a, 5)))))), STILL
    ),
    "self-attention": Head(attention, ALL),
    "class token": Head(lambda a: log_probability(transformer(a)), STILL),
    "class token, registers": Head(lambda a: logit(transformer(a, registers=2)), STILL),
    "class token, masked": Head(
        lambda a: logit(transformer(a, mask=np.arange(21) % 4 != 2)), STILL
    ),
    "class token, softmax by hand": Head(
        lambda a: logit(transformer(a, softmax=shifted_softmax)), STILL
    ),
    "class token, nothing subtracted": Head(
        lambda a: logit(transformer(a, softmax=plain_softmax)), STILL
    ),
    "class token, softmax detached": Head(
        lambda a: logit(transformer(a, softmax=detached_softmax)), ALL
    ),
    "class token, softmax rounded": Head(
        lambda a: logit(transformer(a, softmax=rounded_softmax)), ALL
    ),
    "class token that a mean moves": Head(
        lambda a: logit(transformer(conv(a, 3) + a.mean())),
        "local but for a gate, then pooled, 9 colours: 30 directions instead of 60",
    ),
    "class token that a maximum moves": Head(
        lambda a: logit(transformer(conv(a, 3) + a.max())), ALL
    ),
    "one probe": Head(lambda a: log_probability(probed(a, 1)[0]), STILL),
    "several probes": Head(lambda a: log_probability(probed(a, 3).reshape(-1)), STILL),
    "probes, permuted": Head(permuted_results, STILL),
    "weights for several heads": Head(shared_by_heads, STILL),
    "weights times a number": Head(half_of_softmax, STILL),
    "probes that a mean moves": Head(
        lambda a: logit(attend(a.mean((0, 1))[None], a.reshape(-1, 3))[0]), GATED
    ),
    "probes that move": Head(
        lambda a: logit(attend(a.max((0, 1))[None], a.reshape(-1, 3))[0]), FED_BACK
    ),
    "gate, skip, relu": Head(lambda a: log_probability(gap(jax.nn.relu(a * gate(a) + a))), GATED),
    "gate, skip": Head(lambda a: log_probability(gap(a * gate(a) + a)), GATED),
    "dot_product_attention": Head(
        lambda a: logit(of_jax(a)),
        STILL,
        tolerance=1e-5,  # its scores are float32 whatever it is given
    ),
    "weighted mean": Head(lambda a: log_probability(weighted_mean(a)), STILL),
    "softmax over channels": Head(lambda a: log_probability(gap(a * jax.nn.softmax(a, -1))), STILL),
    "attention of linen": Head(lambda a: log_probability(of_flax(a)), STILL),
    "attention of NNX": Head(
        lambda a: log_probability(of_flax(a, nnx=True)),
        STILL,
        tolerance=1e-5,  # which calls that
    ),
    "custom_vjp": Head(
        lambda a: logit(gap(sine(a))), "dense: 60 directions (no rule for custom_vjp_call)"
    ),
    "while loop": Head(while_loop, "dense: 60 directions (no rule for while)"),
    "signal": Head(
        lambda a: logit(gap(jax.nn.silu(conv(a, 4)))),
        "local, 3 colours: 9 directions instead of 27",
        (9, 3),
    ),
    "volume": Head(
        lambda a: log_probability(gap(jax.nn.silu(conv(a, 4)))),
        "local, then pooled, 27 colours: 54 directions instead of 72",
        (3, 3, 4, 2),
    ),
    "vector": Head(
        lambda a: logit(jax.nn.silu(a)), "local, 1 colour: 1 direction instead of 6", (6,)
    ),
}
