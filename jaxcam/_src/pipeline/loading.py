"""Images decoded in parallel, in batches of one shape."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxcam._src.base import Model
from jaxcam._src.files import UsageError, preprocessed


class Batch(NamedTuple):
    """Images `[batch_size, *size, C]`, zeros where there is none, and why there is none.

    Attributes:
      images: as the model takes them.
      errors: for each image of the batch what is wrong with it, or None; of a last batch that is
        not full, for those that there are.
    """

    images: np.ndarray
    errors: list[str | None]


def batches(
    model: Model,
    like: jax.ShapeDtypeStruct,
    root: Path,
    names: Sequence[str],
    batch_size: int,
    threads: int,
) -> Iterator[Batch]:
    """Yields all images in order, read and preprocessed by `threads` threads ahead of their use."""
    import grain

    def load(name: str) -> tuple[np.ndarray | None, str | None]:
        try:
            image = preprocessed(model, root / name)
        except UsageError as error:
            return None, " ".join(str(error).split())
        if (image.shape, image.dtype) != (like.shape, like.dtype):
            wanted = f"{like.dtype}{list(like.shape)}, as for any picture of 256 x 256 pixels"
            return None, f"preprocess gave {image.dtype}{list(image.shape)}; wanted {wanted}"
        if not np.isfinite(image).all():  # which a ReLU on a CPU may turn into zeros
            return None, "preprocess gave NaN or infinity"
        return image, None

    def stacked(loaded: Sequence[tuple[np.ndarray | None, str | None]]) -> Batch:
        images = np.zeros((batch_size, *like.shape), like.dtype)
        for i, (image, _) in enumerate(loaded):
            images[i] = 0 if image is None else image
        return Batch(images, [error for _, error in loaded])

    ahead = grain.ReadOptions(
        num_threads=threads, prefetch_buffer_size=max(2 * batch_size, threads)
    )
    loaded = grain.MapDataset.source(names).map(load).to_iter_dataset(ahead)
    yield from loaded.batch(batch_size, batch_fn=stacked)
