"""Which layers lie on the way from the image to the output, and which of them all of it passes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from jaxcam._src.base import ApplyFn, Layer
from jaxcam._src.cut.ending import MOVES, logits_of
from jaxcam._src.cut.find import find_hits, is_layer, layer_of
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.programs import CALLS, is_variable
from jaxcam._src.cut.tag import has_others
from jaxcam._src.cut.traced import traced


class OnTheWay(NamedTuple):
    """A layer between the image and the output, which `split` finds by its name alone.

    Attributes:
      layer: the layer.
      is_neck: whether the output sees the image through it alone: no path leads around it.
      has_others: whether the program shows tokens `[tokens, K]` that hold others than positions,
        such as a class token.
    """

    layer: Layer
    is_neck: bool
    has_others: bool


def on_the_way(apply_fn: ApplyFn, variables: PyTree, image: Any) -> list[OnTheWay]:
    """Lists the layers through which the output sees the image, in the order of execution.

    Left out are those that run several times or return several arrays, those that the program
    shows to have no positions, and those whose value is the output itself.
    """
    closed, _ = traced(apply_fn, variables, image)
    names = [hit.name for hit in find_hits(closed.jaxpr.eqns) for _ in range(min(hit.runs, 2))]
    program, _ = opened(closed, CALLS, keep_tags=True)
    own = program.invars[len(program.invars) - len(jax.tree.leaves(image)) :]
    return [
        OnTheWay(Layer(name, *layer_of(eqn), 1), is_neck, _are_mixed(eqn, own[0].aval.shape[0]))
        for name, eqn, is_neck in reversed([*_backwards(program, own)])
        if names.count(name) == 1 and not eqn.params["lies"].positionless
    ]


def _are_mixed(eqn: Any, length: int) -> bool:
    shape, _ = layer_of(eqn)
    return len(shape) == 2 and has_others(eqn.params["lies"].joined, shape[0], length)


def _backwards(program: Any, image: list[Any]) -> Iterator[tuple[str, Any, bool]]:
    """The tags that see the image and reach the output, from the last to the first.

    In any order of execution a value is a neck exactly if, once it is made, nothing else that sees
    the image is still to be used.
    """
    seeing = _seeing(program, image)
    awaited = seeing & {v for v in logits_of(program) if is_variable(v)}
    is_output = True
    for eqn in reversed(program.eqns):
        if awaited.isdisjoint(eqn.outvars):
            continue
        is_output = is_output and eqn.primitive.name in MOVES
        if is_layer(eqn) and not is_output:
            yield eqn.params["name"], eqn, awaited == {*eqn.outvars}
        awaited = (awaited - {*eqn.outvars}) | (seeing & {*filter(is_variable, eqn.invars)})


def _seeing(program: Any, image: list[Any]) -> set[Any]:
    seeing = {*image}
    for eqn in program.eqns:
        if not seeing.isdisjoint(filter(is_variable, eqn.invars)):
            seeing.update(eqn.outvars)
    return seeing
