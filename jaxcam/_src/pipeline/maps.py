"""A run that keeps maps: what is written of each batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcam._src.maps import REASONS
from jaxcam._src.pipeline import Finished, Job, finished, store

_COLUMNS = {
    "image": str,
    "prediction": int,
    "prediction_name": str,
    "prediction_probability": float,
    "target": int,
    "target_name": str,
    "target_probability": float,
    "target_logit": float,
    "flat": str,
    "top_names": list[str],
    "top_probabilities": list[float],
    "maps": str,
    "row": int,
    "error": str,
}
LAYOUT = store.Layout(_COLUMNS, has_maps=True)


def explained(
    job: Job, batches: Sequence[int], folders: Sequence[Path], threads: int
) -> Iterator[int]:
    """Explains batches by a step of `Found`, one a folder; yields how many images each had."""
    for done in finished(job, batches, threads):
        for folder, found in zip(folders, done.found, strict=True):
            _write(job, folder, done._replace(found=found))
        yield len(done.names)


def _write(job: Job, folder: Path, done: Finished) -> None:
    found = done.found
    numbers = zip(found.cam, found.target_logit, strict=True)
    finite = [bool(np.isfinite(cam).all() and np.isfinite(logit)) for cam, logit in numbers]
    errors = [e or (None if ok else _NOT_FINITE) for e, ok in zip(done.errors, finite, strict=True)]
    good = np.array([error is None for error in errors])
    cam = np.where(good.reshape(-1, *(1,) * (found.cam.ndim - 1)), found.cam, np.nan)
    columns = {"image": done.names, "error": errors}
    for field, values in found._replace(flat=np.array(REASONS)[found.flat])._asdict().items():
        if field not in ("cam", "top", "top_probability"):
            columns[field] = _where(good, values.tolist())
    for field in ("prediction", "target"):
        names = [job.model.class_names[c] for c in getattr(found, field)]
        columns[f"{field}_name"] = _where(good, names)
    top = [[job.model.class_names[c] for c in classes] for classes in found.top]
    columns |= {"top_names": _where(good, top)}
    columns |= {"top_probabilities": _where(good, found.top_probability.tolist())}
    columns |= store.write_maps(folder, done.batch, cam.astype(np.float32))
    store.write_index(folder, done.batch, columns, LAYOUT)


_NOT_FINITE = "the map or the logit is not finite; look at what the model makes of the image"


def _where(good: np.ndarray, values: list[Any]) -> list[Any]:
    return [
        value if ok and value == value else None  # NaN is not equal to itself
        for value, ok in zip(values, good, strict=True)
    ]
