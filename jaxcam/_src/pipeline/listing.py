"""Which images a run explains: those of a folder, or of a list."""

import contextlib
import csv
import difflib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jaxcam._src.files import UsageError, find_class, image_suffixes, one_line
from jaxcam._src.pipeline.objects import Box, Object

_ANSWERS = ("image", "target")  # columns of a table; others are left alone
_BOX = ("xmin", "ymin", "xmax", "ymax")
_OBJECTS = (*_BOX, "mask")
_NEAR = 0.8  # how alike a name is that was meant to be one of them, from 0 to 1


class Listing(NamedTuple):
    """Images in a fixed order.

    Attributes:
      root: the folder that the names are relative to.
      names: POSIX paths.
      targets: a class for each, or None where the list has none.
      objects: where the object of each is, or None where the list does not say.
      columns: of the table that the list is, and whether each is used; none, where it is no table.
    """

    root: Path
    names: list[str]
    targets: list[int] | None
    objects: list[Object] | None = None
    columns: dict[str, bool] = {}  # noqa: RUF012  # which nobody changes

    def digest(self) -> str:
        """Tells this list from another."""
        said = [self.names, self.targets] + ([self.objects] if self.objects else [])
        content = json.dumps(said).encode()
        return hashlib.sha256(content).hexdigest()[:16]


def read(
    path: Path,
    class_names: Sequence[str],
    *,
    with_objects: bool = False,
    without: Path | None = None,
) -> Listing:
    """Lists a folder, with what is inside its folders but not behind links; or reads a list.

    What is in the folder `without`, to which a run writes, is no image of it.

    A list that ends in `.csv` has a heading with a column `image` and, if wanted, `target`, the
    name or the index of a class; with objects also `xmin`, `ymin`, `xmax`, `ymax`, or `mask`. Other
    columns are left alone. Any other list has a path on each line. Paths are relative to the list.

    Raises:
      UsageError: there is nothing there, no image, no column, a column that is nearly one of
        these or there twice, a row of another length, or no such class.
    """
    if path.is_dir():
        listing = Listing(path, sorted(_inside(path, without)), None)
    elif not path.is_file():
        raise UsageError(f"there is no folder and no list {path}")
    elif path.suffix.lower() == ".csv":
        listing = _listed(path, class_names, with_objects)
    else:
        lines = (line.strip() for line in _text(path).splitlines())
        listing = Listing(path.parent, [line for line in lines if line], None)
    if not listing.names:
        raise UsageError(f"there is no image in {path}")
    for name in listing.names:
        if name != name.encode(errors="replace").decode():
            raise UsageError(f"{path} has the name {name!r}, which is not UTF-8; rename the file")
    return listing


def _inside(folder: Path, without: Path | None) -> Iterator[str]:
    suffixes, left_out = image_suffixes(), without and without.absolute()
    for at, _, files in os.walk(folder, onerror=_refuse):
        if left_out and Path(at).absolute().is_relative_to(left_out):
            continue
        inner = Path(at).relative_to(folder)
        yield from ((inner / f).as_posix() for f in files if Path(f).suffix.lower() in suffixes)


def _refuse(error: OSError) -> NoReturn:
    raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error


def with_boxes(listing: Listing, path: Path) -> Listing:
    """The list, with the objects of a table with the columns image and xmin, ymin, xmax, ymax.

    An image may have several rows, one for each of its boxes; rows of other images are left alone.

    Raises:
      UsageError: as `read`, or an image has no box.
    """
    columns, rows = _table(path, ("image", *_BOX), lambda row: (row["image"], _object(row)))
    if "xmin" not in columns:
        raise UsageError(f"{path} has no columns {', '.join(_BOX)}; give those of each box")
    boxes: dict[str, list[Box]] = {}
    for name, truth in rows:
        boxes.setdefault(name, []).extend(truth.boxes)
    missing = [name for name in listing.names if name not in boxes]
    if missing:
        raise UsageError(
            f"{path} has no box for {len(missing)} of {len(listing.names)} images, the first of "
            f"which is {missing[0]!r}; the column image holds names as the list of images has them"
        )
    return listing._replace(objects=[Object(tuple(boxes[name])) for name in listing.names])


def _listed(path: Path, class_names: Sequence[str], with_objects: bool) -> Listing:
    known = _ANSWERS + (_OBJECTS if with_objects else ())

    def parsed(row: dict[str, str]) -> tuple[str, int | None, Object | None]:
        target = find_class(row["target"], class_names) if "target" in row else None
        return row["image"], target, _object(row) if with_objects else None

    columns, rows = _table(path, known, parsed)
    names, targets, objects = ([*each] for each in zip(*rows, strict=True)) if rows else ([],) * 3
    return Listing(
        path.parent,
        names,
        targets if "target" in columns else None,
        None if None in objects else objects,
        {column: column in known for column in columns},
    )


def _table(
    path: Path, known: tuple[str, ...], parsed: Callable[[dict[str, str]], Any]
) -> tuple[list[str], list[Any]]:
    """The columns of a table, and what `parsed` makes of each row, or refuses."""
    rows = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    with one_line(str(path)):
        columns = _columns(next(rows, []), known)
    found = []
    with _line_of(path, rows):
        for row in filter(None, rows):  # an empty line is no row
            if not dict(zip(columns, row, strict=False)).get("image"):
                raise UsageError("there is no image; give its path")
            if len(row) != len(columns):
                raise UsageError(
                    f"it has {len(row)} fields, and the first line {len(columns)}; put a field "
                    'with a comma in "quotes"'
                )
            found.append(parsed(dict(zip(columns, row, strict=True))))
    return columns, found


def _object(row: dict[str, str]) -> Object | None:
    if "xmin" in row:
        return Object((_box(row),))
    if "mask" not in row:
        return None
    if not row["mask"]:
        raise UsageError("there is no mask; give its path")
    return Object(mask=row["mask"])


def _box(row: dict[str, str]) -> Box:
    try:
        xmin, ymin, xmax, ymax = (float(row[name]) for name in _BOX)
    except ValueError:
        said = ", ".join(repr(row[name]) for name in _BOX)
        raise UsageError(f"{', '.join(_BOX)} are {said}; wanted four numbers of pixels") from None
    return xmin, ymin, xmax, ymax


def _columns(columns: list[str], known: tuple[str, ...]) -> list[str]:
    """The names of the columns, of which those that are read stand there once and well spelt."""
    for column in columns:
        meant = difflib.get_close_matches(column.strip().casefold(), known, 1, _NEAR)
        if meant and column not in known:
            raise UsageError(f"it has a column {column!r}; write {meant[0]!r}, or another name")
    for name in known:
        if columns.count(name) > 1:
            raise UsageError(f"it has the column {name!r} {columns.count(name)} times; keep one")
    if "image" not in columns:
        raise UsageError(
            f"it starts with the line {','.join(columns)!r}; wanted the names of its columns: "
            "image, and target if classes are given"
        )
    used = {*columns} & {*known}
    if 0 < len(used & {*_BOX}) < len(_BOX):
        raise UsageError(f"it has not all of the columns {', '.join(_BOX)}; a box wants the four")
    if {"mask", "xmin"} <= used:
        raise UsageError("it has boxes and masks; keep one of both")
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
        raise UsageError(f"{path} cannot be read: {error}") from error
