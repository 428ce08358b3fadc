"""The networks of the golden files in JAX; golden/networks.py says what they are."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

import jaxcam

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def apply_fn_of(network: str) -> Callable[..., jax.Array]:
    """`(weights, image) -> logits`."""
    pooled = network == "pooled"
    activation = jax.nn.relu if pooled else jax.nn.silu

    def conv(x, kernel, bias, stride):
        numbers, padding = ("NHWC", "HWIO", "NHWC"), [(1, 1), (1, 1)]
        x = jax.lax.conv_general_dilated(
            x[None], kernel, (stride, stride), padding, dimension_numbers=numbers
        )
        return x[0] + bias[None, None]

    def apply_fn(w, x):
        x = jaxcam.tag(activation(conv(x, w["conv1"], w["bias1"], 2)), "layer1")
        if not pooled:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")
        x = jaxcam.tag(activation(conv(x, w["conv2"], w["bias2"], 1)), "layer2")
        x = x.mean((0, 1)) if pooled else x.reshape(-1)
        return x @ w["kernel"] + w["bias"]

    return apply_fn
