"""Finding a layer in a program: every tag, how often it runs, and which run is wanted."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxcam._src.cut.programs import CALLS, is_variable, param, programs_in
from jaxcam._src.cut.tag import Lies, tag_p
from jaxcam._src.names import no_such

OPENED = {*CALLS, "scan"}


class Hit(NamedTuple):
    """A tag in a program."""

    name: str
    leaf: int
    path: str  # where a value of several arrays holds this one, such as "0/mean"
    shape: tuple[int, ...]  # of the layer
    dtype: Any
    runs: int
    closed_by: str | None  # the primitive around it that no cut can open
    lies: Lies  # in its module


class Wanted(NamedTuple):
    """The run to cut at: the `nth` from 0 that the program at hand makes of this tag."""

    name: str
    leaf: int
    nth: int


def find_hits(eqns: Sequence[Any]) -> Iterator[Hit]:
    """Yields every tag with a name in order, with its runs counted through the loops around it."""
    for eqn, runs, closed_by in _find_tags(eqns):
        name, leaf, path = (eqn.params[key] for key in ("name", "leaf", "path"))
        yield Hit(name, leaf, path, *layer_of(eqn), runs, closed_by, eqn.params["lies"])


def _find_tags(
    eqns: Sequence[Any], runs: int = 1, closed_by: str | None = None
) -> Iterator[tuple[Any, int, str | None]]:
    """Yields the equation of each tag, how often it runs, and what no cut can open around it."""
    for eqn in eqns:
        kind = eqn.primitive.name
        if is_layer(eqn):
            yield eqn, runs, closed_by
        times = runs * (param(eqn, "length") if kind == "scan" else 1)
        for body in programs_in(eqn) if times else ():
            yield from _find_tags(body.eqns, times, closed_by or (None if kind in OPENED else kind))


def layer_of(eqn: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and dtype of the layer that a tag names."""
    aval = eqn.outvars[0].aval
    return eqn.params["lies"].seen_shape(aval.shape), aval.dtype


def is_layer(eqn: Any) -> bool:
    """Whether an equation is a tag with a name."""
    return eqn.primitive is tag_p and eqn.params["name"] is not None


def find_seeing(jaxpr: Any, marks: Sequence[bool]) -> tuple[list[bool], set[tuple[str, int]]]:
    """Which results depend on the arguments that are marked, and which tags, by name and leaf."""
    seeing = {v for v, mark in zip(jaxpr.invars, marks, strict=True) if mark}
    found = set()
    for eqn in jaxpr.eqns:
        inputs = [is_variable(v) and v in seeing for v in eqn.invars]
        outputs = [any(inputs)] * len(eqn.outvars)
        if is_layer(eqn) and any(inputs):
            found.add((eqn.params["name"], eqn.params["leaf"]))
        for body in programs_in(eqn) if any(inputs) else ():
            is_call = eqn.primitive.name in CALLS
            results, inner = find_seeing(body, inputs if is_call else [True] * len(body.invars))
            outputs = results if is_call else outputs
            found |= inner
        seeing.update(v for v, mark in zip(eqn.outvars, outputs, strict=True) if mark)
    return [is_variable(v) and v in seeing for v in jaxpr.outvars], found


def count_runs(eqns: Sequence[Any], wanted: Wanted) -> int:
    """Counts how often the equations run the wanted layer."""
    tags = ((eqn.params["name"], eqn.params["leaf"], runs) for eqn, runs, _ in _find_tags(eqns))
    return sum(runs for name, leaf, runs in tags if (name, leaf) == (wanted.name, wanted.leaf))


def find_mapped(jaxpr: Any, image_leaves: int) -> Iterator[Hit]:
    """Yields the tags of what depends on the image, the last arguments, and may have positions."""
    marks = [i >= len(jaxpr.invars) - image_leaves for i in range(len(jaxpr.invars))]
    _, seeing = find_seeing(jaxpr, marks)
    for hit in find_hits(jaxpr.eqns):
        if (hit.name, hit.leaf) in seeing and (len(hit.shape) > 1 or not hit.path):
            yield hit


def choose(
    jaxpr: Any, layer: str, occurrence: int | None, leaf: int | str | None, image_leaves: int
) -> tuple[Wanted, list[Lies]]:
    """Picks the run to cut at, and says how all runs lie; or what to choose instead."""
    named = _named(jaxpr, layer, image_leaves)
    leaf = _choose_leaf({hit.leaf: hit.path for hit in named}, layer, leaf)
    chosen = [hit for hit in named if hit.leaf == leaf]
    if closed := [hit.closed_by for hit in chosen if hit.closed_by]:
        raise ValueError(
            f"layer {layer!r} runs inside `{closed[0]}`, where a model cannot be cut; choose a "
            "layer that encloses it or comes after it"
        )
    runs = sum(hit.runs for hit in chosen)
    if (occurrence is None and runs > 1) or not -runs <= (occurrence or 0) < runs:
        raise ValueError(
            f"layer {layer!r} runs {runs} times, got occurrence={occurrence}; choose one from 0 to "
            f"{runs - 1}, or -1 for the last: jaxcam.split(apply_fn, {layer!r}, occurrence=-1), "
            "which jaxcam.explainer takes in place of a name"
        )
    lies = [hit.lies for hit in chosen]
    return Wanted(layer, leaf, (occurrence or 0) % runs), lies


def _named(jaxpr: Any, layer: str, image_leaves: int) -> list[Hit]:
    """The tags of this name."""
    hits = list(find_hits(jaxpr.eqns))
    if not hits:
        raise ValueError(
            f"there is no layer {layer!r}: the function has no named layers. Wrap the module with "
            "the adapter of its framework (jaxcam.from_linen, from_nnx, from_keras, from_equinox, "
            "from_haiku), or name a value in it with jaxcam.tag"
        )
    named = [hit for hit in hits if hit.name == layer]
    if not named:
        listed = list(find_mapped(jaxpr, image_leaves)) or hits
        raise ValueError(no_such("layer", layer, (hit.name for hit in listed)))
    return named


def _choose_leaf(keys: dict[int, str], layer: str, leaf: int | str | None) -> int:
    """Which array of a layer that returns several is meant, by its number or its key."""
    meant = [i for i, key in keys.items() if leaf is None or leaf in (i, key)]
    if len(meant) == 1:
        return meant[0]
    named = f" or {[key for key in keys.values() if key]}" if any(keys.values()) else ""
    raise ValueError(
        f"layer {layer!r} returns {len(keys)} floating-point arrays, got leaf={leaf!r}; choose "
        f"leaf= from {sorted(keys)}{named} in jaxcam.split"
    )
