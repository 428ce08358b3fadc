"""Attention that was not found: without a word, a product over all layers would leave it out."""

from collections.abc import Sequence
from typing import Any

from jax.extend import core as jex

from jaxcam._src.cut.attention import has_attention
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.partition import live
from jaxcam._src.cut.programs import CALLS, is_variable, param, place_of, programs_in


def unseen(program: Any, image: Sequence[Any], weights: set[Any]) -> str | None:
    """The equation of the first attention that is not among those found, as text.

    Attention compares what depends on the image with what depends on it, and sums values by the
    outcome. So it is a product of two that depend on the image, of which one comes of another such
    product, and not by way of found weights; or it lies in a branch, say, that cannot be opened.

    Args:
      program: what `opened_at` returns.
      image: which of its arguments are the image.
      weights: the variables that were found.
    """
    moving, compared, found = {*image}, set(), set()
    for eqn in live(program.eqns, program.outvars)[0]:
        inputs = {v for v in eqn.invars if is_variable(v)}
        if inputs.isdisjoint(moving):
            continue
        is_bilinear = inputs <= moving and _is_between_tokens(eqn)
        is_found, is_compared = not inputs.isdisjoint(found), not inputs.isdisjoint(compared)
        if (is_bilinear and is_compared and not is_found) or _hides(eqn):
            return " ".join(filter(None, (f"`{eqn.primitive.name}`", place_of(eqn))))
        moving.update(eqn.outvars)
        if not weights.isdisjoint(eqn.outvars) or (is_found and not is_bilinear):
            found.update(eqn.outvars)
        elif not is_found and (is_bilinear or is_compared):
            compared.update(eqn.outvars)
    return None


def _is_between_tokens(eqn: Any) -> bool:
    """Whether an equation sums products, and not those of each token with its own counterpart."""
    if eqn.primitive.name != "dot_general":
        return False
    contracted, batch = param(eqn, "dimension_numbers")
    used = [len(c) + len(b) for c, b in zip(contracted, batch, strict=True)]
    return any(contracted) and any(v.aval.ndim > n for v, n in zip(eqn.invars, used, strict=True))


def _hides(eqn: Any) -> bool:
    """Whether attention lies in an equation."""
    bodies = (jex.ClosedJaxpr(body, ()) for body in programs_in(eqn) if not body.constvars)
    return any(has_attention(opened(body, CALLS, keep_tags=True)[0]) for body in bodies)
