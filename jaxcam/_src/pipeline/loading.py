"""Images decoded in parallel, in batches of one shape."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxcam._src.base import Model
from jaxcam._src.files import UsageError, as_the_model_takes_it, one_line, open_image
from jaxcam._src.pipeline.listing import Listing
from jaxcam._src.pipeline.objects import inside_of


class Batch(NamedTuple):
    """Images `[batch_size, *size, C]`, zeros where there is none, and why there is none.

    Attributes:
      images: as the model takes them.
      inside: True on the objects, `[batch_size, *size]`; None where the list has none.
      errors: for each image of the batch what is wrong with it, or None; of a last batch that is
        not full, for those that there are.
    """

    images: np.ndarray
    inside: np.ndarray | None
    errors: list[str | None]


class _Loaded(NamedTuple):
    image: np.ndarray | None = None
    inside: np.ndarray | None = None
    error: str | None = None


def batches(
    model: Model,
    like: jax.ShapeDtypeStruct,
    listing: Listing,
    indices: Sequence[int],
    batch_size: int,
    threads: int,
) -> Iterator[Batch]:
    """Yields the images of these indices, read and preprocessed by threads ahead of their use."""
    import grain

    def load(index: int) -> _Loaded:
        path = listing.root / listing.names[index]
        try:
            picture = open_image(path)
            with one_line(f"preprocess of {path}"):
                image = as_the_model_takes_it(model, picture)
            _check(image, like)
            if listing.objects is None:
                return _Loaded(image)
            return _Loaded(image, inside_of(listing.objects[index], model, picture, listing.root))
        except UsageError as error:
            return _Loaded(error=" ".join(str(error).split()))

    def stacked(loaded: Sequence[_Loaded]) -> Batch:
        images = np.zeros((batch_size, *like.shape), like.dtype)
        inside = None if listing.objects is None else np.zeros(images.shape[:-1], bool)
        for i, each in enumerate(loaded):
            if each.image is not None:
                images[i] = each.image
            if inside is not None and each.inside is not None:
                inside[i] = each.inside
        return Batch(images, inside, [each.error for each in loaded])

    ahead = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(2 * batch_size, threads)
    )
    loaded = grain.MapDataset.source(indices).map(load).to_iter_dataset(ahead)
    yield from loaded.batch(batch_size, batch_fn=stacked)


def _check(image: np.ndarray, like: jax.ShapeDtypeStruct) -> None:
    if (image.shape, image.dtype) != (like.shape, like.dtype):
        raise UsageError(
            f"preprocess gave {image.dtype}{list(image.shape)}, and {like.dtype}{list(like.shape)} "
            "of a picture of 256 x 256 pixels; let it give all images one size and dtype"
        )
    if not np.isfinite(image).all():  # which a ReLU on a CPU may turn into zeros
        raise UsageError("preprocess gave NaN or infinity")
