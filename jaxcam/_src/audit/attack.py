"""A change to a network that no answer shows and every map of a logit does."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import split, tag


def shift_logits(apply_fn: ApplyFn, layer: str, shift_fn: Callable[[Array], Array]) -> ApplyFn:
    """Makes a network with the same answers and other explanations.

    It adds one number, `shift_fn(activations)`, to all logits. No probability changes; the
    gradient of a logit does, and with it every map of `score_fn=jaxcam.logit`. Maps of
    `jaxcam.log_probability` and `jaxcam.probability` stay (Lerma & Lucas 2023,
    https://arxiv.org/abs/2307.03305).

    Args:
      apply_fn: `(variables, image) -> logits`, with tagged layers.
      layer: the layer whose maps are attacked; the network returned has this layer only.
      shift_fn: activations `[*spatial, K]` of the layer -> scalar.

    Returns:
      `(variables, image) -> logits`.

    Raises:
      ValueError: by the network, where `split` cannot cut at the layer.

    >>> shifted = jaxcam.shift_logits(apply_fn, "stage3", lambda activations: activations.sum())
    >>> answers = [jax.nn.softmax(f(variables, image)) for f in (apply_fn, shifted)]
    >>> bool(jnp.allclose(*answers, atol=1e-4))
    True
    """

    def shifted(variables: PyTree, image: ArrayLike) -> Any:
        activations, head = split(apply_fn, layer)(variables, jnp.asarray(image))
        activations = tag(activations, layer)
        return head(activations) + shift_fn(activations)

    return shifted
