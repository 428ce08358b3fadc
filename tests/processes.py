"""What test_robust.py runs in processes of its own.

As a script it imports the library, forks, explains in the child and prints the heatmap as JSON.
"""

import json
import multiprocessing
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import xla_bridge

import jaxcam


def _apply(variables, image):
    return jaxcam.tag(jnp.tanh(image @ variables), "layer").mean((0, 1))


def explained():
    """A heatmap, as lists."""
    rng = np.random.default_rng(0)
    variables, image = rng.standard_normal((3, 4), np.float32), rng.random((4, 5, 3), np.float32)
    explain = jax.jit(jaxcam.explainer(_apply, "layer", jaxcam.score_cam))
    return explain(variables, image, 1).heatmap.tolist()


if __name__ == "__main__":
    assert not xla_bridge.backends_are_initialized()
    assert threading.active_count() == 1
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(json.dumps(pool.apply(explained)))
