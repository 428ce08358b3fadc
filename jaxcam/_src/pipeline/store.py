"""What a run writes: the numbers of each batch, and its maps, in files that are whole or not there.

    run.json              what was run
    index/000012.parquet  the rows of batch 12 in the index: image, error, numbers
    maps/000012.npz       cam [n, h, w], its maps, where the run keeps them

A batch is finished once it is in the index, which is written last. NumPy reads the maps; whatever
reads Parquet reads the folder `index` as one table.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcam._src.files import UsageError, one_line, whole_file


class Layout(NamedTuple):
    """What the files of a run hold.

    Attributes:
      columns: of the index, each of str, int, float, list[str] or list[float].
      has_maps: whether there are maps too.
    """

    columns: Mapping[str, Any]
    has_maps: bool = False


def begin(folder: Path, settings: Mapping[str, Any], share: str, layout: Layout) -> None:
    """Writes the settings of a run, or goes on with the run that is there.

    `share` names the part of the batches that this process takes; one goes on where it was killed.

    Raises:
      UsageError: there is a run with other settings.
    """
    path = folder / "run.json"
    for part in ("maps", "index") if layout.has_maps else ("index",):
        with one_line(f"{folder} holds no run that could go on; choose another --out"):
            (folder / part).mkdir(exist_ok=True)
    if not path.exists():
        if any(folder.glob("index/*.parquet")) or any(folder.glob("maps/*.npz")):
            raise UsageError(
                f"{folder} holds files of a run, but not its run.json, which says what they are; "
                "choose another --out"
            )
        with whole_file(path, share) as file:
            file.write(json.dumps(settings, indent=1).encode())
    with one_line(f"{path} cannot be read; choose another --out"):
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it holds no settings of a run")
    other = [key for key in {**settings, **found} if found.get(key) != settings.get(key)]
    if other:
        was, now = ({k: of[k] for k in other if k in of} for of in (found, settings))
        raise UsageError(
            f"{folder} holds a run with {was}, and this one has {now}; choose another --out"
        )


def unfinished(folder: Path, batches: Mapping[int, Sequence[str]], layout: Layout) -> list[int]:
    """Those of the batches, each with the names of its images, that are not there whole."""
    return [
        batch for batch, names in batches.items() if not _is_whole(folder, batch, names, layout)
    ]


def clear(folder: Path, batches: Sequence[int]) -> None:
    """Removes what a killed process left of these batches, on which no other process works."""
    names = {f"{batch:06}" for batch in batches}
    for part in folder.glob("*/.*.part"):
        if part.name.split(".")[1] in names:
            part.unlink(missing_ok=True)


_DAMAGES = (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError, EOFError)


def _is_whole(folder: Path, batch: int, names: Sequence[str], layout: Layout) -> bool:
    """Whether a batch was written, of these images, and can be read again."""
    import pyarrow.parquet

    files = [_index(folder, batch)] + [_maps(folder, batch)] * layout.has_maps
    for path in files:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; wanted a file of the run: remove it")
    if not all(path.exists() for path in files):
        return False
    try:
        table = pyarrow.parquet.read_table(_index(folder, batch), page_checksum_verification=True)
        each = max(1, len(table) // len(names))  # rows of an image
        is_other = table["image"].to_pylist() != list(np.repeat(names, each))
        if is_other or table.column_names != [*layout.columns]:
            return False
        if not layout.has_maps:
            return True
        with np.load(_maps(folder, batch), allow_pickle=False) as file:
            return len(file["cam"]) == len(table)  # which checks the sum of its bytes
    except (pyarrow.ArrowException, *_DAMAGES):
        return False


def has_index(folder: Path, batch: int) -> bool:
    """Whether the index of a batch is there; it is written after all else of the batch."""
    return _index(folder, batch).is_file()


def write_maps(folder: Path, batch: int, cam: np.ndarray) -> dict[str, list[Any]]:
    """Writes the maps `[n, *spatial]` of a batch, and returns the columns that say where they are.

    Call it before `write_index`, which marks the batch as finished.
    """
    with whole_file(_maps(folder, batch)) as file:
        np.savez(file, cam=cam)
    return {"maps": [f"{batch:06}.npz"] * len(cam), "row": [*range(len(cam))]}


def write_index(folder: Path, batch: int, columns: Mapping[str, list], layout: Layout) -> None:
    """Writes the rows of a batch in the index."""
    import pyarrow as pa
    import pyarrow.parquet

    types: dict[Any, Any] = {str: pa.string(), int: pa.int32(), float: pa.float32()}
    types |= {list[kind]: pa.list_(types[kind]) for kind in (str, float)}
    schema = pa.schema([(name, types[kind]) for name, kind in layout.columns.items()])
    with whole_file(_index(folder, batch)) as file:
        table = pa.table({**columns}, schema=schema)
        pyarrow.parquet.write_table(table, file, write_page_checksum=True)


def read_index(folder: Path, batches: Sequence[int], columns: Sequence[str] | None = None) -> Any:
    """The rows of these batches, a `pyarrow.Table`."""
    import pyarrow as pa
    import pyarrow.parquet

    options: dict[str, Any] = {"columns": columns, "page_checksum_verification": True}
    tables = (pyarrow.parquet.read_table(_index(folder, b), **options) for b in batches)
    return pa.concat_tables(tables)


def read_maps(folder: Path, batches: Sequence[int]) -> np.ndarray:
    """The maps of these batches, `[n, *spatial]`."""
    found = []
    for batch in batches:
        with np.load(_maps(folder, batch), allow_pickle=False) as file:
            found.append(file["cam"])
    return np.concatenate(found)


def errors(folder: Path, batches: Sequence[int]) -> dict[str, str]:
    """The images that were skipped, and why."""
    rows = read_index(folder, batches, ["image", "error"]).to_pylist() if batches else []
    return {row["image"]: row["error"] for row in rows if row["error"]}


def _maps(folder: Path, batch: int) -> Path:
    return folder / "maps" / f"{batch:06}.npz"


def _index(folder: Path, batch: int) -> Path:
    return folder / "index" / f"{batch:06}.parquet"
