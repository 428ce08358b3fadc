"""The layer that is explained where none is named."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from token_models import vit

import jaxcam

IMAGE = jax.ShapeDtypeStruct((16, 16, 3), jnp.float32)


class Plain(nn.Module):
    """Convolutions, a pool that leaves one position, and classes."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x))
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="conv2")(x))
        x = nn.Conv(4, (1, 1), name="after")(x.mean((1, 2), keepdims=True))
        return nn.Dense(3, name="classes")(x[:, 0, 0])


class Residual(nn.Module):
    """A shortcut around two convolutions, summed in the block."""

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(3, (3, 3), name="conv1")(x)
        return nn.relu(x + nn.Conv(3, (3, 3), name="conv2")(y))


class Residuals(nn.Module):
    """Blocks, some of which are computed again in the backward pass."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.remat(Residual)(name=f"block{i}")(x)
        return nn.Dense(3, name="classes")(x.mean((1, 2)))


class Unnamed(nn.Module):
    """A shortcut around the last convolution, summed where nothing has a name."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="stem")(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(3)((x + nn.Conv(3, (3, 3), name="last")(x)).mean((1, 2)))


class UNet(nn.Module):
    """Down and up again, with a shortcut; a class for each pixel."""

    @nn.compact
    def __call__(self, x):
        shortcut = nn.Conv(4, (3, 3), name="down")(x)
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="bottom")(shortcut))
        x = nn.ConvTranspose(4, (2, 2), (2, 2), name="up")(x)
        x = nn.relu(nn.Conv(4, (3, 3), name="joined")(jnp.concatenate([x, shortcut], -1)))
        return nn.softmax(nn.Conv(5, (1, 1), name="logits")(x))


class Dense(nn.Module):
    """No layer with positions."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="classes")(x.reshape(len(x), -1))


def _suggested(module, image=IMAGE):
    init = jax.eval_shape(module.init, jax.random.key(0), jax.tree.map(_batch, image))
    return jaxcam.suggest_layer(jaxcam.from_linen(module), init, image)


def _batch(image):
    return jax.ShapeDtypeStruct((1, *image.shape), image.dtype)


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (Plain(), "conv2"),
        (Residuals(), "block1"),
        (Unnamed(), "last"),
        (UNet(), "joined"),
    ],
)
def test_the_last_layer_with_positions_that_no_path_leads_around(module, layer):
    assert _suggested(module) == layer


@pytest.mark.parametrize("shape", [(32, 2), (8, 8, 8, 1)])
def test_signals_and_volumes(shape):
    axes = len(shape) - 1
    module = nn.Sequential(
        [
            nn.Conv(4, (3,) * axes),
            nn.relu,
            nn.Conv(4, (3,) * axes),
            lambda x: x.mean(tuple(range(1, axes + 1))),
            nn.Dense(3),
        ]
    )
    assert _suggested(module, jax.ShapeDtypeStruct(shape, jnp.float32)) == "layers_2"


def test_the_name_is_one_that_the_explainer_takes():
    model, canvases = jaxcam.digits_silu(), jaxcam.load_canvases()
    layer = jaxcam.suggest_layer(model.apply_fn, model.variables, canvases.images[0])
    explanation = jaxcam.explainer(model.apply_fn, layer)(model.variables, canvases.images[0])
    assert (layer, explanation.cam.shape) == ("stage3", (16, 16))


def test_of_tokens_the_layer_is_named_that_token_grid_takes():
    case = vit()
    message = (
        r"tokens \[17, 12\] and no grid of positions; .*jaxcam.token_grid\(apply_fn, 'block0'\)"
    )
    with pytest.raises(ValueError, match=message):
        jaxcam.suggest_layer(case.apply_fn, case.variables, case.image)
    layer = jaxcam.token_grid(case.apply_fn, "block0")
    assert jaxcam.explainer(case.apply_fn, layer)(case.variables, case.image).cam.shape == (4, 4)


def test_a_model_without_positions_is_refused():
    with pytest.raises(ValueError, match="no layer with positions that runs once"):
        _suggested(Dense())
    module: Any = Dense()
    with pytest.raises(ValueError, match="from_linen"):
        jaxcam.suggest_layer(module, {}, IMAGE)


def test_what_runs_twice_or_returns_several_arrays_has_no_name_of_its_own():
    def apply_fn(variables, image):
        x = jaxcam.tag(jnp.tanh(image), "once")
        x = jaxcam.tag(jaxcam.tag(x * 2, "twice") + 1, "twice")
        x, y = jaxcam.tag((x, x + 1), "pair")
        return (x + y).mean((0, 1))

    assert jaxcam.suggest_layer(apply_fn, {}, IMAGE) == "once"


def test_heads_beside_tokens_are_no_positions():
    """Queries `[tokens, heads, K]` have as many axes as a picture, and other proportions."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.relu(nn.Conv(6, (4, 4), (4, 4), name="stem")(x))
            tokens = y.reshape(1, -1, 6)
            attend = nn.MultiHeadDotProductAttention(3, name="attention")
            y = y + attend(tokens).reshape(y.shape)
            return nn.Dense(5, name="head")(y.mean((1, 2)))

    module, image = Net(), jnp.ones((28, 28, 3))
    variables = module.init(jax.random.key(0), image[None])
    assert jaxcam.suggest_layer(jaxcam.from_linen(module), variables, image) == "stem"
