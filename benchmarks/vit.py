"""ViT-B/16 (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929) at 224 pixels, in Flax."""

import flax.linen as nn
import jax.numpy as jnp

import jaxcam

SIDE, PATCH, WIDTH, HIDDEN, HEADS, BLOCKS, CLASSES = 224, 16, 768, 3072, 12, 12, 1000


class Block(nn.Module):
    """Attention and a dense network, each behind a normalisation and around it a shortcut."""

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.LayerNorm(name="norm1")(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=HEADS, name="attention")(y)
        y = nn.LayerNorm(name="norm2")(x)
        return x + nn.Dense(WIDTH, name="out")(nn.gelu(nn.Dense(HIDDEN, name="in")(y))), None


class ViT(nn.Module):
    """Patches and a class token, whose logits are the answer."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(WIDTH, (PATCH, PATCH), (PATCH, PATCH), name="patches")(images)
        x = x.reshape(len(x), -1, WIDTH)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, WIDTH))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, WIDTH)), x], axis=1)
        x = x + self.param("places", nn.initializers.normal(0.02), (1, x.shape[1], WIDTH))
        # One loop, whose body is compiled once, and the last two, to be explained.
        along = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        x, _ = nn.scan(Block, **along, length=BLOCKS - 2)(name="blocks")(x, None)
        for i in (BLOCKS - 2, BLOCKS - 1):
            x, _ = Block(name=f"block{i}")(x)
        return nn.Dense(CLASSES, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])


apply_fn = jaxcam.from_linen(ViT())
