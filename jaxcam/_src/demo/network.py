"""The bundled networks; of two of them the blocks, a global average pool and a dense layer."""

from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxcam._src.demo.transformer import DigitViT


class Block(nn.Module):
    """A residual block: two 3x3 convolutions beside a shortcut."""

    features: int
    stride: int
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        strides = (self.stride, self.stride)
        y = nn.Conv(self.features, (3, 3), strides, use_bias=False, name="conv1")(x)
        y = self.activation(nn.BatchNorm(not train, name="norm1")(y))
        y = nn.Conv(self.features, (3, 3), use_bias=False, name="conv2")(y)
        y = nn.BatchNorm(not train, name="norm2")(y)
        if x.shape != y.shape:
            x = nn.Conv(self.features, (1, 1), strides, use_bias=False, name="shortcut")(x)
        return self.activation(x + y)


class DigitNet(nn.Module):
    """Tells which digit is whole on a 64x64 canvas.

    With `nn.relu` everything after the last block is piecewise linear; with `nn.silu` the
    blocks are smooth, so that exact and closed-form Grad-CAM++ differ inside them.
    """

    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, images: Float[Array, "n 64 64 1"], *, train: bool) -> Float[Array, "n 10"]:
        """Returns the logits of the ten digits."""
        x = nn.Conv(16, (3, 3), (2, 2), use_bias=False, name="stem")(images)
        x = self.activation(nn.BatchNorm(not train, name="stem_norm")(x))
        x = Block(16, 2, self.activation, name="stage1")(x, train=train)
        x = Block(32, 1, self.activation, name="stage2")(x, train=train)
        x = Block(64, 1, self.activation, name="stage3")(x, train=train)
        return nn.Dense(10, name="classifier")(x.mean(axis=(1, 2)))


MODULES = {"relu": DigitNet(nn.relu), "silu": DigitNet(nn.silu), "vit": DigitViT()}
