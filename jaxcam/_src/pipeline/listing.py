"""Which images a run explains: those of a folder, or of a list."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from jaxcam._src.files import UsageError, find_class, image_suffixes, one_line


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
    """Lists a folder, with what is inside its folders but not behind links; or reads a list.

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
    for name in listing.names:
        if name != name.encode(errors="replace").decode():
            raise UsageError(f"{path} has the name {name!r}, which is not UTF-8; rename the file")
    return listing


def _inside(folder: Path) -> Iterator[str]:
    suffixes = image_suffixes()
    for at, _, files in os.walk(folder, onerror=_refuse):
        inner = Path(at).relative_to(folder)
        yield from ((inner / f).as_posix() for f in files if Path(f).suffix.lower() in suffixes)


def _refuse(error: OSError) -> NoReturn:
    raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error


def _table(path: Path, class_names: Sequence[str]) -> Listing:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    columns = rows.fieldnames or ()
    if "image" not in columns:
        raise UsageError(
            f"{path} starts with the line {','.join(columns)!r}; wanted the names of its columns, "
            "image, and target if classes are given"
        )
    names, targets = [], []
    for row in rows:
        names.append(row["image"])
        with one_line(f"{path}, line {rows.line_num}"):
            if not row["image"]:
                raise UsageError("there is no image; give its path")
            if "target" in columns:
                targets.append(find_class(row["target"] or "", class_names))
    return Listing(path.parent, names, targets if "target" in columns else None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Excel writes a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of images: {error}") from error
