"""Reading what the command line is given, and writing whole files or none."""

import contextlib
import os
import socket
import tempfile
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxcam._src.base import Model
from jaxcam._src.names import no_such

_DIGITS = 20  # of a class that may exist
_LONGEST_NAME = 255  # bytes, of the usual file systems


class UsageError(Exception):
    """Bad input. Its text says what came, what is wanted and what to do."""


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Makes one line for the user of whatever a user's code raises."""
    try:
        yield
    except (ValueError, UsageError) as error:  # ours, and made to be read
        raise UsageError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        raise UsageError(f"{what}: {type(error).__name__}: {error} ({where})") from error


def find_class(text: str, names: Sequence[str]) -> int:
    """The class that a name, or else an index, stands for.

    Raises:
      UsageError: there is no such class.
    """
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and len(text) < _DIGITS and int(text) < len(names):
        return int(text)
    raise UsageError(f"{no_such('class', text, names)}; or give an index up to {len(names) - 1}")


def check_images(paths: Sequence[Path]) -> None:
    """Decodes every image once, so that nothing is written when one of them is bad.

    Raises:
      UsageError: an image is missing or corrupt, or two would be written under one name.
    """
    for name, count in Counter(path.stem for path in paths).items():
        if count > 1:
            raise UsageError(f"{count} images are named {name!r}, and so would be what is written")
    for path in paths:
        check_name(f"{path.stem}_overlay.png")
        open_image(path)


def check_name(name: str) -> None:
    """Refuses a name of a file to write that file systems do not take."""
    if len(os.fsencode(name)) > _LONGEST_NAME:
        raise UsageError(
            f"what is written would be named {name!r}, of more than {_LONGEST_NAME} bytes; give "
            "the image a shorter name"
        )


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The images at these paths, and in those of them that are folders, in order of name.

    Raises:
      UsageError: a folder holds no image.
    """
    suffixes = image_suffixes()
    found = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes)
        if not inside:
            raise UsageError(f"there is no image in the folder {path}")
        found += inside
    return found


def image_suffixes() -> Collection[str]:
    """What the names of image files end in, such as ".png"."""
    from PIL import Image

    return Image.registered_extensions()


def open_image(path: Path) -> Any:
    """Decodes an image as RGB, upright, a `PIL.Image.Image`."""
    from PIL import Image, ImageOps

    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file")
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                raise ValueError("it holds 32-bit numbers of no known range; save it with 8 or 16")
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # which Pillow would clip at 255
                upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
            return upright.convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"there is no image {path}") from None
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UsageError(f"{path} cannot be read as an image: {error}") from error


def preprocessed(model: Model, path: Path) -> np.ndarray:
    """An image as the model takes it."""
    picture = open_image(path)
    with one_line(f"preprocess of {path}"):
        return as_the_model_takes_it(model, picture)


def as_the_model_takes_it(model: Model, picture: Any) -> np.ndarray:
    """What `preprocess` makes of a picture.

    Raises:
      UsageError: that is no image.
    """
    image = np.asarray(model.preprocess(picture))
    if image.dtype.kind not in "fiubV" or image.ndim < 2:  # V: bfloat16 and its like
        raise UsageError(
            f"preprocess returned {image.dtype}{list(image.shape)}; wanted an image [*spatial, C] "
            "of floating-point numbers"
        )
    return image


def writable_folder(folder: Path) -> Path:
    """Makes the folder where it is missing.

    Raises:
      UsageError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:  # a ValueError for a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot write to {folder}: {reason}; choose another --out") from error
    return folder


@contextlib.contextmanager
def all_or_none(folder: Path) -> Iterator[Path]:
    """A folder to write files to that appear in `folder` together at the end, or not at all."""
    with tempfile.TemporaryDirectory(prefix=".jaxcam-", dir=folder) as part:
        yield Path(part)
        for path in sorted(path for path in Path(part).rglob("*") if path.is_file()):
            place = folder / path.relative_to(part)
            place.parent.mkdir(exist_ok=True)
            path.replace(place)


@contextlib.contextmanager
def whole_file(path: Path, writer: str = "") -> Iterator[IO[bytes]]:
    """Opens a file that appears under its name once it is complete and on disk, or not at all.

    `writer` tells those apart who write the same file at once: this process, if not given.
    """
    writer = writer or f"{socket.gethostname()}-{os.getpid()}"
    part = path.with_name(f".{path.name[: _LONGEST_NAME // 3]}.{writer}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
