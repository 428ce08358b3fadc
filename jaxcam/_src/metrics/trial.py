"""The record that metrics look at."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Float

from jaxcam._src.base import Key


@dataclasses.dataclass(frozen=True)
class Trial:
    """All that a metric may look at: one image, one target, one map of it, and the model to ask.

    A trial holds functions and lives inside one trace; it is no pytree.

    Attributes:
      image: `[*size, C]`, as the model takes it.
      heatmap: `[*size]` in [0, 1]; 0 everywhere where the map is flat.
      logits: what the model returns for the image.
      target: what is explained.
      score: of the image; a probability, unless another score judges.
      score_image: the score as a function of the image, always for this target.
      heatmap_of: image -> its heatmap by the same method, for the same target.
      heatmap_for: target -> the heatmap of this image by the same method.
      key: for random numbers.
      inside: True on the object, `[*size]`; None where nobody said where it is.
    """

    image: Float[Array, "*size C"]
    heatmap: Float[Array, "*size"]
    logits: Any
    target: Any
    score: Array
    score_image: Callable[[Array], Array]
    heatmap_of: Callable[[Array], Array]
    heatmap_for: Callable[[Any], Array]
    key: Key
    inside: Array | None = None

    @functools.cached_property
    def masked(self) -> Array:
        """The image times its heatmap."""
        return self.image * self.heatmap[..., None].astype(self.image.dtype)

    @functools.cached_property
    def masked_score(self) -> Array:
        """The score of the masked image."""
        return self.score_image(self.masked)

    @functools.cached_property
    def masked_heatmap(self) -> Array:
        """The heatmap of the masked image."""
        return self.heatmap_of(self.masked)

    @property
    def object(self) -> Array:
        """Where the object is.

        Raises:
          ValueError: nobody said.
        """
        if self.inside is None:
            raise ValueError(
                "a metric of localization wants to know where the object is; give evaluate(..., "
                "inside=mask), True on the object, of the image's size"
            )
        return self.inside


MetricFn: TypeAlias = Callable[[Trial], Array]
