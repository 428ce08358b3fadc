"""The batch axis of one that modules expect and this library does not have."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from jaxcam._src.cut import tag


def tag_output(output: PyTree, name: str) -> PyTree:
    """Names a layer's output without its batch axis, and puts the axis back."""
    flat, structure = jax.tree.flatten(output)
    tagged = jax.tree.leaves(tag([_first(x) for x in flat], name))
    restored = [t[None] if _is_batch(x) else t for x, t in zip(flat, tagged, strict=True)]
    return structure.unflatten(restored)


def logits_of(output: PyTree, output_fn: Callable[[Any], Any] | None) -> PyTree:
    """What an apply function returns of a module's output: its logits, for one image."""
    return jax.tree.map(_first, output if output_fn is None else output_fn(output))


def _is_batch(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.ndim > 0 and x.shape[0] == 1


def _first(x: Any) -> Any:
    return x[0] if _is_batch(x) else x
