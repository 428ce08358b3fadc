"""Tokens as a grid: what turns a transformer's layer into a place for class activation maps."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxcam._src.base import ApplyFn, Head, HeadFn, SplitFn
from jaxcam._src.checks import check_ordered
from jaxcam._src.cut import Joined, Lies, split
from jaxcam._src.derivatives.structure import depends
from jaxcam._src.names import named

_MOST_EXTRA = 8  # class and register tokens that are looked for


def token_grid(
    apply_fn: ApplyFn,
    layer: str | SplitFn,
    *,
    extra: int | None = None,
    grid: tuple[int, ...] | None = None,
) -> SplitFn:
    """Cuts a model at a layer of tokens, and lays the image's tokens out as a grid.

    `explainer` and `tap` take the result in place of a layer. The tokens `[tokens, K]` of one
    image are `extra` ones (class, registers), then those of the patches: in the order that the
    program shows, else row by row. The extra ones keep their values and are no part of the map; so
    do those that the program shows behind the patches.

    Args:
      apply_fn: as for `explainer`.
      layer: the name of a layer that returns tokens, or what `split` returns.
      extra: how many tokens come before the patches; None infers it.
      grid: of the patches, `(h, w)`; None takes what the program shows, or else, for pictures and
        signals, the proportions of the image, as of square patches.

    Returns:
      `(variables, image) -> (activations [*grid, K], head)`.

    Raises:
      ValueError: by the result, where the layer returns no tokens, where no grid or several fit,
        where no grid is given and the program shows that some are left out or lie in another
        order, such as window by window, that weights made the tokens, as queries do, or that they
        lie along some axes of the image alone; or where the patches' tokens cannot reach what the
        model returns: in the last block of a transformer that classifies by its class token, say.

    >>> def network(variables, image):  # 16 x 16 tokens of 4 x 4 pixels
    ...     tokens = image.reshape(16, 4, 16, 4).transpose(0, 2, 1, 3).reshape(256, 16)
    ...     return jaxcam.tag(tokens @ variables, "tokens").mean(0)
    >>> on_patches = jaxcam.explainer(network, jaxcam.token_grid(network, "tokens"))
    >>> on_patches(jnp.ones((16, 3)), image).cam.shape
    (16, 16)
    """

    def split_fn(variables: PyTree, image: Array) -> tuple[Array, HeadFn]:
        at = split(apply_fn, layer) if isinstance(layer, str) else layer
        tokens, head = at(variables, image)
        if tokens.ndim != 2:
            raise ValueError(
                f"{named(layer)} returns {list(tokens.shape)}; wanted tokens [tokens, K]. A layer "
                "that returns [*spatial, K] needs no token_grid"
            )
        first, joined = _placed(head, tokens, image.shape[:-1], extra, grid, layer)
        lies, laid = _lies(joined), [n for _, n in joined]
        end = first + math.prod(laid)

        def grid_head(activations: Float[Array, "*grid K"]) -> Any:
            patches = lies.unseen(activations, activations.shape).reshape(-1, tokens.shape[-1])
            parts = tokens[:first], patches.astype(tokens.dtype), tokens[end:]
            return head(jnp.concatenate(parts))

        activations = lies.seen(tokens[first:end].reshape(*laid, -1))
        _check_reach(grid_head, activations, layer)
        return activations, _of_grid(head, grid_head)

    split_fn.apply_fn = apply_fn  # pyright: ignore[reportFunctionMemberAccess]
    return split_fn


def _of_grid(head: HeadFn, run: HeadFn) -> HeadFn:
    """The head of a grid: the axes are shown, and the order of tokens says nothing any more."""
    if not isinstance(head, Head):
        return run
    return Head(run, head.ending, head.sees_image, axes_proven=True, cropped=head.cropped)


def _placed(
    head: HeadFn,
    tokens: Array,
    size: tuple[int, ...],
    extra: int | None,
    grid: tuple[int, ...] | None,
    layer: str | SplitFn,
) -> tuple[int, Joined]:
    """How many tokens come before those of the patches, and what these are joined of."""
    if isinstance(head, Head) and grid is None:
        check_ordered(head, f"{named(layer)} returns {list(tokens.shape)}")
        _check_shown(head, f"{named(layer)} returns {list(tokens.shape)}", size)
    joined = (head.tokens if isinstance(head, Head) else None) or ()
    is_whole = sorted(map(_forwards, joined)) == [*range(len(size))]
    if isinstance(head, Head) and is_whole and grid in (None, _grid_of(joined)):
        if extra not in (None, head.before):
            raise ValueError(
                f"extra={extra}, but the program shows {head.before} tokens before those of the "
                f"patches {_grid_of(joined)}; leave out extra="
            )
        return head.before, joined
    first, shape = _layout(len(tokens), size, extra, grid)
    return first, tuple(enumerate(shape))


def _check_shown(head: Head, returns: str, size: tuple[int, ...]) -> None:
    """Refuses tokens that are not those of patches in all axes of the image."""
    if head.positionless:
        raise ValueError(
            f"{returns}, tokens that weights made of others, as queries do, so that none is of one "
            "patch; choose a layer before, or give grid= if they were trained to have one"
        )
    axes = {_forwards(part): part[1] for part in head.tokens or ()}
    if 0 < len(axes) < len(size):
        grid = tuple(axes.get(axis, 1) for axis in range(len(size)))
        along = ", ".join(map(str, axes))
        raise ValueError(
            f"{returns}, tokens along axis {along} of the image {[*size]} alone, as the program "
            f"shows; give grid=, such as grid={grid}"
        )


def _forwards(part: tuple[int, int]) -> int:
    """Which axis of the image this is a part of the tokens of."""
    axis, _ = part
    return max(axis, ~axis)


def _grid_of(joined: Joined) -> tuple[int, ...]:
    """The sizes in the order of the image's axes."""
    return tuple(n for _, n in sorted(joined, key=_forwards))


