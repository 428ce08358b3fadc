"""Transformers: tokens laid out as a grid, and the layer from which no gradient comes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import rest_is_thorough
from token_models import GRID, WIDTH, swin, vit

import jaxcam
from jaxcam._src.base import Head


def _split(case, layer=None, **knobs):
    split_fn = jaxcam.token_grid(case.apply_fn, layer or case.layer, **knobs)
    return split_fn(case.variables, case.image)


@pytest.mark.parametrize("registers", rest_is_thorough([4, 0]))
def test_head_of_the_grid_is_the_model(registers):
    case = vit(registers)
    activations, head = _split(case)
    assert activations.shape == (*GRID, WIDTH)
    logits, head = jax.jit(case.apply_fn)(case.variables, case.image), jax.jit(head)
    np.testing.assert_allclose(head(activations), logits, rtol=1e-5, atol=1e-6)
    assert not np.allclose(head(jnp.zeros_like(activations)), logits, rtol=1e-3)


def test_the_grid_holds_the_patches_row_by_row():
    case = vit()
    tokens, _ = jaxcam.split(case.apply_fn, case.layer)(case.variables, case.image)
    activations, _ = _split(case)
    np.testing.assert_array_equal(activations[1, 2], tokens[1 + 4 + 2])


@pytest.mark.parametrize(
    ("case", "method"),
    rest_is_thorough(
        [
            (vit(), jaxcam.grad_cam_plus_plus),
            (vit(4), jaxcam.score_cam),
            (swin(), jaxcam.grad_cam),
            (vit(), jaxcam.layer_cam),
            (vit(4), jaxcam.grad_cam),
            (swin(), jaxcam.score_cam),
        ],
        first=3,
    ),
)
def test_a_transformer_is_explained(case, method):
    layer = jaxcam.token_grid(case.apply_fn, case.layer)
    explain = jax.jit(jax.vmap(jaxcam.explainer(case.apply_fn, layer, method), (None, 0)))
    explanation = explain(case.variables, jnp.stack([case.image, -case.image]))
    assert explanation.heatmap.shape == (2, *case.image.shape[:2])
    assert np.isfinite(explanation.heatmap).all()
    np.testing.assert_allclose(explanation.heatmap.max((1, 2)), 1, atol=1e-6)


def test_the_gradient_is_that_of_the_tokens():
    case = vit()
    layer = jaxcam.token_grid(case.apply_fn, case.layer)

    @jax.jit
    def weighted(image):
        return jaxcam.grad_cam(jaxcam.tap(case.apply_fn, layer, case.variables, image, 2))

    tokens, head = jaxcam.split(case.apply_fn, case.layer)(case.variables, case.image)
    wanted = jax.jit(jax.grad(lambda tokens: head(tokens)[2]))(tokens)[1:].mean(0)
    np.testing.assert_allclose(weighted(case.image)[0, 0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["block1", "block1/norm2", "norm"])
def test_a_layer_behind_the_last_attention_is_refused(layer):
    explain = jaxcam.explainer(vit().apply_fn, jaxcam.token_grid(vit().apply_fn, layer))
    with pytest.raises(ValueError, match=rf"layer '{layer}' cannot reach .* before the last"):
        jax.jit(explain)(vit().variables, vit().image)


def test_a_layer_of_tokens_in_place_of_a_grid_is_told_of_it():
    case = vit()
    message = r"\[17, 12\] for an image .*jaxcam.token_grid\(apply_fn, 'block0'\) as the layer;"
    with pytest.raises(ValueError, match=message):
        jaxcam.explainer(case.apply_fn, "block0")(case.variables, case.image)


def test_a_layer_without_tokens_is_refused():
    with pytest.raises(ValueError, match=r"returns \[4, 4, 12\]; wanted tokens \[tokens, K\]"):
        _split(vit(), "patches")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"extra": 2},
            r"extra=2, but the program shows 1 tokens before those of the patches \(4, 4\); leave",
        ),
        ({"grid": (2, 3)}, r"no grid fits extra=None, grid=\(2, 3\)"),
        ({"extra": 1, "grid": (2, 8)}, None),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(knobs, message):
    if message is None:
        assert _split(vit(), **knobs)[0].shape == (2, 8, WIDTH)
        return
    with pytest.raises(ValueError, match=message):
        _split(vit(), **knobs)


def _tokens_in_another_order(x):
    """4 x 2 patches of 4 x 4 pixels, column by column, from the last row on."""
    patches = x.reshape(4, 4, 2, 4, 3).transpose(0, 2, 1, 3, 4).reshape(4, 2, 48)
    return patches[::-1].transpose(1, 0, 2).reshape(8, 48)


@pytest.mark.parametrize("extra", [0, 1])
def test_tokens_in_the_order_that_the_program_shows(extra):
    def apply_fn(variables, x):
        tokens = jnp.concatenate([jnp.zeros((extra, 48)), _tokens_in_another_order(x)])
        tokens = jaxcam.tag(jnp.tanh(tokens), "tokens")
        return jnp.sin(tokens * jnp.arange(1.0, len(tokens) + 1)[:, None]).mean(0) @ variables

    image = jnp.zeros((16, 8, 3)).at[1, 6].set(9.0)  # in the patch of the first row, on the right
    variables = jnp.ones((48, 2))
    for given in (image, image[::-1], image[:, ::-1]):
        activations, head = jaxcam.token_grid(apply_fn, "tokens")(variables, given)
        pooled = given.reshape(4, 4, 2, 4, 3).sum((1, 3, 4))
        assert np.argmax(activations.sum(-1)) == np.argmax(pooled)
        np.testing.assert_allclose(head(activations), apply_fn(variables, given), rtol=1e-5)


def _parted(tokens, order):
    """8 x 8 tokens, each side in 2 parts of 4, the axes of which are then put in this order."""
    return tokens.reshape(2, 4, 2, 4, -1).transpose(*order, 4).reshape(64, -1)


def _in_windows(tokens):
    windows = tokens.reshape(2, 4, 2, 4, -1).transpose(0, 2, 1, 3, 4).reshape(4, 16, -1)
    return jax.nn.softmax(windows @ windows.transpose(0, 2, 1)) @ windows


def _step(tokens):
    def step(n, done):
        part = jax.lax.dynamic_slice_in_dim(tokens, 16 * n, 16)
        return jax.lax.dynamic_update_slice_in_dim(done, jnp.sin(part), 16 * n, axis=0)

    return step


SHUFFLED = np.random.default_rng(0).permutation(64)
OTHERWISE = {
    "windows": lambda tokens: _parted(tokens, (0, 2, 1, 3)),
    "attention in windows": lambda tokens: _in_windows(tokens).reshape(64, -1),
    "every second one": lambda tokens: _parted(tokens, (1, 3, 0, 2)),
    "halves of rows": lambda tokens: _parted(tokens, (2, 0, 1, 3)),
    "shuffled": lambda tokens: tokens[SHUFFLED],
    "behind a class token": lambda tokens: jnp.concatenate([jnp.ones((1, 5)), tokens[SHUFFLED]]),
    "a class token in the middle": lambda tokens: jnp.concatenate(
        [tokens[:32], jnp.ones((1, 5)), tokens[32:]]
    ),
    "a token behind every row": lambda tokens: jnp.concatenate(
        [tokens.reshape(8, 8, -1), jnp.ones((8, 1, 5))], axis=1
    ).reshape(72, -1),
    "the upper half": lambda tokens: tokens[:32],
    "a quarter": lambda tokens: tokens[SHUFFLED[:16]],
}
IN_ORDER = {
    "stripes": lambda tokens: jnp.sin(tokens.reshape(2, 4, 8, -1)).reshape(64, -1),
    "back from windows": lambda tokens: _parted(_parted(tokens, (0, 2, 1, 3)), (0, 2, 1, 3)),
    "back from attention in windows": lambda tokens: (
        _in_windows(tokens).reshape(2, 2, 4, 4, -1).transpose(0, 2, 1, 3, 4).reshape(64, -1)
    ),
    "chunks": lambda tokens: jnp.sin(tokens.reshape(4, 16, -1)).reshape(64, -1),
    "mapped chunks": lambda tokens: jax.lax.map(jnp.sin, tokens.reshape(4, 16, -1)).reshape(64, -1),
    "written chunks": lambda tokens: (
        jnp.zeros((64, 5)).at[:32].set(jnp.sin(tokens[:32])).at[32:].set(tokens[32:])
    ),
    "back from columns in windows": lambda tokens: (
        jnp.sin(tokens.reshape(8, 4, 2, -1).transpose(1, 0, 2, 3).reshape(4, 16, -1))
        .reshape(4, 8, 2, -1)
        .transpose(1, 0, 2, 3)
        .reshape(64, -1)
    ),
    "back from halves": lambda tokens: jnp.concatenate([tokens[:32], tokens[32:]]),
    "back from steps": lambda tokens: jax.lax.fori_loop(0, 4, _step(tokens), jnp.zeros((64, 5))),
    "back from an order": lambda tokens: tokens[SHUFFLED][np.argsort(SHUFFLED)],
    "windows beside": lambda tokens: tokens + _parted(jnp.sin(tokens), (0, 2, 1, 3)),
}


def _layer_of_tokens(layer_fn):
    def apply_fn(variables, x):
        tokens = x.reshape(8, 2, 8, 2, 3).transpose(0, 2, 1, 3, 4).reshape(64, 12)
        return jaxcam.tag(layer_fn(jnp.tanh(tokens @ variables)), "tokens").mean(0)

    return apply_fn, jnp.linspace(-1, 1, 12 * 5).reshape(12, 5)


@pytest.mark.parametrize("name", OTHERWISE)
def test_tokens_in_another_order_are_refused(name):
    apply_fn, variables = _layer_of_tokens(OTHERWISE[name])
    split_fn = jaxcam.token_grid(apply_fn, "tokens")
    with pytest.raises(ValueError, match="positions the program does not keep row by row"):
        split_fn(variables, jnp.ones((16, 16, 3)))


def test_a_grid_that_is_given_is_taken_of_tokens_in_another_order():
    apply_fn, variables = _layer_of_tokens(OTHERWISE["shuffled"])
    on_grid = jaxcam.token_grid(apply_fn, "tokens", grid=(8, 8))
    explanation = jaxcam.explainer(apply_fn, on_grid)(variables, jnp.ones((16, 16, 3)), 1)
    assert explanation.cam.shape == (8, 8)


@pytest.mark.parametrize("name", IN_ORDER)
def test_tokens_that_are_in_order_again_are_taken(name):
    apply_fn, variables = _layer_of_tokens(IN_ORDER[name])
    image = jax.random.uniform(jax.random.key(0), (16, 16, 3))
    tokens, shown = jaxcam.split(apply_fn, "tokens")(variables, image)
    activations, head = jaxcam.token_grid(apply_fn, "tokens")(variables, image)
    np.testing.assert_array_equal(activations, tokens.reshape(8, 8, -1))
    np.testing.assert_allclose(head(activations), apply_fn(variables, image), rtol=1e-5)
    assert isinstance(shown, Head)
    assert shown.tokens == (((0, 8), (1, 8)) if name in ("stripes", "windows beside") else None)


CLASS = jnp.zeros((1, 4))
ORDERS = {
    "chosen": lambda tokens: tokens[jnp.arange(16)[::-1]],
    "sorted": lambda tokens: jnp.sort(tokens, axis=0),
    "without the last": lambda tokens: jnp.concatenate([CLASS, tokens])[:-1],
}


@pytest.mark.parametrize("name", ORDERS)
def test_no_order_is_shown_of_tokens_that_are_not_those_of_the_patches(name):
    def apply_fn(variables, x):
        patches = x.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(16, 4)
        return jaxcam.tag(ORDERS[name](patches) * variables, "tokens").mean(0)

    _, head = jaxcam.split(apply_fn, "tokens")(jnp.ones(()), jnp.ones((8, 8, 1)))
    assert isinstance(head, Head)
    assert head.tokens is None


def test_tokens_behind_their_channels():
    def apply_fn(variables, x):
        return jaxcam.tag((x.reshape(32, 3) @ variables).T, "tokens").mean(1)

    image = jnp.zeros((8, 4, 3)).at[5, 2].set(1.0)
    activations, _ = jaxcam.token_grid(apply_fn, "tokens")(jnp.ones((3, 40)), image)
    assert activations.shape == (8, 4, 40)
    assert activations[5, 2].min() == 3


def test_positions_joined_in_one_of_several_axes_are_refused():
    def apply_fn(variables, x):
        heads = jaxcam.tag(x.reshape(-1, 3)[..., None] * variables[None, None], "heads")
        return heads.mean((0, 1))

    explain = jaxcam.explainer(apply_fn, "heads")
    with pytest.raises(ValueError, match=r"\[128, 3, 2\], where one axis holds rows and columns"):
        explain(jnp.ones(2), jnp.ones((16, 8, 3)), 0)


def test_an_ambiguous_layout_is_refused():
    def apply_fn(variables, x):
        return jaxcam.tag(jnp.eye(4) @ x.reshape(-1, 3)[:4], "tokens").mean(0)

    image = jnp.ones((2, 2, 3))
    split_fn = jaxcam.token_grid(apply_fn, "tokens")
    with pytest.raises(ValueError, match=r"several .* extra=0 with grid=\(2, 2\), extra=3 with"):
        split_fn(None, image)
    assert jaxcam.token_grid(apply_fn, "tokens", extra=0)(None, image)[0].shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("tokens", "size", "message"),
    [
        (1568, (16, 224, 224), r"patches are seldom cubes, so give the grid"),
        (41, (1000,), r"extra=1 with grid=\(40,\), extra=0 with grid=\(41,\)"),  # 24 at a time
    ],
)
def test_a_layout_that_could_be_another_is_refused(tokens, size, message):
    def apply_fn(variables, x):
        return jaxcam.tag(jnp.eye(tokens, x.size // 3) @ x.reshape(-1, 3), "tokens").mean(0)

    def cut(x):
        return jaxcam.token_grid(apply_fn, "tokens")(None, x)[0]

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(cut, jax.ShapeDtypeStruct((*size, 3), jnp.float32))
