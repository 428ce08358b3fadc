"""What the package ships: two trained networks and a few canvases."""

import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import numpy as np
from PIL import Image

from jaxcam._src.demo.canvases import Box, Canvases

FOLDER = Path(__file__).parent / "data"
ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu}


def save_variables(folder: Path, name: str, variables: dict) -> None:
    """Writes the variables of a network as msgpack, which executes nothing when read."""
    host = jax.tree.map(np.asarray, variables)
    (folder / f"{name}.msgpack").write_bytes(flax.serialization.msgpack_serialize(host))


def load_variables(name: str, folder: Path = FOLDER) -> Any:
    """Reads the variables of the network `name`, "relu" or "silu"."""
    return flax.serialization.msgpack_restore((folder / f"{name}.msgpack").read_bytes())


def save_canvases(folder: Path, drawn: Canvases) -> None:
    """Writes canvases as PNG files, with labels and boxes in `canvases.json`."""
    entries = []
    for index, (image, label, box) in enumerate(zip(*drawn, strict=True)):
        file = f"canvas{index}.png"
        Image.fromarray(np.uint8(np.round(image[..., 0] * 255))).save(folder / file)
        entries.append({"file": file, "label": int(label), "box": box})
    (folder / "canvases.json").write_text(json.dumps(entries, indent=1) + "\n")


def load_canvases(folder: Path = FOLDER) -> Canvases:
    """Reads the canvases that `save_canvases` wrote."""
    entries = json.loads((folder / "canvases.json").read_text())
    images = [np.asarray(Image.open(folder / entry["file"])) for entry in entries]
    labels = np.array([entry["label"] for entry in entries])
    boxes = [Box(*entry["box"]) for entry in entries]
    return Canvases(np.stack(images)[..., None].astype(np.float32) / 255, labels, boxes)
