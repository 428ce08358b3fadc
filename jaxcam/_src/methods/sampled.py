"""RISE: the score of the image behind random masks, forward passes alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated, quotient
from jaxcam._src.base import Key, Tap
from jaxcam._src.chunks import check_counts, mapped
from jaxcam._src.maps import upsample


def rise(
    tap: Tap,
    *,
    key: Key,
    samples: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    chunk_size: int = 16,
) -> Float[Array, "*spatial"]:
    """RISE: the mean score of randomly masked images, for each place over the masks that keep it.

    The map is `sum_n S(X * M_n) M_n / sum_n M_n`. A mask is a grid whose cells are kept with
    probability p, made larger by linear interpolation and moved by less than a cell (Petsiuk et
    al. 2018, https://arxiv.org/abs/1806.07421, whose score is the probability). The paper divides
    by the expected sum, `p N`, which adds the unevenness of the masks wherever scores are not 0.
    Its map has the size of the image; here it is averaged to that of the layer, of which nothing
    else is looked at. At a layer that is the image, `jaxcam.tag(image, "image")`, it has the size
    of the image too. A map and no weights.

    Args:
      key: of the masks; images explained under one `vmap` share it, unless it is mapped too.
      samples: N, masks; the paper takes 4000 for VGG16 and 8000 for ResNet-50.
      cells: of the grid, along each side.
      keep: p, above 0 and below 1.
      chunk_size: masked images in memory at once; the result does not depend on it.

    Cost: 4000 forward (samples)
    Avoid: small sample counts, where the map shows the masks

    Returns:
      The map, `[*spatial]`, in units of the score; the mean score where no mask keeps a place.

    Raises:
      ValueError: a count is below 1, or `keep` is not between 0 and 1.

    >>> jaxcam.rise(tap, key=jax.random.key(0), samples=32).shape
    (16, 16)
    """
    check_counts(samples=samples, cells=cells)
    if not 0 < keep < 1:
        raise ValueError(f"keep is {keep}; it is the share of cells kept, so choose one in (0, 1)")
    image, size = accumulated(tap.image), tap.image.shape[:-1]
    mask_at = _masks(key, size, samples, cells, keep)

    def masked_score(index):
        mask = mask_at(index)[..., None].astype(image.dtype)
        return tap.score_image((image * mask).astype(tap.image.dtype))

    scores = accumulated(mapped(masked_score, jnp.arange(samples), chunk_size))
    gains = scores - scores[0]  # so that equal scores give a flat map, without rounding

    @jax.checkpoint  # or its derivative would hold every mask
    def add(sums, index):
        mask = mask_at(index).astype(scores.dtype)
        return sums + jnp.stack([gains[index] * mask, mask]), None

    start = jnp.zeros((2, *size), scores.dtype)
    (gained, seen), _ = jax.lax.scan(add, start, jnp.arange(samples))
    means = jnp.where(seen == 0, gains.mean(), quotient(gained, seen))
    return scores[0] + jax.image.resize(means, tap.activations.shape[:-1], "linear")


def _masks(
    key: Key, size: tuple[int, ...], samples: int, cells: int, keep: float
) -> Callable[[Array], Array]:
    """Makes `index -> mask [*size]`, in [0, 1], so that not all of them are held."""
    cell = tuple(-(-side // cells) for side in size)
    large = tuple((cells + 1) * side for side in cell)
    # Drawn at once, since some generators draw other numbers in a batch, as a chunk would be.
    for_grids, for_moves = jax.random.split(key)
    grids = jax.random.bernoulli(for_grids, keep, (samples, *(cells for _ in size)))
    moves = jax.random.randint(for_moves, (samples, len(size)), 0, jnp.array([cell]))

    def mask_at(index):
        mask = upsample(grids[index].astype(jnp.float32), large)
        return jax.lax.dynamic_slice(mask, moves[index], size)

    return mask_at
