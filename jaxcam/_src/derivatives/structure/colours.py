"""Colours: labels that no element sees two of may be moved at once, and told apart afterwards."""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxcam._src.derivatives.structure.relations import LARGEST, Relation, widen

_PADDING = 4  # the slots of all colours may be so many times the labels, no more


@dataclasses.dataclass(frozen=True)
class Colours:
    """Labels in groups, such that no element sees two labels of one colour.

    Attributes:
      colour: of each label; -1 where no element sees the label.
      slot: place of each label among those of its colour.
      members: the labels of each colour by slot; free slots hold the number of labels.
    """

    colour: Int[np.ndarray, " labels"]
    slot: Int[np.ndarray, " labels"]
    members: Int[np.ndarray, "colours slots"]

    @property
    def count(self) -> int:
        """How many colours there are."""
        return len(self.members)


def colour(seen: Sequence[Bool[np.ndarray, "_ labels"]]) -> Colours:
    """Colours labels greedily, in order: on windows that is the fewest colours possible."""
    labels = seen[0].shape[-1]
    used, rows = np.zeros(labels, bool), {}
    for elements in seen:
        if elements.all(1).any():
            return distinct(labels)
        used |= elements.any(0)
        rows |= {row.tobytes(): row for row in elements[elements.sum(1) > 1]}
    chosen = _greedy(np.array([*rows.values()], bool).reshape(-1, labels), used)
    sizes = np.bincount(chosen[used], minlength=1)
    if len(sizes) * sizes.max() > _PADDING * labels:
        return distinct(labels)
    slots, members = np.zeros(labels, int), np.full((len(sizes), max(sizes.max(), 1)), labels)
    for c, size in enumerate(sizes):
        slots[chosen == c] = np.arange(size)
        members[c, :size] = np.flatnonzero(chosen == c)
    return Colours(chosen, slots, members)


def at_least(seen: Sequence[Bool[np.ndarray, "_ labels"]]) -> int:
    """How many colours there are at least: all labels that one element sees differ."""
    return max(int(elements.sum(1).max(initial=0)) for elements in seen)


def distinct(labels: int) -> Colours:
    """Gives each label a colour of its own."""
    each = np.arange(labels)
    return Colours(each, np.zeros(labels, int), each[:, None])


def _greedy(
    together: Bool[np.ndarray, "rows labels"], used: Bool[np.ndarray, " labels"]
) -> Int[np.ndarray, " labels"]:
    """The first colour for each label that no row, of labels seen together, has already."""
    chosen = np.full(len(used), -1)
    colours_of = [0] * len(together)  # of each row those that are taken, as bits
    rows, labels = np.nonzero(together)
    ends = np.cumsum(np.bincount(labels, minlength=len(used)))
    rows_of = np.split(rows[np.argsort(labels, kind="stable")], ends[:-1])
    for label in np.flatnonzero(used):
        rows = rows_of[label].tolist()
        taken = functools.reduce(operator.or_, (colours_of[row] for row in rows), 0)
        free = ~taken & (taken + 1)
        chosen[label] = free.bit_length() - 1
        for row in rows:
            colours_of[row] |= free
    return chosen


@dataclasses.dataclass(frozen=True)
class Grid:
    """A value as a matrix: along its rows it sees different positions, along its columns channels.

    Attributes:
      rows: the axes along which positions differ.
      positions: which positions each row sees.
      channels: which channels each column sees; columns are all other axes, taken together.
    """

    rows: tuple[int, ...]
    positions: Bool[np.ndarray, "rows P"]
    channels: Bool[np.ndarray, "columns K"]

    def matrix(self, values: Array) -> Array:
        """Lays the value out, `[rows, columns]`."""
        rows_first = jnp.moveaxis(values, self.rows, range(len(self.rows)))
        return rows_first.reshape(len(self.positions), len(self.channels))


def grid(shape: Sequence[int], positions: Relation, channels: Relation) -> Grid | None:
    """Lays a value out; None where it would be too large."""
    rows = [a for a in range(len(shape)) if positions.shape[a] > 1]
    columns = [a for a in range(len(shape)) if a not in rows]
    channels = widen(channels, rows)  # all that a column sees in any row
    labels = channels.shape[-1]
    if math.prod(shape[a] for a in columns) * labels > LARGEST:
        return None
    spread = channels.transpose(*rows, *columns, len(shape)).reshape(
        *(channels.shape[a] for a in columns), labels
    )
    spread = np.broadcast_to(spread, (*(shape[a] for a in columns), labels)).reshape(-1, labels)
    return Grid(tuple(rows), positions.reshape(-1, positions.shape[-1]), spread)
