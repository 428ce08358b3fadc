"""Attention in a program: every softmax over keys whose result is summed with values.

Weights that no layer returns, such as those inside of a framework's attention, are found so.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array

from jaxcam._src.cut.axis_reshapes import Axes
from jaxcam._src.cut.axis_rules import moved
from jaxcam._src.cut.find import is_layer
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.programs import CALLS, is_variable, param, scan_of
from jaxcam._src.cut.softmax import softmaxes, some_summed
from jaxcam._src.names import no_such


class Place(NamedTuple):
    """Where a program has attention weights.

    Attributes:
      of: the name of a tag, or one after the layer that ended last before the weights.
      name: the same, with a number where there are several of it.
      variable: the weights.
      order: the axes of the variable: those of heads, of queries, and that of keys.
      shape: `(heads, queries, keys)`; more before it where values differ along several axes, as
        those of windows do.
      softmax: the variable of the softmax, of which the weights may be what a mask leaves.
    """

    of: str
    name: str
    variable: Any
    order: tuple[int, ...]
    shape: tuple[int, ...]
    softmax: Any

    def laid(self, value: Array) -> Array:
        """The value, of this shape."""
        return value.transpose(self.order).reshape(self.shape)

    def moved(self, value: Array, offset: Array) -> Array:
        """The value and an offset of this shape, added."""
        sizes = [value.shape[axis] for axis in self.order]
        back = [self.order.index(axis) for axis in range(value.ndim)]
        return value + offset.reshape(sizes).transpose(back)


def opened_at(traced: Any, names: Collection[str]) -> tuple[Any, list[Any]]:
    """The program as one list of equations, also of loops with attention or with these tags.

    Returns:
      The program with its tags, and the values of its constants, which are its first arguments.
    """

    def unrolls(eqn: Any) -> bool:
        program, _ = opened(scan_of(eqn).body, CALLS, keep_tags=True, unrolls=unrolls)
        named = any(is_layer(e) and e.params["name"] in names for e in program.eqns)
        return named or has_attention(program)

    return opened(traced, CALLS, keep_tags=True, unrolls=unrolls)


def places(program: Any, layers: Sequence[str] | None) -> list[Place]:
    """The attention weights of a program that were opened, in the order of execution.

    Args:
      program: what `opened_at` returns.
      layers: names of those that are wanted; None takes all that are found, and none of the tags.

    Raises:
      ValueError: there are none, or one of the names is not there.
    """
    found = _numbered(_found(program))
    if layers is None:
        if not found:
            raise ValueError(
                "the model shows no attention: no softmax over keys whose result a matrix product "
                "sums with values; name the weights in it, jaxcam.tag(weights, name) of [heads, "
                "queries, keys], and give layers=[name]"
            )
        return found
    known = [*found, *_numbered(_tagged(program))]
    for name in layers:
        if name not in {name for place in known for name in (place.name, place.of)}:
            raise ValueError(no_such("attention", name, (place.name for place in known)))
    order = {v: number for number, e in enumerate(program.eqns) for v in e.outvars}
    chosen = [place for place in known if not {place.name, place.of}.isdisjoint(layers)]
    return sorted(chosen, key=lambda place: order[place.variable])


def has_attention(program: Any) -> bool:
    """Whether any attention is found in a program that was opened."""
    return any(_found(program))


def _numbered(given: Iterator[Place]) -> list[Place]:
    """With a number behind the names that are there several times."""
    places = list(given)
    names = [place.of for place in places]
    return [
        p._replace(name=f"{p.of}[{names[:n].count(p.of)}]") if names.count(p.of) > 1 else p
        for n, p in enumerate(places)
    ]


def _tagged(program: Any) -> Iterator[Place]:
    """The tags of what may be attention weights, `[heads, queries, keys]` or `[queries, keys]`."""
    for eqn in filter(is_layer, program.eqns):
        name, (v,) = eqn.params["name"], eqn.outvars
        shape = eqn.params["lies"].without_batch(v.aval.shape)
        if len(shape) in (2, 3):
            yield Place(name, name, v, tuple(range(v.aval.ndim)), (1, *shape)[-3:], v)


def _found(program: Any) -> Iterator[Place]:
    """The softmaxes, masked or not, that a product sums with something else along their axis."""
    sources, before = softmaxes(program, some_summed), ""
    softmax_of = {v: v for v in sources}
    traces: dict[Any, _Trace] = {}
    names, done = {}, set()
    for eqn in program.eqns:
        before = f"{eqn.params['name']}:" if is_layer(eqn) else before
        for v in eqn.outvars:
            if v in sources:
                traces[v], names[v] = _start(v), f"{before}attention"
        known = [(side, traces[v]) for side, v in enumerate(eqn.invars) if _in(v, traces)]
        if len(known) != 1:
            continue
        ((side, trace),) = known
        source, keys = trace.source, sources[trace.source].axis
        if axes := moved(eqn, trace.axes):
            traces[eqn.outvars[0]] = _Trace(source, axes)
        elif eqn.primitive.name == "select_n" and keys in trace.axes:  # a mask: weights of its own
            (v,) = eqn.outvars
            sources[v] = sources[source]._replace(axis=trace.axes.index(keys))
            softmax_of[v] = softmax_of[source]
            traces[v], names[v] = _start(v), names[source]
        elif source not in done and (order := _summed(eqn, side, trace, keys)):
            done.add(source)
            yield _place(names[source], source, order, softmax_of[source])


class _Trace(NamedTuple):
    """A softmax, masked perhaps, that was moved: which axis of it each is; None for a new one."""

    source: Any
    axes: Axes

    def is_whole(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape has each of its axes: none was joined, or parted."""
        seen = dict(zip(self.axes, shape, strict=True))
        return all(seen.get(of, 1) == size for of, size in enumerate(self.source.aval.shape))


def _start(v: Any) -> _Trace:
    return _Trace(v, tuple(range(v.aval.ndim)))


class _Order(NamedTuple):
    outer: list[int]
    heads: list[int]
    queries: list[int]
    keys: list[int]


def _in(v: Any, traces: dict[Any, _Trace]) -> bool:
    return is_variable(v) and v in traces


def _summed(eqn: Any, side: int, trace: _Trace, keys: int) -> _Order | None:
    """What the axes of the softmax are to a product that sums over its keys; None for another."""
    if eqn.primitive.name != "dot_general":
        return None
    contracted, batch = (sides[side] for sides in param(eqn, "dimension_numbers"))
    is_sum = [trace.axes[axis] for axis in contracted] == [keys]
    if not is_sum or not trace.is_whole(eqn.invars[side].aval.shape):
        return None
    sizes = trace.source.aval.shape
    free = [axis for axis in range(len(trace.axes)) if axis not in (*contracted, *batch)]
    apart, shared = (
        [of for axis in axes if isinstance(of := trace.axes[axis], int) and sizes[of] > 1]
        for axes in (batch, free)
    )  # values differ along an axis, or are the same
    queries, outer = shared[-1:], apart[:-1]
    heads = [axis for axis in range(len(sizes)) if axis not in (*outer, *queries, keys)]
    return _Order(outer, heads, queries, [keys])


def _place(name: str, variable: Any, order: _Order, softmax: Any) -> Place:
    sizes = variable.aval.shape
    shape = [math.prod(sizes[axis] for axis in axes) for axes in order[1:]]
    axes = tuple(itertools.chain(*order))
    shape = *(sizes[axis] for axis in order.outer), *shape
    return Place(name, name, variable, axes, shape, softmax)
