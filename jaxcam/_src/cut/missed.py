"""Attention that was not found: without a word, a product over all layers would leave it out."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from jax.extend import core as jex

from jaxcam._src.cut.attention import Place, has_attention
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import (
    CALLS,
    is_variable,
    param,
    place_of,
    programs_in,
    scan_of,
)
from jaxcam._src.cut.softmax import softmaxes, some_summed

_PRODUCTS = ("conv_general_dilated", "dot_general")
_SUMS = ("add", "add_any", "sub")


def missed(program: Any, image: Sequence[Any], found: Collection[Place]) -> str | None:
    """The primitive, and its line, of the first attention that is not among those found.

    Attention compares what depends on the image with what depends on it, and sums values by the
    outcome. So it is a matrix product of two that depend on the image, of which one comes of
    another such product, and not by way of found weights; or a softmax of such a product. It may
    lie in a loop or a branch that was not opened, where any attention is missed.

    Args:
      program: what `opened_at` returns.
      image: which of its arguments are the image.
      found: all that `places` returns.
    """
    known = {v for place in found for v in (place.variable, place.softmax)}
    return next(_missed(program, image, known), None)


def _missed(program: Any, image: Sequence[Any], known: set[Any]) -> Iterator[str]:
    others = softmaxes(program, some_summed).keys() - known
    moving, compared, weights = {*image}, set(), set()
    for eqn in live(program.eqns, program.outvars)[0]:
        inputs = {v for v in eqn.invars if is_variable(v)}
        if inputs.isdisjoint(moving):
            continue
        is_between = inputs <= moving and _is_between_tokens(eqn)
        sums_known = is_between and not inputs.isdisjoint(weights)
        is_other = (is_between and not sums_known) or not others.isdisjoint(eqn.outvars)
        if is_other and not inputs.isdisjoint(compared):
            yield _named(eqn)
        yield from _missed_inside(eqn, moving)
        if not known.isdisjoint(eqn.outvars) or (not is_between and _is_of(eqn, moving, weights)):
            weights.update(eqn.outvars)
        elif sums_known:
            pass
        elif is_between or (eqn.primitive.name not in _PRODUCTS and _is_of(eqn, moving, compared)):
            compared.update(eqn.outvars)
        moving.update(eqn.outvars)


def _missed_inside(eqn: Any, moving: set[Any]) -> Iterator[str]:
    """The same of the programs in an equation, which take its last operands."""
    marks = [is_variable(v) and v in moving for v in eqn.invars]
    carried = _carried(eqn)
    marks[carried] = [True] * len(marks[carried])  # in some step they depend on the image
    for body in programs_in(eqn):
        closed = body.replace(constvars=[], invars=[*body.constvars, *body.invars])
        program, _ = opened(jex.ClosedJaxpr(closed, ()), CALLS, keep_tags=True)
        own = program.invars[len(body.constvars) :]
        image = [v for v, mark in zip(own, marks[len(marks) - len(own) :], strict=True) if mark]
        if has_attention(program):
            yield _named(eqn)
        yield from _missed(program, image, set())


def _carried(eqn: Any) -> slice:
    """Which operands a loop hands on from step to step."""
    if eqn.primitive.name == "scan":
        scan = scan_of(eqn)
        return slice(scan.consts, scan.consts + scan.carry)
    return slice(-len(eqn.outvars), None) if eqn.primitive.name == "while" else slice(0)


def _named(eqn: Any) -> str:
    return " ".join(filter(None, (f"`{eqn.primitive.name}`", place_of(eqn))))


def _is_of(eqn: Any, moving: set[Any], kind: set[Any]) -> bool:
    """Whether what an equation makes is of a kind: a sum, such as a shortcut, if all of it is."""
    are = [v in kind for v in eqn.invars if is_variable(v) and v in moving]
    return all(are) if eqn.primitive.name in _SUMS else any(are)


def _is_between_tokens(eqn: Any) -> bool:
    """Whether an equation sums products, and not those of each token with its own counterpart."""
    if eqn.primitive.name != "dot_general":
        return False
    contracted, batch = param(eqn, "dimension_numbers")
    used = [len(c) + len(b) for c, b in zip(contracted, batch, strict=True)]
    return any(contracted) and any(v.aval.ndim > n for v, n in zip(eqn.invars, used, strict=True))
