"""What test_tpu.py runs in a process of its own: libtpu prints, and is loaded once a process.

Prints a JSON object: what the compiler for TPUs says of two methods, for one chip and for four.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import tpu  # first, since it sets what JAX and libtpu read from the environment

# ruff: isort: split
import jax
import jax.numpy as jnp

import jaxcam

CHANNELS = 64  # so many masked images that one forward pass more is little


def apply_fn(variables, image):
    x = jaxcam.tag(jax.nn.relu(image @ variables["mix"]), "features")
    return jnp.tanh(x.reshape(-1) @ variables["deep"]) @ variables["dense"]


def model():
    shapes = {"mix": (3, CHANNELS), "deep": (8 * 8 * CHANNELS, 128), "dense": (128, 5)}
    variables = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    image = jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)
    return tpu.Model(apply_fn, variables, image, "features", "features")


if __name__ == "__main__":
    found = {
        f"{of} {chips}": tpu.row(model(), of, chips)
        for of in ("grad_cam", "score_cam")
        for chips in (1, 4)
    }
    print(json.dumps(found))
