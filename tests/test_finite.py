"""Finite derivatives where nothing is left to explain, so that no image spoils its batch."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ONE_OF_EACH
from tiers import rest_is_thorough, thorough_but

import jaxcam
from jaxcam._src import cli, methods

FEW = {"samples": 2, "steps": 2}
CHANNELS = {"wide": (20, 3), "narrow": (3, 5)}  # more channels than positions, and fewer


def _quick(method):
    knobs = FEW.keys() & inspect.signature(method).parameters.keys()
    return methods.seeded(functools.partial(method, **{name: FEW[name] for name in knobs}), 0)


METHODS = {name: _quick(method) for name, method in cli.METHODS.items() if name != "cam"}


def _apply(variables, image):
    activations = jax.nn.relu(image @ variables["mix"] + variables["bias"])
    pooled = jaxcam.tag(activations, "features").mean((0, 1))
    return jnp.tanh(pooled) @ variables["dense"]


def _degenerate(shape):
    """A batch: a black image, a dead layer, a constant layer, a zero head, and a sound one."""
    channels, side = CHANNELS[shape]
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 3)
    mix, zeros = jax.random.normal(keys[0], (3, channels)), jnp.zeros((1, 1, channels))
    dense = jax.random.normal(keys[1], (channels, 4))
    image = jax.random.uniform(keys[2], (side, side, 3))
    cases = [
        (mix, zeros, dense, 0 * image),
        (-abs(mix), zeros, dense, image),
        (0 * mix, zeros + 1, dense, image),
        (mix, zeros, 0 * dense, image),
        (mix, zeros, dense, image),
    ]
    mixes, biases, denses, images = (jnp.stack(each) for each in zip(*cases, strict=True))
    return {"mix": mixes, "bias": biases, "dense": denses}, images


@pytest.mark.parametrize("shape", rest_is_thorough(CHANNELS))
@pytest.mark.parametrize("name", thorough_but(METHODS, ONE_OF_EACH.__contains__))
def test_a_map_and_its_gradient_are_finite(name, shape):
    explain = jaxcam.explainer(_apply, "features", METHODS[name])

    def seen(variables, image):
        explanation = explain(variables, image, 1)
        ramp = jnp.arange(explanation.cam.size, dtype=jnp.float32).reshape(explanation.cam.shape)
        return (explanation.heatmap * ramp).sum() + (explanation.cam * ramp).sum()

    found = jax.jit(jax.vmap(jax.value_and_grad(seen, argnums=(0, 1))))(*_degenerate(shape))
    for leaf in jax.tree.leaves(found):
        finite = np.isfinite(leaf).reshape(5, -1).all(axis=1)
        np.testing.assert_array_equal(finite, True)
