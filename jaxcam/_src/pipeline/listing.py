"""Which images a run explains: those of a folder, or of a list."""

import contextlib
import csv
import difflib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jaxcam._src.files import UsageError, find_class, image_suffixes, one_line

COLUMNS = ("image", "target")  # of a table; others are left alone
_NEAR = 0.8  # how alike a name is that was meant to be one of them, from 0 to 1


class Listing(NamedTuple):
    """Images in a fixed order.

    Attributes:
      root: the folder that the names are relative to.
      names: POSIX paths.
      targets: a class for each, or None where the list has none.
      columns: of the table that the list is; none, where it is no table.
    """

    root: Path
    names: list[str]
    targets: list[int] | None
    columns: tuple[str, ...] = ()

    def digest(self) -> str:
        """Tells this list from another."""
        content = json.dumps([self.names, self.targets]).encode()
        return hashlib.sha256(content).hexdigest()[:16]


def read(path: Path, class_names: Sequence[str]) -> Listing:
    """Lists a folder, with what is inside its folders but not behind links; or reads a list.

    A list that ends in `.csv` has a heading with a column `image` and, if wanted, `target`, the
    name or the index of a class; other columns are left alone. Any other list has a path on each
    line. Paths are relative to the list.

    Raises:
      UsageError: there is nothing there, no image, no column, a column that is nearly one of
        these or there twice, a row of another length, or no such class.
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
    rows = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    with one_line(str(path)):
        columns = _columns(next(rows, []))
    names, targets = [], []
    with _line_of(path, rows):
        for row in filter(None, rows):  # an empty line is no row
            fields = dict(zip(columns, row, strict=False))
            if not fields.get("image"):
                raise UsageError("there is no image; give its path")
            if len(row) != len(columns):
                raise UsageError(
                    f"it has {len(row)} fields, and the first line {len(columns)}; put a field "
                    'with a comma in "quotes"'
                )
            names.append(fields["image"])
            if "target" in columns:
                targets.append(find_class(fields["target"], class_names))
    has_targets = "target" in columns
    return Listing(path.parent, names, targets if has_targets else None, tuple(columns))


def _columns(columns: list[str]) -> list[str]:
    """The names of the columns, of which those that are read stand there once and well spelt."""
    for column in columns:
        meant = difflib.get_close_matches(column.strip().casefold(), COLUMNS, 1, _NEAR)
        if meant and column not in COLUMNS:
            raise UsageError(f"it has a column {column!r}; write {meant[0]!r}, or another name")
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise UsageError(f"it has the column {name!r} {columns.count(name)} times; keep one")
    if "image" not in columns:
        raise UsageError(
            f"it starts with the line {','.join(columns)!r}; wanted the names of its columns, "
            "image, and target if classes are given"
        )
    return columns


@contextlib.contextmanager
def _line_of(path: Path, rows: Any) -> Iterator[None]:
    """Names the line at which reading a table ended in an error."""
    try:
        yield
    except (UsageError, csv.Error) as error:
        raise UsageError(f"{path}, line {rows.line_num}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Excel writes a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of images: {error}") from error
