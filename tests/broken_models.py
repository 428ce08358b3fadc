"""Factories of models with one thing wrong with each, for the command line to be tried on."""

import dataclasses
import itertools
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxcam

CLASSES = 3


def sound():
    """A tiny network of pictures."""

    def apply_fn(variables, image):
        activations = jaxcam.tag(jnp.tanh(image @ variables["mix"]), "layer")
        return activations.mean((0, 1)) @ variables["dense"]

    def preprocess(picture):
        return np.asarray(picture.convert("RGB").resize((9, 8)), np.float32) / 255

    rng = np.random.default_rng(0)
    variables = {
        "mix": rng.normal(size=(3, 4)).astype(np.float32),
        "dense": rng.normal(size=(4, CLASSES)).astype(np.float32),
    }
    return jaxcam.Model(apply_fn, variables, preprocess, ["cat", "[red]dog[/]", "\x1b[31mbird"])


def _raises(*arguments):
    raise RuntimeError("two\nlines")


def _exits(*arguments):
    sys.exit(7)


def _by_turns(*images):
    """A `preprocess` that returns one after the other."""
    turns = itertools.cycle(images)
    return lambda picture: next(turns)


def _returns(value):
    return lambda *arguments: value


def _image(*shape, dtype: Any = np.float32):
    return np.ones(shape, dtype)


FIELDS = {
    "class_names": [None, 5, (c for c in "abc"), "abc", [], ["a"], [1, 2, 3], {"a": 1}, [None] * 3],
    "variables": [
        None,
        {"mix": "text"},
        {"mix": _raises},
        {"mix": np.array(["a"])},
        {"mix": np.array([None])},
        {"mix": 2**80},
        {"mix": np.ones((5, 5), np.float32), "dense": np.ones(3, np.float32)},
        {"mix": np.full((3, 4), np.nan, np.float32), "dense": np.ones((4, 3), np.float32)},
        [],
    ],
    "apply_fn": [
        None,
        "apply",
        _raises,
        _exits,
        *map(_returns, [None, "text", [1.0, 2.0], {}, np.ones(3), np.ones((1, 3)), jnp.ones(3)]),
        lambda variables, image: jaxcam.tag(image, "layer"),
        lambda variables, image: jaxcam.tag(image, "layer").sum() * jnp.full(3, jnp.nan),
        lambda variables, image: jaxcam.tag(image, "layer").mean((0, 1)).astype(jnp.int32),
    ],
    "preprocess": [
        None,
        _raises,
        _exits,
        *map(_returns, [None, "text", b"bytes", 3.0, [[1.0], [1.0, 2.0]], {}, object()]),
        *map(_returns, [_image(8), _image(8, 9), _image(1, 8, 9, 3), _image(0, 9, 3)]),
        *(_returns(_image(8, 9, 3, dtype=dtype)) for dtype in (bool, np.uint8, complex, object)),
        _returns(_image(8, 9, 3) * np.nan),
        _by_turns(_image(8, 9, 3), _image(8, 9, 3), _image(7, 9, 3)),
        _by_turns(_image(8, 9, 3), _image(8, 9, 3), _image(8, 9, 1)),
        _by_turns(_image(8, 9, 3), _image(8, 9, 3), _image(8, 9, 3, dtype=np.float16)),
        _by_turns(_image(8, 9, 3), _image(8, 9, 3), None),
        _by_turns(_image(8, 9, 3), _image(64, 3)),
    ],
    "display": [
        "display",
        _raises,
        _exits,
        *map(_returns, [None, "text", np.ones((2, 2)), np.full((8, 9, 3), np.nan)]),
        lambda image: image + 3,
    ],
}
MODELS = [(field, i) for field, values in FIELDS.items() for i in range(len(values))]


def broken(field, i):
    """The sound model, with the i-th wrong value of a field."""
    return dataclasses.replace(sound(), **{field: FIELDS[field][i]})
