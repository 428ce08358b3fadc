"""How records look in a notebook: HTML, every name escaped, with maps as pictures inside."""

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

_SIDE = 192  # of a picture, in pixels of the screen
_PICTURES = 4
_NUMBERS = 8
_LONGEST = 120  # characters of a value
_COLOURS = np.array([[0, 0, 64], [64, 64, 224], [64, 224, 128], [255, 224, 64], [255, 64, 32]])
_UNKNOWN = (128, 128, 128)  # where a map is NaN
_NO_ARRAY = (
    RuntimeError,  # of other processes, or deleted
    TypeError,
    ValueError,
    jax.errors.TracerArrayConversionError,
)


def table(rows: Mapping[str, Any]) -> str:
    """A row for each name and its value, but for what is empty."""
    cells = [
        f"<tr><th>{text(name.replace('_', ' '))}</th><td>{text(value)}</td></tr>"
        for name, value in rows.items()
        if value not in ("", None, frozenset())
    ]
    return f"<table>{''.join(cells)}</table>"


def text(value: Any) -> str:
    """A value in one line, escaped; numbers with four digits."""
    line = f"{value:.4g}" if isinstance(value, float) else str(value)
    line = ", ".join(sorted(map(str, value))) if isinstance(value, frozenset) else line
    return html.escape(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}...")


def title(line: str) -> str:
    """A sentence above a table."""
    return f"<p><b>{html.escape(line)}</b></p>"


def shape(values: Any) -> str:
    """The shape of an array, those of several, or what it is instead."""
    if isinstance(values, (list, tuple)):
        return "; ".join(map(shape, values))
    size = getattr(values, "shape", None)
    if not isinstance(size, tuple):
        return type(values).__name__
    return " x ".join(map(str, size)) or "a number"


def numbers(values: Any) -> str:
    """The first numbers of an array, or of several; where they are not known, the shape."""
    if isinstance(values, (list, tuple)):
        return "; ".join(map(numbers, values))
    known = array(values)
    if known is None or not known.size:
        return f"({shape(values)})"
    more = ", ..." if known.size > _NUMBERS else ""
    return ", ".join(text(number) for number in known.ravel()[:_NUMBERS].tolist()) + more


def array(values: Any) -> np.ndarray | None:
    """The values, or None where they are not known: inside a trace, or where they are no array."""
    try:
        known = np.asarray(values)
        return known if known.dtype.kind in "biuf" else known.astype(np.float32)
    except _NO_ARRAY:
        return None


def pictures(maps: Mapping[str, Any]) -> str:
    """Maps in [0, 1] beside each other, above their names; of several images the first's."""
    style = "display:inline-block;margin:4px;text-align:center;font-size:80%"
    return "".join(
        f'<span style="{style}">{image}<br>{html.escape(name)}</span>'
        for name, values in maps.items()
        for image in picture(values, most=1, side=_SIDE // 2)
    )


def picture(values: Any, *, most: int = _PICTURES, side: int = _SIDE) -> Sequence[str]:
    """A map `[H, W]` in [0, 1] as an image, a signal as a strip; of more axes the first few."""
    known = array(values)
    if known is None or not known.ndim or not known.size:
        return []
    known = known[None] if known.ndim == 1 else known
    return [_image(each, side) for each in known.reshape(-1, *known.shape[-2:])[:most]]


def _image(values: np.ndarray, side: int) -> str:
    data = base64.b64encode(_png(_coloured(values.astype(np.float32)))).decode()
    size = f"height:{side}px;width:auto" if len(values) > 1 else f"height:24px;width:{2 * side}px"
    style = f"{size};margin:2px;image-rendering:pixelated"
    return f'<img alt="heatmap" style="{style}" src="data:image/png;base64,{data}">'


def _coloured(values: np.ndarray) -> np.ndarray:
    """From blue over green to red, `[H, W, 3]` uint8."""
    at = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(np.nan_to_num(values), at, _COLOURS[:, c]) for c in range(3)]
    return np.where(np.isnan(values)[..., None], _UNKNOWN, np.stack(channels, -1)).astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    """A PNG file (https://www.w3.org/TR/png-3/): 8 bits, colours, no filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
