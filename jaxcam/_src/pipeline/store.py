"""What a run writes: the maps and the numbers of each batch, a file of each, whole or not at all.

    run.json              what was run
    maps/000012.npz       cam [n, h, w], the maps of batch 12
    index/000012.parquet  their rows in the index: image, prediction, target, scores, flat, error

A batch is finished once it is in the index, which is written last. NumPy reads the maps; whatever
reads Parquet reads the folder `index` as one table.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcam._src.files import UsageError, one_line, whole_file


def begin(folder: Path, settings: Mapping[str, Any], share: str) -> None:
    """Writes the settings of a run, or goes on with the run that is there.

    `share` names the part of the batches that this process takes; one goes on where it was killed.

    Raises:
      UsageError: there is a run with other settings.
    """
    path = folder / "run.json"
    for part in ("maps", "index"):
        with one_line(f"{folder} holds no run that could go on; choose another --out"):
            (folder / part).mkdir(exist_ok=True)
    if not path.exists():
        if any(folder.glob("index/*.parquet")) or any(folder.glob("maps/*.npz")):
            raise UsageError(
                f"{folder} holds maps of a run, but not its run.json, which says what they are; "
                "choose another --out"
            )
        with whole_file(path, share) as file:
            file.write(json.dumps(settings, indent=1).encode())
    with one_line(f"{path} cannot be read; choose another --out"):
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it holds no settings of a run")
    other = [key for key in settings if found.get(key) != settings[key]]
    if other:
        was, now = ({key: of.get(key) for key in other} for of in (found, settings))
        raise UsageError(
            f"{folder} holds a run with {was}, and this one has {now}; choose another --out"
        )


def unfinished(folder: Path, batches: Sequence[int]) -> list[int]:
    """Those of the batches that are not there whole, cleared of what a killed process left."""
    left = [batch for batch in batches if not _is_whole(folder, batch)]
    names = {f"{batch:06}" for batch in left}
    for part in folder.glob("*/.*.part"):
        if part.name.split(".")[1] in names:
            part.unlink(missing_ok=True)
    return left


def _is_whole(folder: Path, batch: int) -> bool:
    """Whether a batch was written, and can be read again."""
    import pyarrow.parquet

    index, maps = _index(folder, batch), _maps(folder, batch)
    for path in (index, maps):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; wanted a file of the run: remove it")
    if not (index.exists() and maps.exists()):
        return False
    try:
        rows = len(pyarrow.parquet.read_table(index, columns=["image", "error"]))
        with np.load(maps, allow_pickle=False) as file:
            return len(file["cam"]) == rows  # which checks the sum of its bytes
    except (pyarrow.ArrowException, zipfile.BadZipFile, zlib.error):
        return False
    except (OSError, ValueError, KeyError, EOFError):
        return False


def write(folder: Path, batch: int, cam: np.ndarray, columns: Mapping[str, list]) -> None:
    """Writes the maps `[n, *spatial]` of a batch, then its n rows of the index."""
    import pyarrow
    import pyarrow.parquet

    with whole_file(_maps(folder, batch)) as file:
        np.savez(file, cam=cam)
    rows = range(len(cam))
    places = {"maps": [f"{batch:06}.npz"] * len(cam), "row": rows}
    table = pyarrow.table({**columns, **places}, schema=_schema())
    with whole_file(_index(folder, batch)) as file:
        pyarrow.parquet.write_table(table, file)


def errors(folder: Path, batches: Sequence[int]) -> Iterator[tuple[str, str]]:
    """The images that were skipped, and why."""
    import pyarrow.parquet

    for batch in batches:
        found = pyarrow.parquet.read_table(_index(folder, batch), columns=["image", "error"])
        yield from ((row["image"], row["error"]) for row in found.to_pylist() if row["error"])


def _maps(folder: Path, batch: int) -> Path:
    return folder / "maps" / f"{batch:06}.npz"


def _index(folder: Path, batch: int) -> Path:
    return folder / "index" / f"{batch:06}.parquet"


def _schema() -> Any:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int32(), pa.float32()
    kinds = {
        "image": text,
        "prediction": whole,
        "prediction_name": text,
        "prediction_probability": real,
        "target": whole,
        "target_name": text,
        "target_probability": real,
        "target_logit": real,
        "flat": text,
        "maps": text,
        "row": whole,
        "error": text,
    }
    return pa.schema(list(kinds.items()))
