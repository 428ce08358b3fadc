"""Splitting a program at the marked equation: what runs before it, and what needs it."""

from collections.abc import Sequence
from typing import Any

from jaxcam._src.cut.opened import CUT
from jaxcam._src.cut.programs import is_variable
from jaxcam._src.cut.tag import tag_p

_REF_EFFECTS = {"ReadEffect", "WriteEffect", "AccumEffect"}


def partition(jaxpr: Any, layer: str) -> tuple[Any, Any]:
    """Splits `arguments -> logits` into prefix and head.

    Returns:
      `prefix: arguments -> activations, *residuals` and
      `head: activations, *residuals, *arguments -> logits`.
    """
    effects = {type(effect).__name__ for eqn in jaxpr.eqns for effect in eqn.effects}
    if effects & _REF_EFFECTS:
        raise ValueError(
            "the model reads or writes mutable refs, which cannot be reordered around a cut; give "
            "apply_fn plain arrays, and keep refs inside a jax.checkpoint, scan or cond"
        )
    early, cut, late = _sort(jaxpr)
    kept, needed = live(late, jaxpr.outvars)
    if cut.outvars[0] not in needed:
        raise ValueError(
            f"the model's output does not depend on layer {layer!r}: what the layer returns, or a "
            "part of it (leaf=), is never used; choose another layer"
        )
    for eqn in reversed(early):
        # A broadcast is cheaper to do again in the head than to keep.
        if eqn.primitive.name in ("broadcast_in_dim", "iota") and eqn.outvars[0] in needed:
            kept, needed = live([eqn, *kept], jaxpr.outvars)
    made = {v for eqn in early for v in eqn.outvars}
    residuals = [v for v in needed if v in made]
    outputs = [*cut.invars, *residuals]
    prefix = jaxpr.replace(eqns=live(early, outputs)[0], outvars=outputs)
    head = jaxpr.replace(invars=[cut.outvars[0], *residuals, *jaxpr.invars], eqns=kept)
    return prefix, head


def _sort(jaxpr: Any) -> tuple[list, Any, list]:
    """The equations that do not depend on the activations, the cut, and those that do."""
    early, late = [], []
    cut = next(e for e in jaxpr.eqns if e.primitive is tag_p and e.params["name"] == CUT)
    dependent = {cut.outvars[0]}
    for eqn in jaxpr.eqns:
        if any(v in dependent for v in eqn.invars if is_variable(v)):
            dependent.update(eqn.outvars)
            late.append(eqn)
        elif eqn is not cut:
            early.append(eqn)
    return early, cut, late


def reaches(jaxpr: Any, sources: Sequence[Any], sink: Any) -> bool:
    """Whether a value depends on any of the sources."""
    reached = {*sources}
    for eqn in jaxpr.eqns:
        if any(v in reached for v in eqn.invars if is_variable(v)):
            reached.update(eqn.outvars)
    return is_variable(sink) and sink in reached


def live(eqns: Sequence[Any], outputs: Sequence[Any]) -> tuple[list, dict]:
    """The equations that the outputs need, and the variables that those need from outside."""
    needed = dict.fromkeys(v for v in outputs if is_variable(v))
    kept = []
    for eqn in reversed(eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            for v in eqn.outvars:
                needed.pop(v, None)
            needed.update(dict.fromkeys(v for v in eqn.invars if is_variable(v)))
    return kept[::-1], needed
