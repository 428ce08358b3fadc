"""Attention weights found in a program, and the methods that read them, against float64."""

import functools
import json
from functools import partial
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import jax_defaults
from tiers import rest_is_thorough
from token_models import swin, vit

import jaxcam
from jaxcam._src import cli

SIDE, PATCH, WIDTH, HEADS, CLASSES = 6, 2, 8, 2, 3
GRID = (SIDE // PATCH, SIDE // PATCH)
TARGET = 1


class Kind(NamedTuple):
    """A tiny vision transformer: blocks of attention and a perceptron, each beside a shortcut."""

    extra: int
    blocks: int = 2


KINDS = [Kind(1), Kind(0), Kind(3, blocks=3)]


@functools.cache
def _variables(kind):
    rng = np.random.default_rng(kind.extra)
    shapes = {"patches": (PATCH**2, WIDTH), "extra": (kind.extra, WIDTH), "head": (WIDTH, CLASSES)}
    shapes["places"] = (kind.extra + GRID[0] * GRID[1], WIDTH)
    for n in range(kind.blocks):
        shapes |= {f"{part}{n}": (HEADS, WIDTH, WIDTH // HEADS) for part in ("q", "k", "v")}
        shapes |= {f"out{n}": (HEADS, WIDTH // HEADS, WIDTH), f"mlp{n}": (WIDTH, WIDTH)}
    return {name: rng.normal(size=shape) / 3 for name, shape in shapes.items()}


IMAGE = np.random.default_rng(9).normal(size=(SIDE, SIDE, 1))


def _apply(kind, variables, image, *, tagged=False):
    """In JAX; `tagged` names the attention weights by hand."""
    patches = image.reshape(GRID[0], PATCH, GRID[1], PATCH).transpose(0, 2, 1, 3)
    patches = jaxcam.tag(patches.reshape(*GRID, -1) @ variables["patches"], "patches")
    x = jnp.concatenate([variables["extra"], patches.reshape(-1, WIDTH)]) + variables["places"]
    for n in range(kind.blocks):
        q, k, v = (jnp.einsum("td,hde->hte", x, variables[f"{part}{n}"]) for part in "qkv")
        weights = jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k) / 2)
        weights = jaxcam.tag(weights, f"weights{n}") if tagged else weights
        seen = jnp.einsum("hqk,hke->qhe", weights, v)
        x = x + jnp.einsum("qhe,hed->qd", seen, variables[f"out{n}"])
        x = jaxcam.tag(x + jnp.tanh(x @ variables[f"mlp{n}"]), f"block{n}")
    return (x[0] if kind.extra else x.mean(axis=0)) @ variables["head"]


class Forward(NamedTuple):
    """What NumPy makes of the image: the weights of each block, and the logits of its tokens."""

    weights: list[np.ndarray]
    logits: list[np.ndarray]


def _in_numpy(kind, variables, image, offsets=None):
    """The same model in NumPy, with offsets added to the weights of each block."""
    tokens = [*variables["extra"]]
    for row in range(0, SIDE, PATCH):
        for column in range(0, SIDE, PATCH):
            patch = image[row : row + PATCH, column : column + PATCH].reshape(-1)
            tokens.append(patch @ variables["patches"])
    x = np.stack(tokens) + variables["places"]
    found = Forward([], [])
    for n in range(kind.blocks):
        update, weights = np.zeros_like(x), []
        for head in range(HEADS):
            q, k, v = (x @ variables[f"{part}{n}"][head] for part in "qkv")
            powers = np.exp(q @ k.T / 2)
            weights.append(powers / powers.sum(axis=1, keepdims=True))
            moved = weights[-1] + (0 if offsets is None else offsets[n][head])
            update += moved @ v @ variables[f"out{n}"][head]
        found.weights.append(np.stack(weights))
        x = x + update
        x = x + np.tanh(x @ variables[f"mlp{n}"])
        found.logits.append((x[0] if kind.extra else x.mean(axis=0)) @ variables["head"])
    return found


@functools.cache
def _slopes(kind):
    """The gradient of each block's own logit along each block's weights, by differences."""
    variables, step = _variables(kind), 1e-4
    zeros = [np.zeros_like(w) for w in _in_numpy(kind, variables, IMAGE).weights]
    slopes = np.zeros((kind.blocks, kind.blocks, *zeros[0].shape))  # of block, along block
    for n, zero in enumerate(zeros):
        for place in np.ndindex(zero.shape):
            sides = []
            for sign in (1, -1):
                offsets = [z.copy() for z in zeros]
                offsets[n][place] = sign * step
                logits = _in_numpy(kind, variables, IMAGE, offsets).logits
                sides.append(np.array([of_block[TARGET] for of_block in logits]))
            slopes[(slice(None), n, *place)] = (sides[0] - sides[1]) / (2 * step)
    return slopes


def _read(kind, relevance, queries=None):
    rows = relevance[:1] if kind.extra else relevance
    rows = rows if queries is None else np.atleast_2d(relevance[queries])
    return rows.mean(axis=0)[kind.extra :].reshape(GRID)


def _rollout(kind, queries=None):
    relevance = None
    for weights in _in_numpy(kind, _variables(kind), IMAGE).weights:
        mixed = 0.5 * weights.mean(axis=0) + 0.5 * np.eye(weights.shape[1])
        relevance = mixed if relevance is None else mixed @ relevance
    return _read(kind, relevance, queries)


def _generic(kind, queries=None):
    weights = _in_numpy(kind, _variables(kind), IMAGE).weights
    relevance = np.eye(weights[0].shape[1])
    for of_block, slope in zip(weights, _slopes(kind)[-1], strict=True):
        relevance = relevance + np.maximum(of_block * slope, 0).mean(axis=0) @ relevance
    return _read(kind, relevance, queries)


def _legrad_final(kind):
    shares = [np.maximum(slope, 0).mean(axis=(0, 1)) for slope in _slopes(kind)[-1]]
    return np.mean(shares, axis=0)[kind.extra :].reshape(GRID)


def _legrad(kind, blocks=None):
    chosen = range(kind.blocks) if blocks is None else blocks
    shares = [np.maximum(_slopes(kind)[n, n], 0).mean(axis=(0, 1)) for n in chosen]
    return np.mean(shares, axis=0)[kind.extra :].reshape(GRID)


def _blocks(kind):
    return [f"block{n}" for n in range(kind.blocks)]


def _cam(kind, method, image=IMAGE, target=TARGET, **how):
    apply_fn = partial(_apply, kind, **how)
    explain = jax.jit(jaxcam.explainer(apply_fn, "patches", method))
    return explain(_variables(kind), jnp.asarray(image), target).cam


WANTED = {
    "attention_rollout": lambda kind: (jaxcam.attention_rollout, _rollout(kind)),
    "generic_attention": lambda kind: (jaxcam.generic_attention, _generic(kind)),
    "legrad_final": lambda kind: (jaxcam.legrad_final, _legrad_final(kind)),
    "legrad": lambda kind: (partial(jaxcam.legrad, blocks=_blocks(kind)), _legrad(kind)),
}
METHODS = {
    "attention_rollout": jaxcam.attention_rollout,
    "generic_attention": jaxcam.generic_attention,
    "legrad_final": jaxcam.legrad_final,
    "legrad": partial(jaxcam.legrad, blocks=["block1", "block2", "block3"]),  # of digits_vit
}
of_every_method = pytest.mark.parametrize("name", METHODS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_models_are_one(x64, kind):
    variables = _variables(kind)
    found = _in_numpy(kind, variables, IMAGE)
    logits = _apply(kind, variables, jnp.asarray(IMAGE))
    np.testing.assert_allclose(logits, found.logits[-1], rtol=1e-12)
    weights = jaxcam.attention_weights(partial(_apply, kind), variables, jnp.asarray(IMAGE))
    for n, value in enumerate(weights.values()):
        np.testing.assert_allclose(value, found.weights[n], rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WANTED)
def test_the_map_is_that_of_the_formula(x64, kind, name):
    method, wanted = WANTED[name](kind)
    np.testing.assert_allclose(_cam(kind, method), wanted, rtol=1e-7)  # of the differences


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("queries", [0, 4, slice(None), slice(2, None)])
def test_any_rows_are_read(x64, kind, queries):
    for method, by_hand in (
        (jaxcam.attention_rollout, _rollout),
        (jaxcam.generic_attention, _generic),
    ):
        found = _cam(kind, partial(method, queries=queries))
        np.testing.assert_allclose(found, by_hand(kind, queries), rtol=1e-7)


def test_legrad_of_the_last_blocks_leaves_out_the_attention_before(x64):
    kind = Kind(3, blocks=3)
    found = _cam(kind, partial(jaxcam.legrad, blocks=["block1", "block2"]))
    np.testing.assert_allclose(found, _legrad(kind, [1, 2]), rtol=1e-7)
    last = _cam(kind, partial(jaxcam.legrad, blocks=["block2"]))
    final = _cam(kind, partial(jaxcam.legrad_final, layers=["block1:attention"]))
    np.testing.assert_allclose(
        last, final, rtol=1e-12
    )  # of the last block the score is the model's


@pytest.mark.parametrize("name", WANTED)
def test_weights_tagged_by_hand_give_the_same_map(x64, name):
    kind = Kind(1)
    method, wanted = WANTED[name](kind)
    by_hand = partial(method, layers=["weights0", "weights1"])
    np.testing.assert_allclose(_cam(kind, by_hand, tagged=True), wanted, rtol=1e-7)


def test_some_layers_are_chosen_by_name_in_the_order_of_execution(x64):
    kind = Kind(3, blocks=3)
    chosen = partial(jaxcam.attention_rollout, layers=["block1:attention", "patches:attention"])
    first, _, last = _in_numpy(kind, _variables(kind), IMAGE).weights
    mixed = [(w.mean(axis=0) + np.eye(w.shape[1])) / 2 for w in (first, last)]
    np.testing.assert_allclose(_cam(kind, chosen), _read(kind, mixed[1] @ mixed[0]), rtol=1e-12)


def test_uniform_attention_gives_a_uniform_map():
    variables = {name: v * (name[0] != "q") for name, v in _variables(Kind(1)).items()}
    explain = jaxcam.explainer(partial(_apply, Kind(1)), "patches", jaxcam.attention_rollout)
    explanation = explain(variables, jnp.asarray(IMAGE, jnp.float32), TARGET)
    # Of two blocks the class token keeps 1/4 for itself, and all tokens share the rest.
    np.testing.assert_allclose(explanation.cam, 0.75 / 10, rtol=1e-6)
    assert jaxcam.why_flat(explanation) == "it has one value everywhere"
    assert explanation.heatmap.max() == 0


def test_of_one_layer_it_is_the_formula():
    one = Kind(1, blocks=1)
    (weights,) = _in_numpy(one, _variables(one), IMAGE).weights
    wanted = weights[:, 0, 1:].mean(axis=0).reshape(GRID) / 2  # the class token's, beside a half
    np.testing.assert_allclose(_cam(one, jaxcam.attention_rollout), wanted, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_maps_scale_as_the_score_or_not_at_all(x64, scale):
    def scaled(logits, target):
        return scale * logits[target]

    def check(kind, method, scale):
        by_score = (
            jaxcam.explainer(partial(_apply, kind), "patches", method, score_fn=score_fn)
            for score_fn in (scaled, jaxcam.logit)
        )
        given = _variables(kind), jnp.asarray(IMAGE), TARGET
        of_scaled, of_logit = (jax.jit(explain)(*given).cam for explain in by_score)
        np.testing.assert_allclose(of_scaled, scale * of_logit, rtol=1e-9)

    one = Kind(1, blocks=1)  # of several layers generic_attention has products of gradients
    check(one, jaxcam.generic_attention, scale)
    check(Kind(1), jaxcam.legrad_final, scale)
    legrad = partial(jaxcam.legrad, blocks=_blocks(Kind(1)))
    check(Kind(1), legrad, scale)
    check(Kind(1), jaxcam.attention_rollout, 1)


# An unmodified network of Flax, whose attention no layer returns ----------------------------------


@pytest.mark.thorough
@of_every_method
def test_the_bundled_transformer_is_explained(name):
    model, canvases = jaxcam.digits_vit(), jaxcam.load_canvases()
    explain = jaxcam.explainer(model.apply_fn, "grid", METHODS[name])
    mapped = jax.jit(jax.vmap(explain, in_axes=(None, 0, 0)))
    images, labels = canvases.images[:4], canvases.labels[:4]
    explanations = mapped(model.variables, images, labels)
    assert explanations.cam.shape == (4, 8, 8)
    assert explanations.heatmap.shape == (4, 64, 64)
    chex.assert_tree_all_finite(explanations)
    assert not explanations.flat.any()
    assert (explanations.cam >= 0).all()
    alone = explain(model.variables, images[0], labels[0])
    np.testing.assert_allclose(explanations.cam[0], alone.cam, rtol=1e-3, atol=1e-6)
    # The layer gives the grid and no more.
    at_tokens = jaxcam.token_grid(model.apply_fn, "block1")
    other = jaxcam.explainer(model.apply_fn, at_tokens, METHODS[name])
    found = jax.jit(other)(model.variables, images[0], labels[0])
    np.testing.assert_allclose(found.cam, alone.cam, rtol=1e-3, atol=1e-6)


@pytest.mark.thorough
@of_every_method
def test_one_trace_serves_all_targets(name):
    model, canvases = jaxcam.digits_vit(), jaxcam.load_canvases()
    chex.clear_trace_counter()
    explain = jaxcam.explainer(model.apply_fn, "grid", METHODS[name])
    once = jax.jit(chex.assert_max_traces(explain, n=1))
    maps = [once(model.variables, canvases.images[0], target).cam for target in (1, 2)]
    assert np.array_equal(*maps) == (name == "attention_rollout")


@pytest.mark.thorough
def test_the_digit_is_found():
    model, canvases = jaxcam.digits_vit(), jaxcam.load_canvases()
    inside = np.stack([box.mask() for box in canvases.boxes])

    def share(name):
        explain = jax.vmap(jaxcam.explainer(model.apply_fn, "grid", METHODS[name]), (None, 0, 0))
        maps = jax.jit(explain)(model.variables, canvases.images, canvases.labels).heatmap
        return float(jax.vmap(jaxcam.energy_inside)(maps, inside).mean())

    assert share("generic_attention") > 2 * inside.mean()
    assert share("attention_rollout") > 2 * inside.mean()  # the attention finds it by itself


def test_the_weights_are_those_of_the_queries_and_keys():
    case = vit(registers=4)
    found = jaxcam.attention_weights(case.apply_fn, case.variables, case.image)
    assert [*found] == [f"block{n}/attention/value:attention" for n in range(2)]
    for n, weights in enumerate(found.values()):
        q, k = (
            jaxcam.split(case.apply_fn, f"block{n}/attention/{part}")(case.variables, case.image)[0]
            for part in ("query", "key")
        )
        wanted = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]))
        np.testing.assert_allclose(weights, wanted, rtol=1e-4, atol=1e-6)


class Tagging(nn.Module):
    """Attention as in Flax, with one head, whose weights are named."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(8, (4, 4), (4, 4), name="patches")(images).reshape(len(images), -1, 8)
        q, k, v = (nn.Dense(8, name=name)(x) for name in ("query", "key", "value"))
        weights = jax.nn.softmax(q @ k.swapaxes(1, 2))
        x = x + jaxcam.tag(weights, "weights") @ v
        return nn.Dense(5)(x.mean(axis=1))


@pytest.mark.thorough
def test_weights_tagged_in_a_module_are_those_that_are_found():
    image = jax.random.normal(jax.random.key(0), (16, 16, 3))
    variables = Tagging().init(jax.random.key(1), image[None])
    apply_fn = jaxcam.from_linen(Tagging())
    (found,) = jaxcam.attention_weights(apply_fn, variables, image).values()
    (split, _) = jaxcam.split(apply_fn, "weights")(variables, image)
    np.testing.assert_array_equal(found, split[None])
    cams = [
        jaxcam.explainer(
            apply_fn, jaxcam.token_grid(apply_fn, "value"), partial(method, layers=layers)
        )(variables, image, 2).cam
        for method in (jaxcam.generic_attention, jaxcam.legrad_final)
        for layers in (None, ["weights"])
    ]
    np.testing.assert_allclose(cams[0], cams[1], rtol=1e-6)
    np.testing.assert_allclose(cams[2], cams[3], rtol=1e-6)
    assert not np.allclose(cams[0], cams[2])


# Where attention is found -------------------------------------------------------------------------


def _in_a_scan(variables, image, wrapped=lambda block: block, **how):
    """Two blocks in a loop."""
    stacked = {part: jnp.stack([variables[f"{part}{n}"] for n in range(2)]) for part in "qkv"}
    patches = image.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(9, 4) @ variables["patches"]
    patches = jaxcam.tag(patches.reshape(3, 3, -1), "patches").reshape(9, -1)
    x = jnp.concatenate([variables["extra"], patches]) + variables["places"]

    @wrapped
    def block(x, of_block):
        q, k, v = (jnp.einsum("td,hde->hte", x, of_block[part]) for part in "qkv")
        weights = jaxcam.tag(jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k)), "weights")
        seen = jnp.einsum("hqk,hke->qhe", weights, v).reshape(x.shape)
        return jaxcam.tag(x + seen, "block"), seen.sum()

    if how.get("unrolled"):
        for n in range(2):
            x, _ = block(x, {part: of_both[n] for part, of_both in stacked.items()})
    else:
        x, _ = jax.lax.scan(block, x, stacked, reverse=how.get("reverse", False))
    return x[0] @ variables["head"]


@pytest.mark.parametrize("wrapped", [jax.jit, jax.checkpoint, lambda block: block])
def test_attention_in_loops_and_calls_is_found(wrapped):
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _variables(Kind(1)))
    image = jnp.asarray(IMAGE, jnp.float32)
    looped, unrolled = partial(_in_a_scan, wrapped=wrapped), partial(_in_a_scan, unrolled=True)
    found = jaxcam.attention_weights(looped, variables, image)
    wanted = jaxcam.attention_weights(unrolled, variables, image)
    assert [*found] == [*wanted] == ["patches:attention", "block:attention"]
    chex.assert_trees_all_close(found, wanted, rtol=1e-5)
    for method in (
        jaxcam.generic_attention,
        partial(jaxcam.generic_attention, layers=["weights"]),  # of both steps
        partial(jaxcam.legrad, blocks=["block"]),
    ):
        cams = [
            jax.jit(jaxcam.explainer(f, "patches", method))(variables, image, 2).cam
            for f in (looped, unrolled)
        ]
        np.testing.assert_allclose(*cams, rtol=1e-4, atol=1e-6)
    one = partial(jaxcam.attention_rollout, layers=["weights[1]"])
    cam = jaxcam.explainer(looped, "patches", one)(variables, image, 2).cam
    rollout = wanted["block:attention"][:, 0, 1:].mean(axis=0).reshape(3, 3) / 2
    np.testing.assert_allclose(cam, rollout, rtol=1e-5)


def test_a_reversed_loop_is_read_in_its_order():
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _variables(Kind(1)))
    image, reverse = jnp.asarray(IMAGE, jnp.float32), partial(_in_a_scan, reverse=True)
    turned = {
        n: variables[n[0] + str(1 - int(n[1]))] if n[1:] in "01" else v
        for n, v in variables.items()
    }
    found = jaxcam.attention_weights(reverse, variables, image)
    wanted = jaxcam.attention_weights(_in_a_scan, turned, image)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5)


def _nnx():
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.patches = nnx.Conv(3, 16, (2, 2), strides=(2, 2), rngs=rngs)
            self.norm = nnx.LayerNorm(16, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(4, 16, rngs=rngs, decode=False)
            self.dense = nnx.Linear(16, CLASSES, rngs=rngs)

        def __call__(self, images):
            x = self.patches(images).reshape(len(images), -1, 16)
            return self.dense((x + self.attention(self.norm(x))).mean(axis=1))

    graphdef, state = nnx.split(Network(nnx.Rngs(0)))
    return jaxcam.from_nnx(graphdef), state


def _equinox():
    pytest.importorskip("equinox")
    import equinox as eqx

    class Network(eqx.Module):
        norm: eqx.nn.LayerNorm
        attention: eqx.nn.MultiheadAttention
        dense: eqx.nn.Linear

        def __call__(self, image):
            x = image.reshape(3, 4, 2, 4, 2).transpose(1, 3, 0, 2, 4).reshape(16, 12)
            y = jax.vmap(self.norm)(x)
            return self.dense((x + self.attention(y, y, y)).mean(axis=0))

    keys = jax.random.split(jax.random.key(0))
    attention = eqx.nn.MultiheadAttention(4, 12, key=keys[0])
    dense = eqx.nn.Linear(12, CLASSES, key=keys[1])
    return jaxcam.from_equinox(Network(eqx.nn.LayerNorm(12), attention, dense))


def _keras():
    keras = pytest.importorskip("keras")

    def apply_fn(variables, image):
        with jax_defaults():
            return strict_fn(variables, image)

    with jax_defaults():
        given = keras.Input((8, 8, 3))
        x = keras.layers.Reshape((16, 16))(keras.layers.Conv2D(16, 2, 2)(given))
        y = keras.layers.LayerNormalization(name="norm")(x)
        x = x + keras.layers.MultiHeadAttention(4, 4)(y, y)
        x = keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling1D()(x))
        strict_fn, variables = jaxcam.from_keras(keras.Model(given, x))
    return apply_fn, variables


def _haiku():
    hk = pytest.importorskip("haiku")

    def network(images):
        x = hk.Conv2D(16, 2, 2)(images).reshape(len(images), -1, 16)
        y = hk.LayerNorm(-1, True, True, name="norm")(x)
        x = x + hk.MultiHeadAttention(4, 4, w_init=hk.initializers.RandomNormal(), model_size=16)(
            y, y, y
        )
        return hk.Linear(CLASSES)(x.mean(axis=1))

    transformed = hk.transform(network)
    params = transformed.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    return jaxcam.from_haiku(transformed), params


@pytest.mark.parametrize("make", rest_is_thorough([_nnx, _equinox, _keras, _haiku]))
def test_attention_of_every_framework_is_found(make):
    apply_fn, variables = make()
    image = jax.random.normal(jax.random.key(0), (8, 8, 3))
    ((name, weights),) = jaxcam.attention_weights(apply_fn, variables, image).items()
    assert name.endswith(":attention")
    assert weights.shape == (4, 16, 16)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    layer = jaxcam.token_grid(apply_fn, "norm")
    explain = jax.jit(jaxcam.explainer(apply_fn, layer, jaxcam.generic_attention))
    explanation = explain(variables, image, 1)
    assert explanation.cam.shape == (4, 4)
    assert not explanation.flat


def _jax_attention(q, k, v):
    return jax.nn.dot_product_attention(*(x.swapaxes(0, 1) for x in (q, k, v))).swapaxes(0, 1)


def _of_one_head(q, k, v):
    weights = jax.nn.softmax(q @ k.T / np.sqrt(q.shape[-1]).astype(q.dtype), axis=-1)
    return weights @ v


def _keys_first(q, k, v):
    scores = jnp.einsum("hke,hqe->khq", k, q) / np.sqrt(q.shape[-1]).astype(q.dtype)
    return jnp.einsum("khq,hke->hqe", jax.nn.softmax(scores, axis=0), v)


def _masked(q, k, v):
    scores = jnp.einsum("hqe,hke->hqk", q, k) / np.sqrt(q.shape[-1]).astype(q.dtype)
    weights = jax.nn.softmax(jnp.where(jnp.ones(scores.shape, bool), scores, -1e9))
    return jnp.einsum("hqk,hke->hqe", weights.astype(jnp.bfloat16), v.astype(jnp.bfloat16))


def _with_values_masked(q, k, v):
    scores = jnp.einsum("hqe,hke->hqk", q, k) / np.sqrt(q.shape[-1]).astype(q.dtype)
    weights = jax.nn.softmax(scores, where=jnp.ones(scores.shape[1:], bool)[None])
    return jnp.einsum("hqk,hke->hqe", weights, v)


ATTENDS = [_jax_attention, jax.vmap(_of_one_head), _keys_first, _masked, _with_values_masked]


@pytest.mark.parametrize("attend", ATTENDS)
def test_attention_is_found_however_it_is_written(attend):
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 9, 4))

    def apply_fn(variables, image):
        return attend(q * image.mean(), k, v).astype(jnp.float32).sum(axis=(0, 1))

    image = jnp.ones((3, 3, 1))
    (weights,) = jaxcam.attention_weights(apply_fn, None, image).values()
    wanted = jax.nn.softmax(jnp.einsum("hqe,hke->hqk", q, k) / 2)
    np.testing.assert_allclose(weights, wanted, rtol=1e-5, atol=1e-7)


def test_weights_that_are_masked_are_seen_so():
    """What a mask takes from them is not seen by the values either."""
    mask = jnp.tril(jnp.ones((9, 9), bool))

    def attend(q, k, v):
        return jnp.where(mask, jax.nn.softmax(q @ k.T), 0) @ v

    _, masked, _ = jaxcam.attention_weights(_in_the_middle(attend), *_of_three()).values()
    assert not masked[0][~mask].any()
    assert (masked[0][mask] > 0).all()


def _of_three():
    """The variables of a chain of three, and an image."""
    blocks, image = jax.random.split(jax.random.key(0))
    return jax.random.normal(blocks, (3, 3, 8, 8)) / 3, jax.random.normal(image, (3, 3, 8))


def _in_the_middle(attend):
    """Three blocks of attention, of which the second attends so."""

    def apply_fn(variables, image):
        x = jaxcam.tag(image, "grid").reshape(9, 8)
        for block, how in zip(variables, (_of_one_head, attend, _of_one_head), strict=True):
            x = x + how(*(x @ weights for weights in block))
            x = x / jnp.sqrt((x**2).mean(-1, keepdims=True))
        return x.mean(0)

    return apply_fn


def _talking_heads(q, k, v):
    q, k, v = (x.reshape(9, 2, 4).swapaxes(0, 1) for x in (q, k, v))
    weights = jax.nn.softmax(q @ k.swapaxes(1, 2))
    mixed = jnp.einsum("hqk,hg->gqk", weights, jnp.array([[0.9, 0.2], [0.1, 0.8]]))
    return (mixed @ v).swapaxes(0, 1).reshape(9, 8)


def _in_a_branch(q, k, v):
    return jax.lax.cond(q.sum() > 0, _of_one_head, lambda q, k, v: v, q, k, v)


def _attends_by_a_sigmoid(q, k, v):
    return jax.nn.sigmoid(q @ k.T) @ v


def _summed_by_hand(q, k, v):
    return (jax.nn.softmax(q @ k.T)[..., None] * v[None]).sum(1)


def _in_a_loop(q, k, v):
    return jax.lax.scan(lambda x, _: (x + _attends_by_a_sigmoid(x, k, x), None), v, None, 2)[0]


def _while_it_is_small(q, k, v):
    small = lambda x: abs(x).sum() < 1e-9  # noqa: E731  # one line
    return jax.lax.while_loop(small, lambda x: _attends_by_a_sigmoid(q, k, x), v)


NOT_FOUND = {
    "cond": _in_a_branch,
    "custom_jvp_call": jax.custom_jvp(_of_one_head),
    "dot_general in a loop": _in_a_loop,
    "dot_general in a while": _while_it_is_small,
    "div": _talking_heads,
    "div before a sum": _summed_by_hand,
    "div before a scale": lambda q, k, v: (0.5 * jax.nn.softmax(q @ k.T)) @ v,
    "div before a bias": lambda q, k, v: (jax.nn.softmax(q @ k.T) + 0.01) @ v,
    "dot_general of exp": lambda q, k, v: jnp.exp(jax.nn.log_softmax(q @ k.T)) @ v,
    "dot_general of a sigmoid": _attends_by_a_sigmoid,
    "dot_general of features": lambda q, k, v: jax.nn.elu(q) @ (jax.nn.elu(k).T @ v),
}
NOT_FOUND["custom_jvp_call"].defjvp(lambda p, t: jax.jvp(_of_one_head, p, t))


@pytest.mark.parametrize("name", NOT_FOUND)
def test_attention_that_is_not_found_is_missed(name):
    """A product over the layers without one of them would be wrong and look right."""
    apply_fn, (variables, image) = _in_the_middle(NOT_FOUND[name]), _of_three()
    assert len(found := jaxcam.attention_weights(apply_fn, variables, image)) == 2
    tap = jaxcam.tap(apply_fn, "grid", variables, image)
    message = rf"not found, in `{name.split()[0]}` test_attention.py:\d+ .*layers=, among"
    for method in (jaxcam.attention_rollout, jaxcam.generic_attention, jaxcam.legrad_final):
        with pytest.raises(ValueError, match=message):
            method(tap)
    assert jaxcam.attention_rollout(tap, layers=[*found]).shape == (3, 3)


def _experts(q, k, v):
    """Each of two experts takes the token that is nearest to it."""
    chosen = jax.nn.one_hot((v @ jnp.ones((8, 2))).argmax(0), 9).T
    taken = jnp.tanh(jnp.einsum("te,td->ed", chosen * jax.nn.sigmoid(v[:, :1]), v) @ jnp.eye(8))
    return jnp.einsum("te,ed->td", chosen, taken)


OTHER_PRODUCTS = {
    "experts that are dispatched to": _experts,
    "a gate": lambda q, k, v: q * jax.nn.sigmoid(k.mean(0, keepdims=True)),
    "each by its own": lambda q, k, v: jnp.einsum("td,td->t", q, k)[:, None] * v,
    "experts": lambda q, k, v: jnp.einsum("te,td->td", jax.nn.softmax(v @ jnp.ones((8, 3))), v),
    "a layer that depends on the image": lambda q, k, v: v @ jnp.diag(jax.nn.relu(k.mean(0))),
    "attention without projections": lambda q, k, v: _of_one_head(v, v, v),
}


@pytest.mark.parametrize("name", OTHER_PRODUCTS)
def test_what_is_no_attention_is_not_missed(name):
    apply_fn, (variables, image) = _in_the_middle(OTHER_PRODUCTS[name]), _of_three()
    tap = jaxcam.tap(apply_fn, "grid", variables, image)
    assert jaxcam.attention_rollout(tap).shape == (3, 3)


def test_low_precision_is_accumulated_in_float32():
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), _variables(Kind(1)))
    for name in ("attention_rollout", "generic_attention", "legrad_final"):
        explain = jaxcam.explainer(partial(_apply, Kind(1)), "patches", METHODS[name])
        cam = jax.jit(explain)(variables, jnp.asarray(IMAGE, jnp.bfloat16), TARGET).cam
        assert cam.dtype == jnp.float32
        assert jnp.isfinite(cam).all()


@pytest.mark.parametrize("name", WANTED)
def test_a_map_can_sit_in_a_loss(name):
    method, _ = WANTED[name](Kind(1))
    explain = jaxcam.explainer(partial(_apply, Kind(1)), "patches", method)
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _variables(Kind(1)))
    image = jnp.asarray(IMAGE, jnp.float32)
    gradients = jax.jit(jax.grad(lambda v: explain(v, image, TARGET).cam.sum()))(variables)
    chex.assert_tree_all_finite(gradients)
    assert max(float(abs(g).max()) for g in jax.tree.leaves(gradients)) > 0


# What is refused ----------------------------------------------------------------------------------


def _refused(message, method, apply_fn=None, layer="patches"):
    explain = jax.jit(jaxcam.explainer(apply_fn or partial(_apply, Kind(1)), layer, method))
    with pytest.raises(ValueError, match=message):
        explain(_variables(Kind(1)), jnp.asarray(IMAGE, jnp.float32), TARGET)


@of_every_method
def test_a_model_without_attention_is_refused(name):
    model = jaxcam.digits_relu()
    explain = jax.jit(jaxcam.explainer(model.apply_fn, "stage3", METHODS[name]))
    with pytest.raises(
        ValueError, match=r"there is no layer 'block1'|shows no attention: no softmax"
    ):
        explain(model.variables, jaxcam.load_canvases().images[0], 1)


def test_unknown_names_are_refused():
    _refused(
        r"there is no attention 'block0:attn'\. Did you mean 'block0:attention'",
        partial(jaxcam.attention_rollout, layers=["block0:attn"]),
    )
    _refused(r"there is no layer 'block7'", partial(jaxcam.legrad, blocks=["block0", "block7"]))


def test_blocks_that_do_not_fit_are_refused():
    model, image = jaxcam.digits_vit(), jaxcam.load_canvases().images[0]
    method = partial(jaxcam.legrad, blocks=["block3", "norm"])
    with pytest.raises(ValueError, match=r"no attention before one of the blocks, or between two"):
        jax.jit(jaxcam.explainer(model.apply_fn, "grid", method))(model.variables, image)

    def apply_fn(variables, image):
        return jaxcam.tag(_apply(Kind(1), variables, image), "logits")

    _refused(
        r"\['block0', 'logits'\] return .* wanted tokens of one shape",
        partial(jaxcam.legrad, blocks=["block0", "logits"]),
        apply_fn,
    )


def test_a_way_around_a_block_is_refused():
    def apply_fn(variables, image):
        patches = jaxcam.tag(image.reshape(9, 4) @ jnp.ones((4, 3)), "patches")
        weights = jax.nn.softmax(patches @ patches.T)
        x = jaxcam.tag(weights @ patches, "block0")
        y = jaxcam.tag(jax.nn.softmax(x @ x.T) @ x + 0.1 * (weights @ x), "block1")
        return y.mean(axis=0)

    image = jnp.asarray(IMAGE, jnp.float32)
    layer = jaxcam.token_grid(apply_fn, "patches", extra=0)
    legrad = partial(jaxcam.legrad, blocks=["block0", "block1"])
    with pytest.raises(
        ValueError, match=r"'patches:attention' not through the tokens of its block"
    ):
        jaxcam.explainer(apply_fn, layer, legrad)(None, image)


def test_tokens_that_are_no_grid_are_refused():
    _refused(
        r"10 tokens, and the layer a grid \[3, 3\] and extra=2; wanted a layer with a position",
        partial(jaxcam.attention_rollout, extra=2),
    )

    def apply_fn(variables, image):
        return _apply(Kind(1), variables, jaxcam.tag(image, "pixels"))

    _refused(r"10 tokens, and the layer a grid \[6, 6\]; ", jaxcam.legrad_final, apply_fn, "pixels")


@pytest.mark.thorough
def _beside(variables, image, order=(0, 1), *, drops=False):
    """Two heads that the program has as two attentions, and one behind them."""
    x = jnp.concatenate([jnp.zeros((1, WIDTH)), image.reshape(-1, 4) @ variables["patches"]])
    x = jaxcam.tag(x, "tokens")

    def attend(x, n, h):
        q, k, v = (x @ variables[f"{part}{n}"][h] for part in "qkv")
        return jax.nn.softmax(q @ k.T) @ v @ variables[f"out{n}"][h]

    heads = {h: attend(x, 0, h) for h in order}
    x = jaxcam.tag(x + (heads[0] if drops else heads[0] + heads[1]), "block0")
    return jaxcam.tag(x + attend(x, 1, 0), "block1")[0] @ variables["head"]


def test_attention_side_by_side_is_no_chain(x64):
    """Heads in a loop are no layers, in any order; those that nothing comes of do not count."""
    image = jnp.asarray(IMAGE)
    variables = {name: jnp.asarray(value) for name, value in _variables(Kind(1)).items()}
    explained = jaxcam.token_grid(_beside, "tokens", extra=1)
    tap = jaxcam.tap(_beside, explained, variables, image, TARGET)
    names = [*jaxcam.attention_weights(_beside, variables, image)]
    assert len(names) == 3
    for method in (jaxcam.attention_rollout, jaxcam.generic_attention, jaxcam.legrad_final):
        with pytest.raises(ValueError, match=r"side by side.*choose them with layers=, among"):
            method(tap)
    with pytest.raises(ValueError, match=r"before one block run side by side"):
        jaxcam.legrad(tap, blocks=["block0", "block1"])
    chosen = jaxcam.attention_rollout(tap, layers=names[1:])
    dropping = partial(_beside, order=(1, 0), drops=True)
    explained = jaxcam.token_grid(dropping, "tokens", extra=1)
    tap = jaxcam.tap(dropping, explained, variables, image, TARGET)
    assert len(jaxcam.attention_weights(dropping, variables, image)) == 2
    assert jaxcam.attention_rollout(tap).shape == chosen.shape == GRID


def test_of_other_keys_than_queries_no_extra_token_is_guessed():
    """A sink comes last, where extra tokens come first."""

    def apply_fn(variables, image):
        x = jaxcam.tag(image.reshape(4, 4, 3), "grid").reshape(16, 3) @ variables
        keys = jnp.concatenate([x, jnp.zeros((1, 3))])
        return (jax.nn.softmax(x @ keys.T) @ keys).mean(0)

    image = jax.random.normal(jax.random.key(0), (4, 4, 3))
    tap = jaxcam.tap(apply_fn, "grid", jnp.eye(3), image)
    with pytest.raises(ValueError, match=r"17 tokens, and the layer a grid \[4, 4\]"):
        jaxcam.legrad_final(tap)


@pytest.mark.parametrize("queries", [10, -11, slice(3, 3)])
def test_queries_beyond_the_tokens_are_refused(queries):
    kind = KINDS[0]
    tap = jaxcam.tap(partial(_apply, kind), "patches", _variables(kind), IMAGE, TARGET)
    with pytest.raises(ValueError, match=r"queries=.* chooses none of 10 tokens"):
        jaxcam.attention_rollout(tap, queries=queries)


def test_attention_in_windows_is_refused():
    case = swin()
    layer = jaxcam.token_grid(case.apply_fn, case.layer)
    message = r"value:attention' \[4, 2, 16, 16\], .* wanted \[heads, tokens, tokens\] of the same"
    for method in (jaxcam.attention_rollout, jaxcam.legrad_final):
        explain = jaxcam.explainer(case.apply_fn, layer, method)
        with pytest.raises(ValueError, match=message):
            explain(case.variables, case.image)


# On the command line ------------------------------------------------------------------------------


def test_the_command_line_explains_by_attention(capsys, tmp_path):
    canvas = _canvas(tmp_path)
    options = ["--model", "jaxcam:digits_vit", "--layer", "grid", "--method", "generic_attention"]
    out = tmp_path / "maps"
    assert cli.main(["explain", str(canvas), *options, "--out", str(out)]) == 0
    (record,) = json.loads((out / "explanations.json").read_text())["images"]
    assert (record["cam_shape"], record["flat"]) == ([8, 8], None)
    relu = ["--layer", "stage3", "--method", "attention_rollout", "--out", str(tmp_path / "relu")]
    assert cli.main(["explain", str(canvas), *relu]) == 2
    assert "shows no attention" in capsys.readouterr().err


def _canvas(folder):
    from PIL import Image

    path = folder / "canvas.png"
    pixels = np.uint8(255 * jaxcam.load_canvases().images[0][..., 0])
    Image.fromarray(pixels).save(path)
    return path


def test_the_methods_are_described(capsys):
    assert cli.main(["methods", "attention_rollout"]) == 0
    assert "2005.00928" in capsys.readouterr().out
    assert cli.main(["methods"]) == 0
    assert "generic_attention" in capsys.readouterr().out
