"""A model as another program of the same arguments; to cut it, nothing is traced once more."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.core
from jax.extend import core as jex
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.traced import program_of

# Of a program and the image, what `opened` returns: the new one, and its constants.
Rewrite: TypeAlias = Callable[[Any, Any], tuple[Any, list[Any]]]


def rewritten(apply_fn: ApplyFn, rewrite: Rewrite) -> ApplyFn:
    """The same model with its program changed, to one that returns a pytree of the same structure.

    Args:
      apply_fn: `(variables, image) -> logits`.
      rewrite: changes what `jax.make_jaxpr` returns, for this image.
    """

    def program_fn(variables: PyTree, image: Any) -> tuple[Any, PyTree]:
        closed, shapes = program_of(apply_fn, variables, image)
        program, constants = rewrite(closed, image)
        constvars, invars = program.invars[: len(constants)], program.invars[len(constants) :]
        program = program.replace(constvars=constvars, invars=invars)
        return jex.ClosedJaxpr(program, constants), shapes

    def rewritten_fn(variables: PyTree, image: Array) -> PyTree:
        closed, shapes = program_fn(variables, image)
        leaves = jax.tree.leaves((variables, image))
        outputs = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *leaves)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    # With the function that it is of: what wraps that one takes over its attributes.
    programs = rewritten_fn, program_fn
    rewritten_fn.programs = programs  # pyright: ignore[reportFunctionMemberAccess]
    return rewritten_fn
