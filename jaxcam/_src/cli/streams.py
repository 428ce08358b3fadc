"""What goes to the terminal: any text on any terminal, and one line for what goes wrong."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console

from jaxcam._src.base import ModelWarning
from jaxcam._src.names import printable

# Names of files and layers are text, never markup.
console = Console(stderr=True, markup=False, emoji=False, highlight=False)  # for progress
results = Console(markup=False, emoji=False, highlight=False)


def say(text: Any) -> None:
    """Prints a line, at once."""
    print(printable(str(text)), flush=True)


def complain(text: Any) -> None:
    """Prints a line to standard error, if anybody listens there."""
    with contextlib.suppress(OSError):
        print(f"jaxcam: {printable(' '.join(str(text).split()))}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def any_terminal() -> Iterator[None]:
    """In here printing takes any character, and of all warnings those about the model are shown."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", ModelWarning)
        warnings.showwarning = _shown
        yield


def give_up_output() -> None:
    """Drops what standard output still holds, which it can write nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shown(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    complain(f"warning: {message}")
