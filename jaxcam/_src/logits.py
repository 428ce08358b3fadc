"""What all scores share: the logit of a target, and what is refused of logits and targets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxcam._src.arithmetic import accumulated, nan_where
from jaxcam._src.names import brief


class LogitsError(ValueError):
    """A model returned no logits of one image."""


def pick(values: Any, target: Any) -> Float[Array, ""]:
    """The logit of a target, in float32 at least; NaN where that is no class inside a trace."""
    if getattr(values, "ndim", None) != 1:
        raise LogitsError(
            f"the model returned {shapes_of(values)}; wanted logits [classes] for one image. For a "
            "batch of images use jax.vmap(explain, in_axes=(None, 0)); else let apply_fn return "
            "the logits (adapters: output_fn=, such as lambda output: output.logits), or pass a "
            "score_fn of your own"
        )
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise LogitsError(f"the model returned {values.dtype}[{len(values)}]; wanted real logits")
    if not jnp.issubdtype(getattr(target, "dtype", type(target)), jnp.integer):
        raise ValueError(f"target is {brief(target)}; wanted the index of a class, an integer")
    if np.ndim(target):
        raise ValueError(
            f"target has the shape {list(np.shape(target))}; wanted the index of one class; for "
            "several targets use jax.vmap(explain, in_axes=(None, None, 0))"
        )
    is_known = _checked_as_known(target, len(values))
    index = jnp.asarray(target, int)  # of 8 bits, it could not be compared with 256 classes
    values = accumulated(values)
    picked = lax.dynamic_slice(values, (index,), (1,), allow_negative_indices=False)
    picked = lax.squeeze(picked, (0,))
    if is_known:
        return picked
    # The gradient is NaN where the score is: a wrong target shows in the map.
    first, last = index.dtype.type(0), index.dtype.type(len(values) - 1)
    unknown = lax.bitwise_or(lax.lt(index, first), lax.gt(index, last))
    return lax.mul(nan_where(unknown, values.dtype), picked)


def check_several(logits: Array, name: str) -> None:
    """Refuses a single logit, of which there is no softmax."""
    if len(logits) < 2:
        raise ValueError(
            f"{name} compares classes, and there is one logit; use jaxcam.logit for a regression, "
            "and for a network that ends in a sigmoid jaxcam.binary_logit or "
            "jaxcam.binary_probability, with target 1 or 0"
        )


def _checked_as_known(target: Any, classes: int) -> bool:
    """Whether a target has a known value, as outside a trace; one that is no class is refused."""
    try:
        known = int(target)
    except jax.errors.ConcretizationTypeError:
        return False
    if not 0 <= known < classes:
        raise ValueError(f"target {known} is no class; the model has classes 0 to {classes - 1}")
    return True


def shapes_of(values: PyTree) -> str:
    """The shapes by name. No pytree is made of them: some records hold nothing but arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(values)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    shapes = {name: jnp.shape(x) for name, (_, x) in zip(names, leaves, strict=True)}
    return str(shapes.get("", f"{type(values).__name__} {shapes}"))