def _lies(joined: Joined) -> Lies:
    """How the grid of the image lies in tokens that are parted into these axes."""
    axes = [*map(_forwards, joined)]
    order = (*(axes.index(axis) for axis in range(len(axes))), len(axes))
    return Lies(order=order, flipped=tuple(~axis for axis, _ in joined if axis < 0))


def _layout(
    tokens: int, size: tuple[int, ...], extra: int | None, grid: tuple[int, ...] | None
) -> tuple[int, tuple[int, ...]]:
    """How many tokens are extra, and the grid of the others: that given, or one in proportion."""
    if grid is None and len(size) > 2:
        raise ValueError(
            f"{tokens} tokens of an image {list(size)}: of a volume or a video patches are seldom "
            "cubes, so give the grid of patches, such as grid=(8, 14, 14)"
        )
    sides = math.gcd(*size)
    grids = {tuple(n // p for n in size) for p in range(1, sides + 1) if sides % p == 0}
    counts = range(_MOST_EXTRA + 1) if extra is None else [extra]
    wanted = sorted({*grids} if grid is None else {grid})
    found = [(e, g) for e in counts for g in wanted if e + math.prod(g) == tokens]
    if grid is None and not extra:  # patches that leave a rest of the image out
        rough = {tuple(n // p for n in size) for p in range(1, min(size) + 1)} - grids
        found += [(0, g) for g in sorted(rough) if math.prod(g) == tokens]
    if len(found) == 1:
        return found[0]
    known = f"extra={extra}, grid={grid} and {tokens} tokens of an image {list(size)}"
    if not found:
        raise ValueError(
            f"no grid fits {known}; give the class and register tokens before the patches as "
            "extra=, and the rows and columns of patches as grid="
        )
    several = ", ".join(f"extra={e} with grid={g}" for e, g in found)
    raise ValueError(f"several grids fit {known}: {several}; choose one with extra= or grid=")


def _check_reach(head: HeadFn, activations: Array, layer: str | SplitFn) -> None:
    def total(activations):
        sums = [jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(head(activations))]
        return jnp.sum(jnp.stack(sums))

    if not depends(total, activations):
        raise ValueError(
            f"the patches' tokens of {named(layer)} cannot reach what the model returns: only its "
            "extra tokens do, and every gradient is zero. Choose a layer before the last "
            "attention, such as the first normalisation of the last block"
        )
