"""What an explanation says as a whole, be it of one layer or of several."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import PyTree

from jaxcam._src.base import Explanation
from jaxcam._src.maps import REASONS


def why_flat(explanation: Explanation) -> str | None:
    """Says why the map of an explanation is flat, and so its heatmap 0 everywhere.

    Args:
      explanation: of one image, outside of a trace.

    Returns:
      The reason, for several layers that of the last; None where the map is not flat, or NaN.

    Raises:
      ValueError: the explanation is one of several images.

    >>> explanation = jaxcam.explainer(apply_fn, "stage3")(variables, image)
    >>> print(jaxcam.why_flat(explanation))
    None
    """
    code = _flat(explanation)
    if jnp.ndim(code):
        raise ValueError(
            f"got an explanation of {len(code)} images; wanted that of one, such as "
            "jax.tree.map(lambda x: x[0], explanation)"
        )
    return REASONS[int(code)]


def of_one_map(explain: Callable[..., Explanation]) -> Callable[..., Explanation]:
    """The same function, whose explanations are of one map."""

    def one(variables: PyTree, image: Any, target: Any = None) -> Explanation:
        return one_map(explain(variables, image, target))

    return one


def one_map(explanation: Explanation) -> Explanation:
    """The same explanation where one layer is explained; of several, one of one map.

    The fused heatmap `[*size]` is that map, and the weights are those of the last layer.
    """
    if not isinstance(explanation.cam, tuple):
        return explanation
    return dataclasses.replace(
        explanation,
        cam=explanation.heatmap,
        weights=explanation.weights[-1],
        flat=_flat(explanation),
    )


def _flat(explanation: Explanation) -> Any:
    """Why the heatmap is flat, an index of `REASONS`: that of the last layer, if all are flat."""
    if not isinstance(explanation.flat, tuple):
        return explanation.flat
    codes = jnp.stack(explanation.flat)
    return jnp.where((codes != 0).all(axis=0), codes[-1], 0)
