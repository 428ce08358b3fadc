"""Methods that look at the attention weights of several layers, of transformers alone.

Of the layer that they are given they take the grid of patches alone. The keys beyond the grid are
those of the extra tokens (class, registers), which come first, as in `jaxcam.token_grid`.
"""

import math
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.base import Attention, Tap
from jaxcam._src.names import brief

_MOST_EXTRA = 8  # class and register tokens that are taken for such unasked


def attention_rollout(
    tap: Tap,
    *,
    layers: Sequence[str] | None = None,
    queries: int | slice | None = None,
    extra: int | None = None,
) -> Float[Array, "*spatial"]:
    """Attention rollout: the product of all layers' attention, shortcuts counted as a half.

    `R = B_L ... B_1` with `B_l = (mean_h A_l + I) / 2` (Abnar and Zuidema 2020,
    https://arxiv.org/abs/2005.00928), read where the class token asks. A map and no weights.

    Args:
      layers: names of attention weights, found (`jaxcam.attention_weights` lists them) or tagged
        by hand, `[heads, queries, keys]`; None takes all that are found.
      queries: which tokens' rows of R are averaged. None is the class token, 0, where there are
        tokens beside the patches, and all of them where there are none.
      extra: how many tokens come before the patches; None infers it, up to 8.

    Cost: none
    Avoid: to tell classes apart, since the score is not looked at

    Returns:
      The map, `[*spatial]`, in [0, 1].

    Raises:
      ValueError: there is no attention, some that is not found, or some that runs side by side, as
        heads in a loop do; weights are not `[heads, tokens, tokens]` of one number of tokens, or
        these are not the grid of the layer and a few more.

    >>> vit = jaxcam.digits_vit()
    >>> tap = jaxcam.tap(vit.apply_fn, "grid", vit.variables, image)
    >>> jaxcam.attention_rollout(tap).shape
    (8, 8)
    """
    found = _in_a_row(tap.attention(layers))
    first = _count_extra(tap, found, extra, square=True)
    means = [accumulated(weights).mean(axis=0) for weights in found.weights.values()]
    row = _start(means[0], first, queries)
    for mean in reversed(means):
        row = (row + _times(row, mean)) / 2
    return _on_grid(row, first, tap)


def generic_attention(
    tap: Tap,
    *,
    layers: Sequence[str] | None = None,
    queries: int | slice | None = None,
    extra: int | None = None,
) -> Float[Array, "*spatial"]:
    """Generic Attention-model Explainability: attention weighted by its gradient, rolled out.

    `R = (I + B_L) ... (I + B_1)` with `B_l = mean_h relu(A_l * dS/dA_l)`: the paper's rule for
    self-attention, `R <- R + B R` (Chefer et al. 2021, https://arxiv.org/abs/2103.15679), read
    where the class token asks. A map and no weights.

    Args:
      layers: as for `attention_rollout`.
      queries: likewise.
      extra: likewise.

    Cost: 1 forward and backward
    Avoid: models without a class token, of which the paper says nothing; all queries are averaged

    Returns:
      The map, `[*spatial]`, at least 0.

    Raises:
      ValueError: as for `attention_rollout`.

    >>> vit = jaxcam.digits_vit()
    >>> tap = jaxcam.tap(vit.apply_fn, "grid", vit.variables, image)
    >>> jaxcam.generic_attention(tap).shape
    (8, 8)
    """
    found = _in_a_row(tap.attention(layers))
    first = _count_extra(tap, found, extra, square=True)
    pairs = zip(found.weights.values(), _gradients(found), strict=True)
    means = [jax.nn.relu(accumulated(a) * g).mean(axis=0) for a, g in pairs]
    row = _start(means[0], first, queries)
    for mean in reversed(means):
        row = row + _times(row, mean)
    return _on_grid(row, first, tap)


def legrad(
    tap: Tap,
    *,
    blocks: Sequence[str],
    layers: Sequence[str] | None = None,
    extra: int | None = None,
) -> Float[Array, "*spatial"]:
    """LeGrad: the positive gradient of each block's own score along its attention weights.

    `M = mean_l mean_h mean_q relu(dS_l/dA_l)`, where `S_l` is the score of what the model makes of
    the tokens that block l returns, with all blocks behind it left out (Bousselham et al. 2024,
    https://arxiv.org/abs/2404.03214). Where the model takes the class token, so does `S_l`; the
    authors' code for CLIP takes the mean of the tokens there, and by default the last two blocks
    (https://github.com/WalBouss/LeGrad). A map and no weights.

    Args:
      blocks: names of the layers that return the tokens, `["block1", "block2", "block3"]`, the last
        of them that which the model's classifier follows. The gradient of each is that along the
        last attention weights before it.
      layers: as for `attention_rollout`; among them are those of the blocks.
      extra: likewise.

    Cost: 1 forward and backward
    Avoid: as evidence of early blocks, whose tokens the classifier was not trained on

    Returns:
      The map, `[*spatial]`, in units of the score, at least 0.

    Raises:
      ValueError: there is no such block, no attention before it, or a way around it; or as for
        `attention_rollout`.

    >>> vit = jaxcam.digits_vit()
    >>> tap = jaxcam.tap(vit.apply_fn, "grid", vit.variables, image)
    >>> jaxcam.legrad(tap, blocks=["block1", "block2", "block3"]).shape
    (8, 8)
    """
    return _mean_gradient(tap, tap.attention(layers, blocks), extra)


