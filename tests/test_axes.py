"""Layers whose axes hold no positions of the image, and those that a program only seems to lose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam

SIZE, WIDTH = (16, 16, 3), 8
SIGNAL = (24, 6)


def _weights(*shape):
    return jnp.linspace(-1, 1, num=int(jnp.prod(jnp.array(shape)))).reshape(shape)


VARIABLES = {
    "time": _weights(24, 5),
    "same": _weights(24, 24),
    "rows": _weights(16, 7),
    "patch": _weights(4, 4, 3, WIDTH),
    "queries": _weights(16, WIDTH),
    "tokens": _weights(16, 9),
    "grid": _weights(WIDTH, 49 * 4),
    "places": _weights(7, 7, WIDTH),
    "mix": _weights(6, WIDTH),
    "start": _weights(1, 6),
    "decoder": _weights(WIDTH, 4, 7, 7),
    "loop": _weights(2, 12, 12),
}


def _patches(v, x):
    """A convolution of 4 x 4 patches: [4, 4, WIDTH]."""
    patches = x.reshape(4, 4, 4, 4, 3).transpose(0, 2, 1, 3, 4).reshape(4, 4, 48)
    return jnp.tanh(patches @ v["patch"].reshape(48, WIDTH))


def _normed(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1)


def _asked(v, x):
    """What learned queries take from the patches, with a residual and a norm, as a decoder does."""
    tokens = _patches(v, x).reshape(16, WIDTH)
    weights = jax.nn.softmax(v["queries"] @ tokens.T)
    return _normed(v["queries"] + weights @ tokens)


POSITIONLESS = {
    "time by weights": (SIGNAL, lambda v, x: x.T @ v["time"]),
    "as many times by weights": (SIGNAL, lambda v, x: jnp.tanh(v["same"] @ x) @ v["mix"]),
    "rows by weights": (SIZE, lambda v, x: jnp.einsum("hwc,hk->wkc", x, v["rows"])),
    "rows by weights, filtered": (
        SIZE,
        lambda v, x: jax.lax.conv_general_dilated(
            jnp.einsum("hwc,hk->kwc", x, v["rows"])[None],
            v["patch"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0],
    ),
}
OF_NO_TOKENS = {
    "queries": _asked,
    "weights of tokens": lambda v, x: _patches(v, x).reshape(16, WIDTH).T @ v["tokens"],
}
POSITIONS = {
    "gated": (SIGNAL, lambda v, x: x * (v["same"] @ x)),
    "a residual": (SIGNAL, lambda v, x: x + v["same"] @ x),
    "a mean of all before": (SIGNAL, lambda v, x: jnp.tril(jnp.ones((24, 24))) @ x @ v["mix"]),
    "a grid of a vector": (
        SIZE,
        lambda v, x: (_patches(v, x).mean((0, 1)) @ v["grid"]).reshape(7, 7, 4),
    ),
    "a vector at each place": (
        SIZE,
        lambda v, x: jnp.broadcast_to(_patches(v, x).mean((0, 1)), (7, 7, WIDTH)) + v["places"],
    ),
    "a decoder's first grid": (
        SIZE,
        lambda v, x: jnp.einsum("c,cdhw->hwd", _patches(v, x).mean((0, 1)), v["decoder"]),
    ),
    "layers in a loop": (
        SIGNAL,
        lambda v, x: jax.lax.scan(
            lambda h, w: (jnp.tanh(h @ w), None), x.reshape(12, 2, 2, 3).reshape(12, 12), v["loop"]
        )[0],
    ),
    "a signal that is shifted": (SIGNAL, lambda v, x: jnp.concatenate([v["start"], x[:-1]])),
    "a border on one side, pooled": (
        SIGNAL,
        lambda v, x: jnp.concatenate([v["start"], x[1:], v["start"]])[:24].reshape(12, 2, 6).max(1),
    ),
    "a gate": (SIZE, lambda v, x: _patches(v, x) * _patches(v, x).mean((0, 1), keepdims=True)),
    "a loop over times": (
        SIGNAL,
        lambda v, x: jax.lax.scan(
            lambda h, t: (h, h + x[t] @ v["mix"]), jnp.ones(8), jnp.arange(24)
        )[1],
    ),
}


def _model(layer_fn):
    return lambda v, x: jnp.atleast_1d(jnp.sin(jaxcam.tag(layer_fn(v, x), "layer")).sum())


@pytest.mark.parametrize("name", POSITIONLESS)
def test_axes_that_weights_made_of_positions_are_warned_of(name):
    size, layer_fn = POSITIONLESS[name]
    model = _model(layer_fn)
    with pytest.warns(jaxcam.ModelWarning, match=r"'layer' returns .* weights made an axis where"):
        jaxcam.explainer(model, "layer")(VARIABLES, jnp.ones(size))
    with pytest.raises(ValueError, match="no layer with positions"):
        jaxcam.suggest_layer(model, VARIABLES, jnp.ones(size))


@pytest.mark.parametrize("name", OF_NO_TOKENS)
def test_tokens_that_weights_made_have_a_grid_only_if_it_is_given(name):
    model = _model(OF_NO_TOKENS[name])
    with pytest.raises(ValueError, match=r"weights made of others, .* or give grid= if"):
        jaxcam.token_grid(model, "layer")(VARIABLES, jnp.ones(SIZE))
    given = jaxcam.token_grid(model, "layer", grid=(2, 4), extra=8 if name == "queries" else 0)
    assert given(VARIABLES, jnp.ones(SIZE))[0].shape[:2] == (2, 4)


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_that_are_kept_or_learned_are_taken(name):
    size, layer_fn = POSITIONS[name]
    model = _model(layer_fn)
    explained = jax.eval_shape(jaxcam.explainer(model, "layer"), VARIABLES, jnp.ones(size))
    assert explained.cam.shape == layer_fn(VARIABLES, jnp.ones(size)).shape[:-1]
    assert jaxcam.suggest_layer(model, VARIABLES, jnp.ones(size)) == "layer"


def _with_class_token(v, x):
    return jnp.concatenate([jnp.zeros((1, WIDTH)), x @ v["mix"]])


def test_a_signal_behind_a_class_token_is_refused_without_a_grid():
    model = _model(_with_class_token)
    message = r"returns \[25, 8\], 24 positions and others.*token_grid\(apply_fn, 'layer'\)"
    with pytest.raises(ValueError, match=message):
        jaxcam.explainer(model, "layer")(VARIABLES, jnp.ones(SIGNAL))
    with pytest.raises(ValueError, match=r"token_grid\(apply_fn, 'layer'\)"):
        jaxcam.suggest_layer(model, VARIABLES, jnp.ones(SIGNAL))
    activations, _ = jaxcam.token_grid(model, "layer")(VARIABLES, jnp.ones(SIGNAL))
    assert activations.shape == (24, WIDTH)


def test_tokens_before_and_behind_those_of_the_patches_are_no_part_of_the_grid():
    def layer_fn(v, x):
        tokens = _patches(v, x).reshape(16, WIDTH)
        return jnp.concatenate([jnp.concatenate([v["mix"][:2], tokens]), v["mix"][2:]])

    model, image = _model(layer_fn), jax.random.normal(jax.random.key(0), SIZE)
    for extra, grid in ((None, None), (None, (4, 4)), (2, None)):
        split_fn = jaxcam.token_grid(model, "layer", extra=extra, grid=grid)
        activations, head = split_fn(VARIABLES, image)
        np.testing.assert_allclose(activations, _patches(VARIABLES, image), rtol=1e-5)
    wanted = jnp.sin(layer_fn(VARIABLES, image)).sum()
    np.testing.assert_allclose(head(activations), wanted[None], rtol=1e-5)


def _before(tokens):
    return jnp.concatenate([jnp.ones((2, WIDTH)), tokens])


MOVED = {
    "padded behind": lambda tokens: jnp.pad(_before(tokens), ((0, 6), (0, 0))),
    "without the first, others behind": lambda tokens: jnp.concatenate(
        [_before(tokens)[2:], jnp.ones((4, WIDTH))]
    ),
    "without one of the first": lambda tokens: _before(tokens)[1:],
    "the first moved behind": lambda tokens: jnp.concatenate(
        [_before(tokens)[2:], _before(tokens)[:2]]
    ),
    "backwards": lambda tokens: _before(tokens)[::-1],
}


@pytest.mark.parametrize("name", MOVED)
def test_the_patches_are_found_among_tokens_that_move(name):
    model = _model(lambda v, x: MOVED[name](_patches(v, x).reshape(16, WIDTH)))
    image = jax.random.normal(jax.random.key(0), SIZE)
    activations, head = jaxcam.token_grid(model, "layer")(VARIABLES, image)
    np.testing.assert_allclose(activations, _patches(VARIABLES, image), rtol=1e-5)
    np.testing.assert_allclose(head(activations), model(VARIABLES, image), rtol=1e-5)


def test_one_position_that_is_added_to_all_proves_nothing():
    model = _model(lambda v, x: v["same"] @ x + x[-1:])
    with pytest.warns(jaxcam.ModelWarning, match="weights made an axis"):
        jaxcam.explainer(model, "layer")(VARIABLES, jnp.ones(SIGNAL))


def test_heads_of_queries_that_are_joined_are_not_turned():
    def layer_fn(v, x):
        weights = jax.nn.softmax(jnp.einsum("qhd,th->hqt", v["heads"], x[:, :2]))
        return jnp.einsum("hqt,td->qhd", weights, x).reshape(16, -1)

    variables = {**VARIABLES, "heads": _weights(16, 2, 3)}
    with pytest.warns(jaxcam.ModelWarning, match="weights made an axis"):
        explanation = jaxcam.explainer(_model(layer_fn), "layer")(variables, jnp.ones(SIGNAL))
    assert explanation.cam.shape == (16,)


def test_a_layer_of_positions_alone_is_listed():
    def layer_fn(v, x):
        return jnp.tanh(x[..., 0])

    model = _model(layer_fn)
    (layer,) = jaxcam.layers(model, VARIABLES, jnp.ones((4, 6, 8, 1)))
    assert layer.shape == (4, 6, 8)
    with pytest.raises(ValueError, match="wanted as many spatial axes in both"):
        jaxcam.explainer(model, "layer")(VARIABLES, jnp.ones((4, 6, 8, 1)))


def test_columns_alone_are_tokens_of_a_grid_that_is_given():
    model = _model(lambda v, x: x.transpose(1, 0, 2).reshape(16, 48))
    with pytest.raises(
        ValueError,
        match=r"along axis 1 of the image \[16, 16\] alone, .* grid=\(1, 16\)",
    ):
        jaxcam.token_grid(model, "layer")(VARIABLES, jnp.ones(SIZE))
    layer = jaxcam.token_grid(model, "layer", grid=(1, 16))
    image = jnp.zeros(SIZE).at[:, 5].set(1.0)
    explanation = jaxcam.explainer(model, layer, jaxcam.hires_cam)(VARIABLES, image)
    assert explanation.cam.shape == (1, 16)
    assert explanation.cam[0].argmax() == 5


def _filtered(x):
    """Averages of 2 x 2 pixels, so that something is made of what was cut out."""
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, 3).mean((1, 3))


CROPS = {
    "the centre": lambda x: _filtered(x[4:12, 4:12]),
    "the centre, after scaling": lambda x: _filtered(((x - 0.5) / 2)[4:12, 4:12]),
    "from a number": lambda x: _filtered(jax.lax.dynamic_slice(x, (4, 4, 0), (8, 8, 3))),
    "one half": lambda x: _filtered(x[:, :8]),
}
WHOLE = {
    "a channel": lambda x: x[..., :1] * _filtered(x).mean(),
    "every second pixel": lambda x: x[::2, ::2] + x[1::2, 1::2],
    "all but a rest": lambda x: x[:15, 1:],
    "one half and the other": lambda x: _filtered(x[:, :8]) + _filtered(x[:, 8:]),
    "row by row": lambda x: jnp.stack([jnp.tanh(row) for row in x]),
    "two halves by a reshape": lambda x: jnp.tanh(x.reshape(2, 8, 16, 3)).sum(0),
    "two halves of every second row": lambda x: x[::2][:4] + x[::2][4:],
    "less its last row": lambda x: x - x[-1:],
    "rolled": lambda x: jnp.roll(x, 5, axis=0),
    "a part beside the whole": lambda x: x[4:12, 4:12] + jax.image.resize(x, (8, 8, 3), "linear"),
    "a part of what was filtered": lambda x: jnp.repeat(_filtered(x), 4, axis=0)[8:24],
}


@pytest.mark.parametrize("name", CROPS)
def test_a_model_that_looks_at_a_part_is_refused(name):
    model = _model(lambda v, x: CROPS[name](x))
    with pytest.raises(ValueError, match=r"sees the image .* from \d to \d+ along axis [01] alone"):
        jaxcam.explainer(model, "layer")(VARIABLES, jnp.ones(SIZE))


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_that_looks_at_the_whole_is_taken(name):
    model = _model(lambda v, x: WHOLE[name](x))
    explained = jax.eval_shape(jaxcam.explainer(model, "layer"), VARIABLES, jnp.ones(SIZE))
    assert explained.heatmap.shape == SIZE[:2]
