"""Cutting a model at a layer: tag the layer's output, trace the model, split its program there.

What neither leads to the tagged value nor depends on it, such as a shortcut around the layer, goes
before the cut too: there it is computed once.
"""

import dataclasses
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.core
from jaxtyping import Array, Float, PyTree

from jaxcam._src.base import ApplyFn, Head, HeadFn, Layer, SplitFn
from jaxcam._src.cut.attended import attended, attention_weights
from jaxcam._src.cut.calls import name_calls
from jaxcam._src.cut.cropped import cropped
from jaxcam._src.cut.depthwise import depthwise_on_cpu
from jaxcam._src.cut.ending import name_of_ending, to_logits
from jaxcam._src.cut.find import choose, find_hits, find_mapped
from jaxcam._src.cut.frameworks import check_apply_fn, maker_of
from jaxcam._src.cut.necks import OnTheWay, on_the_way
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import partition, reaches
from jaxcam._src.cut.running import run
from jaxcam._src.cut.tag import (
    Joined,
    Layout,
    Lies,
    batch_of_one,
    has_others,
    laid_out,
    mark_image,
    tag,
    without_batch,
)
from jaxcam._src.cut.traced import traced
from jaxcam._src.names import brief

__all__ = [
    "Joined",
    "Layout",
    "Lies",
    "OnTheWay",
    "attended",
    "attention_weights",
    "batch_of_one",
    "check_apply_fn",
    "depthwise_on_cpu",
    "has_others",
    "hoisted",
    "laid_out",
    "layers",
    "maker_of",
    "mark_image",
    "name_calls",
    "on_the_way",
    "split",
    "tag",
    "to_logits",
    "without_batch",
]


def layers(
    apply_fn: ApplyFn,
    variables: PyTree,
    image: Any,
    *,
    matching: str = "*",
    every: bool = False,
) -> tuple[Layer, ...]:
    """Lists where a model can be cut, in the order of execution. Traces; computes nothing.

    Args:
      apply_fn: `(variables, image) -> logits`, with tagged layers.
      variables: arrays or `jax.ShapeDtypeStruct`s.
      image: `[*spatial, C]`, an array or a `jax.ShapeDtypeStruct`.
      matching: which names, as a shell would match them: "blocks/*/conv?".
      every: lists too what no map can be made of: what does not depend on the image, such as a
        parameter, and of a layer that returns several arrays those without positions.

    Raises:
      ValueError: `apply_fn` is a model or a method of one; it names the adapter.

    >>> jaxcam.layers(apply_fn, variables, image)[0].name
    'stem'
    """
    check_apply_fn(apply_fn)
    jaxpr = traced(apply_fn, variables, image)[0].jaxpr
    found = find_hits(jaxpr.eqns) if every else find_mapped(jaxpr, len(jax.tree.leaves(image)))
    runs: dict[Layer, int] = {}
    for hit in found:
        if hit.closed_by is None and fnmatchcase(hit.name, matching):
            layer = Layer(hit.name, hit.shape, hit.dtype, 0, hit.leaf, hit.path)
            runs[layer] = runs.get(layer, 0) + hit.runs
    return tuple(dataclasses.replace(layer, runs=count) for layer, count in runs.items())


def split(
    apply_fn: ApplyFn, layer: str, *, occurrence: int | None = None, leaf: int | str | None = None
) -> SplitFn:
    """Cuts a model at a layer: what leads to the activations, and what follows from them.

    Args:
      apply_fn: `(variables, image) -> logits`, with tagged layers.
      layer: name of the layer; `jaxcam.layers` lists them.
      occurrence: which run of a layer that runs several times, from 0; -1 is the last.
      leaf: which array of a layer that returns several, by its number or its key.

    Returns:
      `split_fn(variables, image) -> (activations, head)` with `head(activations) -> logits`.
      What does not depend on the activations is computed by `split_fn`, once, however often
      `head` runs. `split_fn` traces the model at each call: call it inside the jitted function.

    Raises:
      ValueError: by `split_fn`, where the model cannot be cut there, saying what to choose
        instead; by `head`, for activations of another shape or dtype.

    >>> activations, head = jaxcam.split(apply_fn, "stage3")(variables, image)
    >>> activations.shape, head(activations).shape
    ((16, 16, 64), (10,))
    """

    check_apply_fn(apply_fn)
    if not isinstance(layer, str):
        raise ValueError(f"layer is {brief(layer)}; wanted its name, as jaxcam.layers lists them")

    def split_fn(variables: PyTree, image: Array) -> tuple[Array, HeadFn]:
        closed, shapes = traced(apply_fn, variables, image)
        leaves = len(jax.tree.leaves(image))
        wanted, lies = choose(closed.jaxpr, layer, occurrence, leaf, leaves)
        program, constants = opened(closed, wanted=wanted)
        prefix, suffix = partition(program, layer)
        arguments = [*constants, *jax.tree.leaves((variables, image))]
        activations, *residuals = run(prefix, arguments)

        def head_fn(activations: Array) -> PyTree:
            _check_like(activations, suffix.invars[0].aval, layer)
            inputs = (activations, *residuals, *arguments)
            outputs = jax.core.eval_jaxpr(suffix, (), *inputs)
            return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

        own = prefix.invars[len(arguments) - leaves :]
        return activations, Head(head_fn, **_shown(program, prefix, own, lies))

    split_fn.apply_fn = apply_fn  # pyright: ignore[reportFunctionMemberAccess]
    return split_fn


def _shown(program: Any, prefix: Any, image: list[Any], lies: list[Lies]) -> dict[str, Any]:
    """What the program shows, and of all runs of a layer, as `Head` says it."""
    tokens = {(each.joined, each.before) for each in lies}
    joined, before = tokens.pop() if len(tokens) == 1 else (None, 0)
    return {
        "ending": name_of_ending(program),
        "sees_image": reaches(prefix, image, prefix.outvars[0]),
        "axes_proven": all(each.order is not None for each in lies),
        "tokens": joined,
        "before": before,
        "positionless": all(each.positionless for each in lies),
        "disordered": any(each.disordered for each in lies),
        "cropped": cropped(prefix, *image) if len(image) == 1 else None,
    }


def hoisted(f: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A function without the values it closes over, and those: `f(*x) == pure(values, *x)`.

    Args:
      f: traced for `arguments`, arrays or `jax.ShapeDtypeStruct`s.
    """
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*arguments)
    program, structure = closed.jaxpr, jax.tree.structure(shapes)  # JAX's caches keep what is pure

    def pure(closed_over: list[Any], *arguments: Any) -> Any:
        outputs = jax.core.eval_jaxpr(program, closed_over, *jax.tree.leaves(arguments))
        return jax.tree.unflatten(structure, outputs)

    return pure, closed.consts


def _check_like(activations: Float[Array, "..."], wanted: Any, layer: str) -> None:
    if (activations.shape, activations.dtype) != (wanted.shape, wanted.dtype):
        raise ValueError(
            f"the head of layer {layer!r} got activations {activations.dtype}"
            f"{list(activations.shape)}; it was cut for {wanted.dtype}{list(wanted.shape)}, "
            "which is what split_fn returns; for another image cut again"
        )
