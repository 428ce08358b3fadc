"""Which images a run explains: those of a folder, or of a list."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxcam._src.files import UsageError, find_class, image_suffixes


class Listing(NamedTuple):
    """Images in a fixed order.

    Attributes:
      root: the folder that the names are relative to.
      names: POSIX paths.
      targets: a class for each, or None where the list has none.
    """

    root: Path
    names: list[str]
    targets: list[int] | None

    def digest(self) -> str:
        """Tells this list from another."""
        content = json.dumps([self.names, self.targets]).encode()
        return hashlib.sha256(content).hexdigest()[:16]


def read(path: Path, class_names: Sequence[str]) -> Listing:
    """Lists a folder, with what is inside its folders, by name; or reads a list.

    A list that ends in `.csv` has a heading with a column `image` and, if wanted, `target`, the
    name or the index of a class. Any other has a path on each line. Paths are relative to the list.

    Raises:
      UsageError: there is nothing there, no image, no column, or no such class.
    """
    if path.is_dir():
        listing = Listing(path, sorted(_inside(path)), None)
    elif not path.is_file():
        raise UsageError(f"there is no folder and no list {path}")
    elif path.suffix.lower() == ".csv":
        listing = _table(path, class_names)
    else:
        lines = (line.strip() for line in _text(path).splitlines())
        listing = Listing(path.parent, [line for line in lines if line], None)
    if not listing.names:
        raise UsageError(f"there is no image in {path}")
    return listing


def _inside(folder: Path) -> Iterator[str]:
    suffixes = image_suffixes()
    for at, _, files in os.walk(folder):
        inner = Path(at).relative_to(folder)
        yield from ((inner / f).as_posix() for f in files if Path(f).suffix.lower() in suffixes)


def _table(path: Path, class_names: Sequence[str]) -> Listing:
    rows = csv.DictReader(_text(path).splitlines())
    columns = rows.fieldnames or ()
    if "image" not in columns:
        raise UsageError(f"{path} has the columns {', '.join(columns)}; wanted image, and target")
    found = [(row["image"], row.get("target")) for row in rows]
    targets = None
    if "target" in columns:
        targets = [find_class(target or "", class_names) for _, target in found]
    return Listing(path.parent, [name for name, _ in found], targets)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of images: {error}") from error
