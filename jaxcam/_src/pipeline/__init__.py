"""Many images: decoded ahead, and handed to the device in batches of one shape."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxcam._src.base import Model
from jaxcam._src.pipeline import loading
from jaxcam._src.pipeline.listing import Listing


class Given(NamedTuple):
    """What a step takes: a batch, or in its inside one image.

    Attributes:
      images: `[batch_size, *size, C]`.
      targets: `[batch_size]`, or None for the top classes.
      inside: True on the objects, `[batch_size, *size]`, or None.
      places: of the images in the list, `[batch_size]`.
    """

    images: Any
    targets: Any
    inside: Any
    places: Any


class Job(NamedTuple):
    """What is done to each batch.

    Attributes:
      model: whose images and class names.
      step: `Given -> found`, a pytree of arrays `[batch_size, ...]`.
      like: the shape and dtype of an image.
      images: all of them, in order.
      batch_size: images in a batch; batch i holds those from `i * batch_size`.
    """

    model: Model
    step: Callable[[Given], PyTree]
    like: jax.ShapeDtypeStruct
    images: Listing
    batch_size: int

    @property
    def batches(self) -> int:
        """How many there are."""
        return -(-len(self.images.names) // self.batch_size)

    def names(self, batch: int) -> list[str]:
        """Those of the images of a batch."""
        return [*self.part(self.images.names, batch)]

    def part(self, of: Sequence[Any], batch: int) -> Sequence[Any]:
        """Those entries of a sequence that belong to a batch."""
        return of[batch * self.batch_size : (batch + 1) * self.batch_size]


class Finished(NamedTuple):
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


def finished(job: Job, batches: Sequence[int], threads: int) -> Iterator[Finished]:
    """Yields each batch when it is computed.

    While the device computes one, that before is with the caller and later ones are decoded.
    """
    places = [i for batch in batches for i in job.part(range(len(job.images.names)), batch)]
    loaded = loading.batches(job.model, job.like, job.images, places, job.batch_size, threads)
    before = None
    for batch, (images, inside, errors) in zip(batches, loaded, strict=True):
        own = batch * job.batch_size + np.arange(job.batch_size, dtype=np.int32)
        found = job.step(Given(images, _targets(job, batch), inside, own))
        if before:
            yield _finished(job, *before)
        before = batch, errors, found
    if before:
        yield _finished(job, *before)


def _targets(job: Job, batch: int) -> np.ndarray | None:
    if job.images.targets is None:
        return None
    targets = job.part(job.images.targets, batch)
    return np.array([*targets, *[0] * (job.batch_size - len(targets))], np.int32)


def _finished(job: Job, batch: int, errors: list[str | None], found: PyTree) -> Finished:
    found = jax.tree.map(lambda x: x[: len(errors)], jax.device_get(found))
    return Finished(batch, job.names(batch), errors, found)
