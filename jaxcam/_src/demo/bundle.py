"""What the package ships: three trained networks and a few canvases."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcam._src.adapters.linen import from_linen
from jaxcam._src.base import Model
from jaxcam._src.demo.canvases import SIDE, Box, Canvases
from jaxcam._src.extras import extra

FOLDER = Path(__file__).parent / "data"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits_relu() -> Model:
    """The bundled network with ReLU: tells which digit is whole on a 64x64 canvas of pieces.

    Its layers are "stem", "stage1", "stage2", "stage3" and what is inside them; "stage3" comes
    before the global average pool.

    >>> model = jaxcam.digits_relu()
    >>> jaxcam.suggest_layer(model.apply_fn, model.variables, image)
    'stage3'
    """
    return _model("relu")


def digits_silu() -> Model:
    """The bundled network with SiLU, otherwise as `digits_relu`: smooth inside its blocks.

    >>> model = jaxcam.digits_silu()
    >>> jaxcam.suggest_layer(model.apply_fn, model.variables, image)
    'stage3'
    """
    return _model("silu")


def digits_vit() -> Model:
    """The bundled vision transformer, for the same digits: GELU, LayerNorm and attention.

    Its layer "grid" is what enters the last of three blocks: the tokens of 8 x 8 patches, without
    the class token, which alone is read in the end. `jaxcam.token_grid(apply_fn, "block2")` makes
    the same of the tokens of a block, and a grid of the other layers'.

    >>> model = jaxcam.digits_vit()
    >>> explain = jaxcam.explainer(model.apply_fn, "grid", jaxcam.layer_cam)
    >>> explain(model.variables, image).cam.shape
    (8, 8)
    """
    return _model("vit")


def load_canvases(folder: Path = FOLDER) -> Canvases:
    """Reads the bundled canvases: images `[n, 64, 64, 1]` in [0, 1], labels `[n]`, boxes.

    None of their digits was trained on.

    >>> images, labels, boxes = jaxcam.load_canvases()
    >>> images.shape
    (24, 64, 64, 1)
    """
    with extra("cli"):
        from PIL import Image

    entries = json.loads((folder / "canvases.json").read_text())
    images = [np.asarray(Image.open(folder / entry["file"])) for entry in entries]
    labels = np.array([entry["label"] for entry in entries], np.int32)
    boxes = [Box(*entry["box"]) for entry in entries]
    return Canvases(np.stack(images)[..., None].astype(np.float32) / 255, labels, boxes)


def save_canvases(folder: Path, drawn: Canvases) -> None:
    """Writes canvases as PNG files, with labels and boxes in `canvases.json`."""
    from PIL import Image

    entries = []
    for index, (image, label, box) in enumerate(zip(*drawn, strict=True)):
        file = f"canvas{index}.png"
        Image.fromarray(np.round(image[..., 0] * 255).astype(np.uint8)).save(folder / file)
        entries.append({"file": file, "label": int(label), "box": box})
    (folder / "canvases.json").write_text(json.dumps(entries) + "\n")


def load_variables(name: str, folder: Path = FOLDER) -> Any:
    """Reads the variables of the network `name`: "relu", "silu" or "vit"."""
    from flax import serialization

    return serialization.msgpack_restore((folder / f"{name}.msgpack").read_bytes())


def save_variables(folder: Path, name: str, variables: dict) -> None:
    """Writes the variables of a network as msgpack, which executes nothing when read."""
    from flax import serialization

    host = jax.tree.map(np.asarray, variables)
    (folder / f"{name}.msgpack").write_bytes(serialization.msgpack_serialize(host))


def _model(name: str) -> Model:
    with extra("cli"):
        from jaxcam._src.demo.network import MODULES

    apply_fn = from_linen(MODULES[name], train=False)
    return Model(apply_fn, load_variables(name), _preprocess, NAMES)


def _preprocess(image: Any) -> np.ndarray:
    from PIL import ImageOps

    small = ImageOps.fit(image.convert("L"), (SIDE, SIDE))
    return np.asarray(small, np.float32)[..., None] / 255
