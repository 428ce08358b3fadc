"""A small vision transformer and a small Swin-like model, with random weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from cases import CLASSES, Case

import jaxcam

SIDE, PATCH, WIDTH = 16, 4, 12
GRID = (SIDE // PATCH, SIDE // PATCH)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(y)
        y = nn.LayerNorm(name="norm2")(x)
        return x + nn.Dense(WIDTH, name="out")(nn.gelu(nn.Dense(2 * WIDTH, name="in")(y)))


class ViT(nn.Module):
    """Patches, a class token and registers before them, two blocks, the class token's logits."""

    registers: int = 0

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH), name="patches")(x)
        x = x.reshape(len(x), -1, WIDTH)
        extra = self.param("extra", nn.initializers.normal(1.0), (1 + self.registers, WIDTH))
        x = jnp.concatenate([jnp.broadcast_to(extra, (len(x), *extra.shape)), x], axis=1)
        x = x + self.param("places", nn.initializers.normal(1.0), (x.shape[1], WIDTH))[None]
        for n in range(2):
            x = Block(name=f"block{n}")(x)
        x = nn.LayerNorm(name="norm")(x)
        return nn.Dense(CLASSES, name="head")(x[:, 0])


class Swin(nn.Module):
    """Attention in windows of tokens, tokens merged two by two, the mean token's logits."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (2, 2), (2, 2), name="patches")(x)
        x = _windows(Block(name="block0"), x)
        batch, side = len(x), x.shape[1] // 2
        x = x.reshape(batch, side, 2, side, 2, WIDTH).transpose(0, 1, 3, 2, 4, 5)
        x = nn.Dense(WIDTH, name="merge")(x.reshape(batch, side, side, -1))
        x = _windows(Block(name="block1"), x)
        x = nn.LayerNorm(name="norm")(x.reshape(batch, -1, WIDTH))
        return nn.Dense(CLASSES, name="head")(x.mean(axis=1))


def _windows(block, x):
    """Applies a block within windows of 4 x 4."""
    batch, side = len(x), x.shape[1] // 4
    x = x.reshape(batch, side, 4, side, 4, WIDTH).transpose(0, 1, 3, 2, 4, 5)
    x = block(x.reshape(-1, 16, WIDTH)).reshape(batch, side, side, 4, 4, WIDTH)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 4 * side, 4 * side, WIDTH)


def _case(module: nn.Module, layer: str) -> Case:
    image = jax.random.normal(jax.random.key(1), (SIDE, SIDE, 3))
    variables = jax.jit(module.init)(jax.random.key(0), image[None])
    return Case(jaxcam.from_linen(module), variables, image, layer)


@functools.cache
def vit(registers: int = 0) -> Case:
    """Explained at the first normalisation of its last block."""
    return _case(ViT(registers), "block1/norm1")


@functools.cache
def swin() -> Case:
    """Explained at its last normalisation, whose tokens are all of patches."""
    return _case(Swin(), "norm")
