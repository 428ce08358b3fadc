"""A model run with its attention weights open: seen, and moved by an offset each.

Weights of one layer are seen by those of the next. A gradient along all of them at once is that
along offsets of zero.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.attention import Place, opened_at, places
from jaxcam._src.cut.find import is_layer
from jaxcam._src.cut.frameworks import check_apply_fn
from jaxcam._src.cut.missed import missed
from jaxcam._src.cut.partition import reaches
from jaxcam._src.cut.programs import is_variable, made_by
from jaxcam._src.cut.traced import traced
from jaxcam._src.names import no_such


class Attended(NamedTuple):
    """The attention weights that a model makes for one image.

    Attributes:
      weights: by name, in the order of execution, each `[heads, queries, keys]`.
      returned_fn: an offset of each of the weights -> a list of one, what the model returns; or,
        of each block, what the model makes of its tokens.
      apart: the first two that follow each other though the later does not depend on the earlier.
      missed: the primitive and the line of attention that was not found; None where names were
        asked for.
    """

    weights: dict[str, Array]
    returned_fn: Callable[[Sequence[Array]], list[Any]]
    apart: tuple[str, str] | None
    missed: str | None


def attention_weights(apply_fn: ApplyFn, variables: PyTree, image: Array) -> dict[str, Array]:
    """The attention weights that a model makes for one image, found in its program.

    Found is every softmax whose result, masked or not, a matrix product sums with values along its
    axis, also inside `jax.jit`, `jax.checkpoint` and `scan`, if what the model returns depends on
    it. It is named after the layer that ended last before it, "block1/attention/value:attention",
    or "attention" where none did; of several of one name each has its number, "attention[0]". The
    methods that multiply all of them refuse a model with attention of another kind.

    Args:
      apply_fn: `(variables, image) -> logits`, with or without tagged layers.
      variables: what `apply_fn` takes first.
      image: `[*spatial, C]`.

    Returns:
      By name, in the order of execution, `[heads, queries, keys]`; each row sums to 1, or to less
      where a mask follows the softmax. Of attention in windows `[windows, heads, queries, keys]`.

    Raises:
      ValueError: `apply_fn` is a model, or its program shows no attention.

    >>> vit = jaxcam.digits_vit()
    >>> found = jaxcam.attention_weights(vit.apply_fn, vit.variables, image)
    >>> found["block1/attention/value:attention"].shape
    (4, 65, 65)
    """
    return attended(apply_fn, variables, image).weights


def attended(
    apply_fn: ApplyFn,
    variables: PyTree,
    image: Array,
    layers: Sequence[str] | None = None,
    blocks: Sequence[str] = (),
) -> Attended:
    """Runs a model, and opens its attention weights.

    Args:
      apply_fn: as for `attention_weights`.
      variables: likewise.
      image: likewise.
      layers: names of weights, found or tagged by hand; None takes all that are found and that
        what the model returns depends on.
      blocks: names of layers that return tokens, in order. With them the weights are the last ones
        before each, and a block's tokens depend on the offset of its own weights alone.

    Raises:
      ValueError: there is no attention, or none before a block, or a way around a block, or no
        such name.
    """
    check_apply_fn(apply_fn)
    closed, shapes = traced(apply_fn, variables, image)
    program, constants = opened_at(closed, {*(layers or ()), *blocks})
    arguments = [*constants, *jax.tree.leaves((variables, image))]
    ends = _ends(program, blocks)
    chosen, other = places(program, layers), None
    if layers is None:
        own = program.invars[len(arguments) - len(jax.tree.leaves(image)) :]
        other = missed(program, own, chosen)
        chosen = [each for each in chosen if _returns(program, each)]
    chosen = _last_before(program, chosen, ends) if ends else chosen
    run = _Run(program, arguments, chosen, ends)
    weights, _ = run.with_offsets([jnp.zeros(p.shape, p.variable.aval.dtype) for p in chosen])

    def returned_fn(offsets: Sequence[Array]) -> list[Any]:
        _, outputs = run.with_offsets(offsets)
        return [jax.tree.unflatten(jax.tree.structure(shapes), leaves) for leaves in outputs]

    names = [place.name for place in chosen]
    by_name = dict(zip(names, weights, strict=True))
    return Attended(by_name, returned_fn, _apart(program, chosen), other)


class _Run(NamedTuple):
    program: Any
    arguments: list[Any]
    places: list[Place]
    ends: list[Any]  # the variables of the blocks' tokens

    def with_offsets(self, offsets: Sequence[Array]) -> tuple[list[Array], list[list[Any]]]:
        """The weights, and what is returned of each block or, if there are none, of the whole."""
        values = dict(zip(self.program.invars, self.arguments, strict=True))
        at = {place.variable: n for n, place in enumerate(self.places)}
        weights, tokens = [], {}
        for eqn in self.program.eqns:
            values |= made_by(eqn, values)
            v = eqn.outvars[0] if eqn.outvars else None
            if v in at:
                weights.append(self.places[at[v]].laid(values[v]))
                values[v] = self.places[at[v]].moved(values[v], offsets[at[v]])
            if v in self.ends:
                tokens[v] = values[v]
                values[v] = jax.lax.stop_gradient(values[v])
        if not self.ends:
            return weights, [self._returned(values)]
        return weights, [self._behind(values, tokens[end]) for end in self.ends]

    def _behind(self, values: dict[Any, Any], tokens: Array) -> list[Any]:
        """What follows the last block, of any tokens."""
        values = {**values, self.ends[-1]: tokens}
        depending = {self.ends[-1]}
        for eqn in self.program.eqns:
            if not depending.isdisjoint(filter(is_variable, eqn.invars)):
                depending.update(eqn.outvars)
                values |= made_by(eqn, values)
        return self._returned(values)

    def _returned(self, values: dict[Any, Any]) -> list[Any]:
        return [values[v] if is_variable(v) else v.val for v in self.program.outvars]


def _returns(program: Any, place: Place) -> bool:
    """Whether what the program returns depends on the weights."""
    return any(reaches(program, [place.variable], v) for v in program.outvars)


def _apart(program: Any, chosen: Sequence[Place]) -> tuple[str, str] | None:
    for before, after in itertools.pairwise(chosen):
        if not reaches(program, [before.variable], after.variable):
            return before.name, after.name
    return None


def _ends(program: Any, blocks: Sequence[str]) -> list[Any]:
    """The variables of the tokens that the blocks return, in the order of execution."""
    tags = [eqn for eqn in program.eqns if is_layer(eqn)]
    for name in blocks:
        if name not in {eqn.params["name"] for eqn in tags}:
            raise ValueError(no_such("layer", name, (eqn.params["name"] for eqn in tags)))
    ends = [eqn.outvars[0] for eqn in tags if eqn.params["name"] in blocks]
    shapes = {(end.aval.shape, end.aval.dtype) for end in ends}
    if len(shapes) > 1:
        raise ValueError(
            f"blocks {[*blocks]} return {sorted(map(str, shapes))}; wanted tokens of one shape, "
            "since what follows the last block is asked about each"
        )
    return ends


def _last_before(program: Any, given: list[Place], ends: list[Any]) -> list[Place]:
    """The last attention before each end, and behind the end before."""
    at = {v: n for n, eqn in enumerate(program.eqns) for v in eqn.outvars}
    chosen, start = [], -1
    for end in ends:
        between = [place for place in given if start < at[place.variable] < at[end]]
        if not between:
            raise ValueError(
                "there is no attention before one of the blocks, or between two of them; wanted "
                "layers that return the tokens after each attention, such as ['block1', 'block2']"
            )
        if apart := _apart(program, between):
            raise ValueError(
                f"the attention {apart[0]!r} and {apart[1]!r} before one block run side by side, "
                "heads of their own, say; of a block the last attention alone is looked at"
            )
        chosen.append(between[-1])
        start = at[end]
        _check_no_way_around(program, between[-1], end)
    return chosen


def _check_no_way_around(program: Any, place: Place, end: Any) -> None:
    """Refuses weights that are seen otherwise than by the tokens of their block."""
    rest = program.replace(eqns=[eqn for eqn in program.eqns if end not in eqn.outvars])
    if _returns(rest, place):
        raise ValueError(
            f"the model sees the attention {place.name!r} not through the tokens of its block "
            "alone; wanted as blocks the layers that return all that the next one enters"
        )
