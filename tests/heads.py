"""Heads for the exact derivatives: each a scalar function, and the structure it should show.

They take their dtype from the activations, so that one head serves float64 and float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CLASSES = 4
SHAPE = (5, 4, 3)  # 60 activations


class Head(NamedTuple):
    """A scalar function, what `structure` should print of it, and the shape it takes."""

    function: Callable
    printed: str
    shape: tuple[int, ...] = SHAPE


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


def squeeze_excite(a):
    gate = jax.nn.sigmoid(dense(jax.nn.relu(dense(gap(a), 2)), a.shape[-1]))
    return logit(gap(jax.nn.silu(a * gate[None, None])))


def attention(a):
    tokens = a.reshape(-1, a.shape[-1])
    queries, keys, values = (dense(tokens, 3, seed=s) for s in (5, 6, 7))
    return logit((jax.nn.softmax(queries @ keys.T) @ values).mean(0))


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


def group_norm(a):
    centred = a - a.mean((0, 1), keepdims=True)
    return centred * lax.rsqrt((centred**2).mean((0, 1), keepdims=True) + 1e-3)


LINEAR = "piecewise linear: one gradient"
ALL = "dense: 60 directions"
POOLED = "pooled first: 3 directions instead of 60"
ONE = "local, 1 colour: 1 direction instead of 60"
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
        "local, then pooled, 9 colours: 27 directions instead of 60",
    ),
    "generalised mean": Head(
        lambda a: logit(gap(jnp.maximum(a, 0.1) ** 3) ** (1 / 3)),
        "local, then pooled, 1 colour: 3 directions instead of 60",
    ),
    "group norm": Head(
        lambda a: logit(gap(jax.nn.silu(group_norm(a)))),
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
    "vector over scalar": Head(
        lambda a: (weights(a, 4) / (9 + jnp.tanh(a).sum()))[1], "dense: 60 directions"
    ),
    "scalar beside a map": Head(
        lambda a: (jnp.maximum(a.mean(), a[..., 0]) ** 3).sum(),
        "piecewise linear first: 20 directions instead of 60",
    ),
    "scan of blocks": Head(scan_of_blocks, THREE),
    "remat": Head(
        lambda a: logit(gap(jax.checkpoint(lambda a: jax.nn.silu(dense(a, 5)))(a))), THREE
    ),
    "custom_jvp": Head(lambda a: logit(gap(straight_through(a))), ONE),
    "cond": Head(branches, ONE),
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
    "squeeze-and-excitation": Head(squeeze_excite, ALL),
    "self-attention": Head(attention, ALL),
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
