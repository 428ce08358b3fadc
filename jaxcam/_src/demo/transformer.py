"""The bundled vision transformer: tokens of 8 x 8 pixels, a class token, three blocks."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

_WIDTH, _HEADS, _BLOCKS = 48, 4, 3


class Stem(nn.Module):
    """Makes a token of every 8 x 8 pixels, by three convolutions of stride 2.

    They train in fewer steps than one convolution of 8 x 8 pixels (Xiao et al. 2021,
    https://arxiv.org/abs/2106.14881).
    """

    @nn.compact
    def __call__(self, images: Float[Array, "n 64 64 1"]) -> Float[Array, "n 8 8 K"]:
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), strides=(2, 2))
        gained = functools.partial(conv, kernel_init=nn.initializers.he_normal())
        x = nn.gelu(gained(_WIDTH // 4, name="conv1")(images))
        x = nn.gelu(gained(_WIDTH // 2, name="conv2")(x))
        return conv(_WIDTH, name="conv3")(x)


class TransformerBlock(nn.Module):
    """Attention, then a perceptron, each behind its LayerNorm and beside a shortcut."""

    @nn.compact
    def __call__(self, x: Float[Array, "n tokens K"]) -> Float[Array, "n tokens K"]:
        y = nn.LayerNorm(name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(_HEADS, name="attention")(y)
        y = nn.Dense(2 * x.shape[-1], name="in")(nn.LayerNorm(name="norm2")(x))
        return x + nn.Dense(x.shape[-1], name="out")(nn.gelu(y))


class Grid(nn.Module):
    """Names the patches' tokens, laid out as a grid: a layer that maps are made of by its name."""

    @nn.compact
    def __call__(self, x: Float[Array, "n patches K"]) -> Float[Array, "n side side K"]:
        side = math.isqrt(x.shape[1])
        return x.reshape(len(x), side, side, -1)


class DigitViT(nn.Module):
    """Tells which digit is whole on a 64x64 canvas, by its class token.

    A small ViT (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929) without dropout, so
    that it does the same in training. Its places are learned, from waves on. What enters the last
    block is the layer "grid", as `jaxcam.token_grid` makes it of "block2".
    """

    @nn.compact
    def __call__(self, images: Float[Array, "n 64 64 1"], *, train: bool) -> Float[Array, "n 10"]:
        """Returns the logits of the ten digits; `train` is for the signature of the others."""
        x = Stem(name="stem")(images).reshape(len(images), -1, _WIDTH)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, _WIDTH))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, _WIDTH)), x], axis=1)
        x = x + self.param("places", _waves, (1, x.shape[1], _WIDTH))
        for number in range(1, _BLOCKS):
            x = TransformerBlock(name=f"block{number}")(x)
        patches = Grid(name="grid")(x[:, 1:]).reshape(x[:, 1:].shape)
        x = jnp.concatenate([x[:, :1], patches], axis=1)
        x = TransformerBlock(name=f"block{_BLOCKS}")(x)
        return nn.Dense(10, name="classifier")(nn.LayerNorm(name="norm")(x)[:, 0])


def _waves(key: Array, shape: tuple[int, int, int]) -> Float[Array, "1 tokens K"]:
    """Sines and cosines of rows and columns; 0 for the class token.

    Places that begin as noise take longer to train (Beyer et al. 2022,
    https://arxiv.org/abs/2205.01580).
    """
    _, tokens, width = shape
    side, rates = math.isqrt(tokens - 1), 0.01 ** jnp.linspace(0, 1, width // 4)[None, None]
    places = jnp.indices((side, side)).reshape(2, -1, 1).astype(rates.dtype)
    rows, columns = places * rates  # in radians
    waves = [f(angles) for angles in (rows, columns) for f in (jnp.sin, jnp.cos)]
    return jnp.pad(jnp.concatenate(waves, axis=-1), ((1, 0), (0, 0)))[None]
