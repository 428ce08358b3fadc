"""What `jaxcam run` and `jaxcam explain` wrote, read again."""

import contextlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcam._src.files import UsageError
from jaxcam._src.pipeline import store
from jaxcam._src.report import answers

_OPTIONAL = ("occurrence", "target", "score", "convention", "set", "fuse")
CHOICES = ("method", "layer", "seed", *_OPTIONAL)  # that tell a run from another
_DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_KEPT = ("run.json", "explanations.json")


class Run(NamedTuple):
    """The maps of one method at one layer, and what the model said of the images.

    Attributes:
      folder: of the run.
      settings: of the run: the model and the choices that tell it from another.
      root: the folder that names are relative to.
      names: of the images, POSIX paths.
      answers: columns with an entry for each image, as in the index of a run.
      cams: `[n, h, w]`, NaN where there is none.
    """

    folder: Path
    settings: Mapping[str, Any]
    root: Path
    names: list[str]
    answers: Mapping[str, list[Any]]
    cams: np.ndarray


def folders_of(folder: Path) -> list[Path]:
    """The folder, or those inside of it where it holds several runs."""
    inside = sorted({path.parent for name in _KEPT for path in folder.glob(f"*/{name}")})
    is_one = any((folder / name).is_file() for name in _KEPT)
    return inside if inside and not is_one else [folder]


def settings_of(folder: Path) -> dict[str, Any]:
    """What was run.

    Raises:
      UsageError: the folder holds nothing of `run`, `evaluate` or `explain`, or it is damaged.
    """
    path = next((folder / name for name in _KEPT if (folder / name).is_file()), None)
    if path is None:
        raise UsageError(
            f"{folder} holds no {' and no '.join(_KEPT)}; give a folder that jaxcam run, explain "
            "or evaluate wrote"
        )
    with readable(path):
        return {**dict.fromkeys(_OPTIONAL), **json.loads(path.read_text())}


def read(folder: Path, settings: Mapping[str, Any]) -> Run:
    """The maps of a folder with these settings.

    Raises:
      UsageError: the run is not finished, its files are damaged, or its maps are no pictures.
    """
    with readable(folder):
        is_of_explain = isinstance(settings["images"], list)
        run = _explained(folder, settings) if is_of_explain else _run(folder, settings)
        if len(run.cams) != len(run.names) or not run.names:
            raise ValueError(f"{len(run.cams)} maps of {len(run.names)} images")
        lacking = [name for name in ("model", *CHOICES) if name not in run.settings]
        if lacking:
            raise ValueError(f"it does not say {', '.join(lacking)}")
    if run.cams.ndim != 3:
        raise UsageError(
            f"{folder} has maps of shape {list(run.cams.shape[1:])}; wanted [h, w], which can be "
            "laid over a picture"
        )
    return run


def rows(folder: Path, settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns of the index of a run that is finished."""
    return store.read_index(folder, _batches(folder, settings)).to_pydict()


def _run(folder: Path, settings: Mapping[str, Any]) -> Run:
    found = rows(folder, settings)
    if len(found["image"]) != settings["count"]:
        raise ValueError(f"it has {len(found['image'])} of {settings['count']} images")
    cams = store.read_maps(folder, _batches(folder, settings))
    root = Path(settings["images"])
    return Run(folder, settings, root, found["image"], answers.filled(found), cams)


def _batches(folder: Path, settings: Mapping[str, Any]) -> range:
    count, size = settings["count"], settings["batch_size"]
    batches = range(-(-count // size))
    there = sum(store.has_index(folder, batch) for batch in batches)
    if there < len(batches):
        raise UsageError(
            f"{folder} has {there} of {len(batches)} batches; give its command again, which goes "
            "on where it stopped"
        )
    return batches


def _explained(folder: Path, settings: Mapping[str, Any]) -> Run:
    records = settings["images"]
    paths = [os.path.abspath(record["image"]) for record in records]
    root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
    names = [Path(path).relative_to(root).as_posix() for path in paths]
    # Only names: a record that says "../x" reads nothing outside of the folder.
    cams = [np.load(folder / Path(r["cam"]).name, allow_pickle=False) for r in records]
    columns = [answers.of_record(record) for record in records]
    found = {name: [row[name] for row in columns] for name in columns[0]}
    return Run(folder, settings, root, names, answers.filled(found), np.stack(cams))


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """One line for files that are damaged."""
    try:
        yield
    except _DAMAGES as error:
        raise UsageError(
            f"{path} is damaged ({error}); make it again by the command that wrote it"
        ) from error
