"""Names as text: how they are shown, and what to say of one that is not known."""

import difflib
import reprlib
import sys
from collections.abc import Iterable
from typing import Any

_LISTED = 20
_LONGEST = 80  # characters of a value


def printable(text: str, highest: int = sys.maxunicode) -> str:
    """The text with everything escaped that a terminal might obey or cannot show.

    Args:
      text: such as the name of a file.
      highest: the last code point that can be shown.
    """
    return "".join(
        c if c.isprintable() and ord(c) <= highest else c.encode("unicode_escape").decode()
        for c in text
    )


def no_such(kind: str, name: str, known: Iterable[str]) -> str:
    """Says that there is no such thing, which ones are near, and which there are."""
    known = list(dict.fromkeys(known))
    near = " or ".join(map(repr, difflib.get_close_matches(name, known, 3, 0.4)))
    hint = f" Did you mean {near}?" if near else ""
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"there is no {kind} {name!r}.{hint} There are: {', '.join(known[:_LISTED])}{more}"


def brief(value: Any) -> str:
    """A value as a message shows it: one line, and of arrays the dtype and the shape."""
    line = " ".join(_Brief().repr(value).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


class _Brief(reprlib.Repr):
    """Python's short form of a value, and of arrays their dtype and shape."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _LONGEST

    def repr_instance(self, x: Any, level: int) -> str:
        if getattr(x, "shape", None) and hasattr(x, "dtype"):
            return f"{x.dtype}{[*x.shape]}"
        return super().repr_instance(x, level)


def named(layer: Any) -> str:
    """What a message calls a layer, by its name or cut by a function."""
    return f"layer {layer!r}" if isinstance(layer, str) else "the layer"
