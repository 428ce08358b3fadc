"""Many images: decoded ahead, and handed to the device in batches of one shape."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxcam._src.base import Model
from jaxcam._src.pipeline import loading
from jaxcam._src.pipeline.listing import Listing


class Job(NamedTuple):
    """What is done to each batch.

    Attributes:
      model: whose images and class names.
      step: `(images [batch_size, ...], targets [batch_size] or None, inside [batch_size, *size] or
        None) -> found`, a pytree of arrays `[batch_size, ...]`.
      like: the shape and dtype of an image.
      images: all of them, in order.
      batch_size: images in a batch; batch i holds those from `i * batch_size`.
    """

    model: Model
    step: Callable[..., PyTree]
    like: jax.ShapeDtypeStruct
    images: Listing
    batch_size: int

    def part(self, of: Sequence[Any], batch: int) -> Sequence[Any]:
        """Those entries of a sequence that belong to a batch."""
        return of[batch * self.batch_size : (batch + 1) * self.batch_size]


class Done(NamedTuple):
    """A batch that has been computed.

    Attributes:
      batch: which.
      names: of its images.
      errors: for each image what is wrong with it, or None.
      found: what the step returned for them, in NumPy.
    """

    batch: int
    names: list[str]
    errors: list[str | None]
    found: PyTree


def computed(job: Job, batches: Sequence[int], threads: int) -> Iterator[Done]:
    """Yields each batch when it is done.

    While the device computes one, that before is with the caller and later ones are decoded.
    """
    own = [i for batch in batches for i in job.part(range(len(job.images.names)), batch)]
    loaded = loading.batches(job.model, job.like, job.images, own, job.batch_size, threads)
    before = None
    for batch, given in zip(batches, loaded, strict=True):
        found = job.step(given.images, _targets(job, batch), given.inside)
        if before:
            yield _done(job, *before)
        before = batch, given.errors, found
    if before:
        yield _done(job, *before)


def _targets(job: Job, batch: int) -> np.ndarray | None:
    if job.images.targets is None:
        return None
    targets = job.part(job.images.targets, batch)
    return np.array([*targets, *[0] * (job.batch_size - len(targets))], np.int32)


def _done(job: Job, batch: int, errors: list[str | None], found: PyTree) -> Done:
    found = jax.tree.map(lambda x: x[: len(errors)], jax.device_get(found))
    return Done(batch, [*job.part(job.images.names, batch)], errors, found)
