"""Does the map depend on the weights? They are randomised from the top, layer by layer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn, Explanation, Key
from jaxcam._src.cut.order import first_uses
from jaxcam._src.metrics.agreement import spearman


def cascade(
    apply_fn: ApplyFn,
    explain: Callable[..., Explanation],
    variables: PyTree,
    image: Any,
    target: Any = None,
    *,
    key: Key,
    similarity_fn: Callable[[Array, Array], Array] = spearman,
) -> dict[str, Array]:
    """Cascading randomisation: how alike a map stays while the model forgets what it learned.

    The entries of each layer's arrays are permuted, from the layer that the model uses last to that
    which it uses first, each on top of those before (Adebayo et al. 2018,
    https://arxiv.org/abs/1810.03292; they draw new weights). A map that stays alike to the end
    shows the image and not the model, as the floor `edge_map` does.

    Args:
      apply_fn: `(variables, image) -> logits`, whose program says in which order layers are used.
      explain: an explainer of it, best under `jax.jit`.
      variables: what the model takes first, of any framework: arrays beside each other in a
        dictionary or an object are one layer.
      image: what is explained.
      target: of the explainer; None is the top class of the model as it is, for all maps.
      key: of the permutations.
      similarity_fn: of two heatmaps.

    Returns:
      For each layer, from the top, the similarity of the heatmap of the image with that of the
      model as it was, when this layer and all before are randomised.

    >>> explain = jax.jit(jaxcam.explainer(apply_fn, "stage3"))
    >>> alike = jaxcam.cascade(apply_fn, explain, variables, image, key=jax.random.key(0))
    >>> next(iter(alike))  # the layer that is randomised first
    'params/classifier'
    """
    before = explain(variables, image, target)
    leaves, treedef = jax.tree.flatten(variables)
    found = {}
    for name, places in top_down(apply_fn, variables, image):
        for place in places:
            key, own = jax.random.split(key)
            leaves[place] = _permuted(leaves[place], own)
        after = explain(treedef.unflatten(leaves), image, before.target)
        found[name] = similarity_fn(before.heatmap, after.heatmap)
    return found


def top_down(apply_fn: ApplyFn, variables: PyTree, image: Any) -> list[tuple[str, list[int]]]:
    """The layers in the reverse of the order in which they meet the image, and their leaves."""
    used = first_uses(apply_fn, variables, image)
    layers: dict[str, list[int]] = {}
    for place, (path, _) in enumerate(jax.tree.leaves_with_path(variables)):
        if place in used:
            layers.setdefault(_layer_of(path), []).append(place)
    return sorted(layers.items(), key=lambda layer: -max(used[place] for place in layer[1]))


def _layer_of(path: tuple[Any, ...]) -> str:
    """The place that an array shares with its neighbours; its own at the root and in a list."""
    alone = len(path) == 1 or isinstance(path[-1], jax.tree_util.SequenceKey)
    return jax.tree_util.keystr(path if alone else path[:-1], simple=True, separator="/")


def _permuted(leaf: Any, key: Key) -> Any:
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return leaf
    values = jnp.asarray(leaf)
    return jax.random.permutation(key, values.reshape(-1)).reshape(values.shape)