def legrad_final(
    tap: Tap, *, layers: Sequence[str] | None = None, extra: int | None = None
) -> Float[Array, "*spatial"]:
    """LeGrad's formula with one score: the positive gradient along all layers' attention weights.

    `M = mean_l mean_h mean_q relu(dS/dA_l)`, with the model's score S where LeGrad has each
    block's own (https://arxiv.org/abs/2404.03214); so it needs no names, and is not LeGrad, but for
    the last block's share. A map and no weights.

    Args:
      layers: as for `attention_rollout`.
      extra: likewise.

    Cost: 1 forward and backward
    Avoid: where the blocks have names, since `legrad` takes them and is the paper's

    Returns:
      The map, `[*spatial]`, in units of the score, at least 0.

    Raises:
      ValueError: as for `attention_rollout`.

    >>> vit = jaxcam.digits_vit()
    >>> tap = jaxcam.tap(vit.apply_fn, "grid", vit.variables, image)
    >>> jaxcam.legrad_final(tap).shape
    (8, 8)
    """
    found = tap.attention(layers)
    return _mean_gradient(tap, _in_a_row(found) if layers is None else found, extra)


def _in_a_row(found: Attention) -> Attention:
    """The weights, if each depends on those before."""
    if found.apart:
        one, other = found.apart
        raise ValueError(
            f"the attention {one!r} and {other!r} run side by side, as heads of their own, on "
            "another input or before a cross-attention; wanted weights of one chain: choose them "
            f"with layers=, among {[*found.weights]}"
        )
    return found


def _mean_gradient(tap: Tap, found: Attention, extra: int | None) -> Array:
    first = _count_extra(tap, found, extra, square=False)
    shares = [jax.nn.relu(gradient).mean(axis=(0, 1)) for gradient in _gradients(found)]
    return _on_grid(jnp.stack(shares).mean(axis=0), first, tap)


def _gradients(found: Attention) -> Iterable[Array]:
    """Along the weights of all layers, in one backward pass."""
    zeros = [jnp.zeros_like(weights) for weights in found.weights.values()]
    return map(accumulated, jax.grad(found.score)(zeros))


def _times(row: Float[Array, " tokens"], weights: Float[Array, "tokens keys"]) -> Array:
    return jnp.matmul(row, weights, precision="highest")


def _start(like: Float[Array, "tokens tokens"], first: int, queries: int | slice | None) -> Array:
    """The mean of the unit rows that are read; of a product of matrices only these are needed."""
    chosen = (0 if first else slice(None)) if queries is None else queries
    try:
        rows = np.atleast_2d(np.eye(len(like))[chosen])
    except IndexError:
        rows = np.empty((0, len(like)))
    if not len(rows):
        raise ValueError(f"queries={brief(queries)} chooses none of {len(like)} tokens")
    return jnp.asarray(rows.mean(axis=0), like.dtype)


def _on_grid(row: Float[Array, " keys"], first: int, tap: Tap) -> Array:
    return row[first:].reshape(tap.activations.shape[:-1])


def _count_extra(tap: Tap, found: Attention, extra: int | None, *, square: bool) -> int:
    """How many tokens come before those of the grid, where the weights fit it."""
    grid = tap.activations.shape[:-1]
    shapes = {name: weights.shape for name, weights in found.weights.items()}
    keys = {shape[-1] for shape in shapes.values()}
    asking = {shape[-2] for shape in shapes.values()} if square else keys
    if len(keys) > 1 or asking != keys or any(len(shape) > 3 for shape in shapes.values()):
        listed = ", ".join(f"{name!r} {[*shape]}" for name, shape in shapes.items())
        raise ValueError(
            f"the attention weights are {listed}; wanted [heads, tokens, tokens] of the same "
            "tokens in all, not in windows: choose among them with layers="
        )
    (count,) = keys
    first = count - math.prod(grid)
    # Other keys than queries are no tokens alone: a sink, say, which may come last.
    is_known = {shape[-2] for shape in shapes.values()} == keys and 0 <= first <= _MOST_EXTRA
    if first != extra and not (extra is None and (is_known or first == 0)):
        given = "" if extra is None else f" and extra={extra}"
        raise ValueError(
            f"the attention has {count} tokens, and the layer a grid {[*grid]}{given}; wanted a "
            "layer with a position for each patch, such as jaxcam.token_grid(apply_fn, name), and "
            f"as extra= the tokens before them, of which up to {_MOST_EXTRA} are taken unasked"
        )
    return first
