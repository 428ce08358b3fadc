"""The law that every cut keeps, whatever the framework of the model."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

import jaxcam

TARGET = 1


def filled(shapes):
    """Random numbers in place of shapes; what the initializers would draw compiles slowly."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) / 2, s.dtype), shapes)


def check_law(apply_fn, variables, image, layer, truth, **choice):
    """The head of the activations is the model, and needs the activations, which are true."""
    activations, head = jaxcam.split(apply_fn, layer, **choice)(variables, image)
    logits = head(activations)
    assert activations.dtype == truth.dtype
    chex.assert_trees_all_close(activations, truth, atol=1e-6, rtol=1e-6)
    chex.assert_trees_all_close(logits, apply_fn(variables, image), atol=1e-6, rtol=1e-6)
    changed = jax.tree.leaves(head(jnp.zeros_like(activations)))
    assert any(
        not np.allclose(a, b, atol=1e-3)
        for a, b in zip(changed, jax.tree.leaves(logits), strict=True)
    )
    return activations, head


def check_gradient(activations, head, logits_of_disturbance):
    """The gradient through the head is that of a disturbance at the layer."""
    got = jax.grad(lambda a: head(a)[TARGET])(activations)
    zeros = jnp.zeros_like(activations)
    wanted = jax.grad(lambda d: logits_of_disturbance(d)[TARGET])(zeros)
    assert np.isfinite(got).all()
    assert np.abs(wanted).max() > 1e-4
    scale = np.abs(wanted).max()
    chex.assert_trees_all_close(got / scale, wanted / scale, atol=1e-6)
