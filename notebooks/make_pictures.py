"""Makes the pictures of the README, from a photograph that comes with Matplotlib.

    python notebooks/make_pictures.py

needs the extras `photographs` and `opti-cam`, and takes minutes on two cores.
"""

import functools
import io
from pathlib import Path

from PIL import Image

import jaxcam
from jaxcam._src.demo import hopper
from jaxcam._src.methods import METHODS

FOLDER = Path(__file__).parent / "pictures"
LARGEST = 150_000  # bytes
FIRST = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "shapley_cam", "score_cam")
FASTER = {  # of 1280 channels those that vary most
    "score_cam": functools.partial(jaxcam.score_cam, top_k=64),
    "ss_cam": functools.partial(jaxcam.ss_cam, top_k=32, samples=10),
    "is_cam": functools.partial(jaxcam.is_cam, top_k=32),
    "rise": functools.partial(jaxcam.rise, samples=1000),
}


def save(drawn: io.BytesIO, name: str, width: int) -> None:
    """Writes a figure in as many colours as a small file takes."""
    picture = Image.open(drawn).convert("RGB")
    height = round(picture.height * width / picture.width)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    for colours in (256, 192, 128, 96, 64, 48, 32):
        file = io.BytesIO()
        small.quantize(colours, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= LARGEST:
            break
    (FOLDER / name).write_bytes(file.getvalue())


def main() -> None:
    """Writes `pictures/first.png` and `pictures/gallery.png`."""
    FOLDER.mkdir(exist_ok=True)
    methods = METHODS | FASTER
    first, gallery = io.BytesIO(), io.BytesIO()
    hopper.save_classes({name: methods[name] for name in FIRST}, first)
    save(first, "first.png", width=900)
    hopper.save_methods({name: methods[name] for name in METHODS}, gallery)
    save(gallery, "gallery.png", width=800)


if __name__ == "__main__":
    main()
