"""Many images: decoded ahead, explained in batches of one shape, written as they come."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcam._src.base import Model
from jaxcam._src.maps import REASONS
from jaxcam._src.pipeline import loading, store
from jaxcam._src.pipeline.listing import Listing
from jaxcam._src.pipeline.step import Found


class Job(NamedTuple):
    """What is done to each batch.

    Attributes:
      model: whose images and class names.
      step: `(images [batch_size, ...], targets [batch_size] or None) -> Found`.
      like: the shape and dtype of an image.
      images: all of them, in order.
      batch_size: images in a batch; batch i holds those from `i * batch_size`.
    """

    model: Model
    step: Callable[..., Found]
    like: jax.ShapeDtypeStruct
    images: Listing
    batch_size: int

    def part(self, of: Sequence[Any], batch: int) -> Sequence[Any]:
        """Those entries of a sequence that belong to a batch."""
        return of[batch * self.batch_size : (batch + 1) * self.batch_size]


def explained(job: Job, batches: Sequence[int], folder: Path, threads: int) -> Iterator[int]:
    """Explains batches, writes each, and yields how many images it had.

    While the device computes one, that before is written and later ones are decoded.
    """
    names = [name for batch in batches for name in job.part(job.images.names, batch)]
    loaded = loading.batches(job.model, job.like, job.images.root, names, job.batch_size, threads)
    before = None
    for batch, (images, errors) in zip(batches, loaded, strict=True):
        found = job.step(images, _targets(job, batch))
        if before:
            yield _finish(job, folder, *before)
        before = batch, errors, found
    if before:
        yield _finish(job, folder, *before)


def _targets(job: Job, batch: int) -> np.ndarray | None:
    if job.images.targets is None:
        return None
    targets = job.part(job.images.targets, batch)
    return np.array([*targets, *[0] * (job.batch_size - len(targets))], np.int32)


def _finish(job: Job, folder: Path, batch: int, errors: list[str | None], found: Found) -> int:
    found = jax.tree.map(lambda x: x[: len(errors)], jax.device_get(found))
    numbers = zip(found.cam, found.target_logit, strict=True)
    finite = [bool(np.isfinite(cam).all() and np.isfinite(logit)) for cam, logit in numbers]
    errors = [e or (None if ok else _NOT_FINITE) for e, ok in zip(errors, finite, strict=True)]
    good = np.array([error is None for error in errors])
    cam = np.where(good.reshape(-1, *(1,) * (found.cam.ndim - 1)), found.cam, np.nan)
    columns = {"image": [*job.part(job.images.names, batch)], "error": errors}
    for field, values in found._replace(flat=np.array(REASONS)[found.flat])._asdict().items():
        if field != "cam":
            columns[field] = _where(good, values.tolist())
    for field in ("prediction", "target"):
        names = [job.model.class_names[c] for c in getattr(found, field)]
        columns[f"{field}_name"] = _where(good, names)
    store.write(folder, batch, cam.astype(np.float32), columns)
    return len(errors)


_NOT_FINITE = "the map or the logit is not finite; look at what the model makes of the image"


def _where(good: np.ndarray, values: list[Any]) -> list[Any]:
    return [value if ok else None for value, ok in zip(values, good, strict=True)]
