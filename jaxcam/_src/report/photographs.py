"""Photographs as they lie under the maps, small, as WebP."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxcam._src.files import UsageError

SIDE = 224  # of the longer side, in pixels
_QUALITY = 75
_EXACT = 64  # pixels: smaller pictures are kept as they are, since they are drawn large
_AT_ONCE = 64


def small(
    paths: Sequence[Path], picture_of: Callable[[Path], np.ndarray]
) -> Iterator[bytes | None]:
    """Yields each photograph as a WebP file; None where it cannot be read.

    Args:
      paths: of the photographs.
      picture_of: reads one, as `[H, W, 3]` in [0, 1]; called from several threads at once.
    """

    def of_one(path: Path) -> bytes | None:
        try:
            return webp(picture_of(path))
        except UsageError:
            return None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(of_one, paths[start : start + _AT_ONCE])


def webp(picture: np.ndarray) -> bytes:
    """A picture `[H, W, 3]` in [0, 1] as a file, made smaller where it is large."""
    from PIL import Image

    shown = Image.fromarray(np.round(255 * picture).astype(np.uint8))
    shown.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    shown.save(file, "WEBP", quality=_QUALITY, lossless=max(shown.size) <= _EXACT)
    return file.getvalue()
