"""The program of a user's model, and one line where it has none for an image."""

import os
import re
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.axes import laid_as_proven
from jaxcam._src.names import brief

_OWN = f"{Path(__file__).parents[2]}{os.sep}"


def traced(apply_fn: ApplyFn, variables: PyTree, image: Any) -> tuple[Any, PyTree]:
    """The program of a model, and a pytree as it returns one.

    Raises:
      ValueError: what the model, its framework or JAX raises, in one line and with the image.
    """
    _check_given(variables, image)
    try:
        closed, shapes = program_of(apply_fn, variables, image)
    except Exception as error:
        if _says_what_to_do(error):
            raise
        known = (x for x in jax.tree.leaves(image) if hasattr(x, "shape"))
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in known)
        raise ValueError(
            f"the model does not run on the image {shapes} with these variables; wanted one image "
            "as the model takes it (of a batch use jax.vmap(explain, in_axes=(None, 0))), and all "
            f"variables of the model. {type(error).__name__}: {_in_one_line(error)}"
        ) from error
    is_one = len(jax.tree.leaves(image)) == 1
    return laid_as_proven(closed) if is_one else closed, shapes


def _check_given(variables: PyTree, image: Any) -> None:
    """Refuses what is given in another order, and variables that are no arrays."""
    if hasattr(variables, "shape") and not hasattr(image, "shape"):
        raise ValueError(
            f"got variables {brief(variables)} and an image of type {type(image).__name__}; wanted "
            "(variables, image) in this order"
        )
    for path, leaf in jax.tree.leaves_with_path(variables):
        if not (is_of_numbers(leaf) or isinstance(leaf, jax.Ref)):  # which a cut refuses itself
            raise ValueError(
                f"variables{jax.tree_util.keystr(path)} is a {type(leaf).__name__}; wanted arrays "
                "alone, as the adapter or the framework returns them; what else the model needs "
                "belongs into apply_fn"
            )


def is_of_numbers(leaf: Any) -> bool:
    """Whether JAX takes a leaf as an argument, or as the shape of one."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return True
    if not isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
        return False
    try:
        jnp.result_type(leaf)
    except (TypeError, OverflowError):
        return False
    return True


def _says_what_to_do(error: Exception) -> bool:
    """Whether this library raised it, in one line; Keras hides the frames that are its own."""
    *_, last = traceback.extract_tb(error.__traceback__)
    is_own = last.filename.startswith(_OWN) and last.filename != __file__
    return is_own and "\n" not in str(error)


def _in_one_line(error: Exception) -> str:
    """What an error says, without line breaks and the escape codes of a terminal."""
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split())


def program_of(apply_fn: ApplyFn, variables: PyTree, image: Any) -> tuple[Any, PyTree]:
    """The program of a model, closed, and a pytree as it returns one."""
    owner, program_fn = getattr(apply_fn, "programs", (None, None))
    if owner is not apply_fn or program_fn is None:
        program_fn = jax.make_jaxpr(apply_fn, return_shape=True)
    return program_fn(variables, image)
