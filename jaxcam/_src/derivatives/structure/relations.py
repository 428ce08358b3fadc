"""Relations: which labels every element of a value may depend on.

A relation of a value of shape `[d1, .., dr]` is a boolean array `[e1, .., er, labels]`. An axis has
the value's size, or size 1 where all along it is alike: so channels collapse by themselves, and
the analysis of a network of full size takes milliseconds. Relations err on one side only: they
may hold a label that an element does not depend on, never lack one that it does.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool

Relation: TypeAlias = np.ndarray
LARGEST = 1 << 26  # booleans; a larger relation is widened: every element sees all labels of any


def identity(shape: tuple[int, ...], axes: Sequence[int]) -> Relation:
    """Labels the places along `axes` of a value, each its own, alike along the other axes."""
    kept = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    labels = math.prod(kept)
    if labels**2 > LARGEST:
        return np.ones((1,) * len(shape) + (labels,), bool)
    return np.eye(labels, dtype=bool).reshape(*kept, labels)


def union(relations: Iterable[Relation]) -> Relation:
    """Sees what any of them sees, element by element."""
    return functools.reduce(np.logical_or, fitted(relations))


def fitted(relations: Iterable[Relation]) -> list[Relation]:
    """The same relations, or widened ones where they are too large once broadcast together."""
    found = list(relations)
    shape = np.broadcast_shapes(*(r.shape for r in found))
    return found if math.prod(shape) <= LARGEST else [widen(r, range(r.ndim - 1)) for r in found]


def widen(relation: Relation, axes: Iterable[int]) -> Relation:
    """Lets every element see what any element along `axes` sees."""
    return np.logical_or.reduce(relation, axis=tuple(axes), keepdims=True)


def everything(relations: Iterable[Relation], rank: int) -> Relation:
    """A relation of that rank in which every element sees all labels of any."""
    flat = [r.reshape(-1, r.shape[-1]) for r in relations]
    labels = np.logical_or.reduce(np.concatenate(flat))
    return labels.reshape((1,) * rank + (-1,))


def map_axis(relation: Relation, axis: int, taken: Bool[np.ndarray, "out in"]) -> Relation:
    """Maps an axis: element `o` of the result sees what the elements `taken[o]` see."""
    if relation.shape[axis] == 1:
        return relation
    moved = np.moveaxis(relation, axis, 0)
    packed = np.packbits(moved.reshape(len(moved), -1), axis=1)  # eight at a time
    joined = np.zeros((len(taken), packed.shape[1]), np.uint8)
    for row, elements in zip(joined, taken, strict=True):
        np.bitwise_or.reduce(packed[elements], axis=0, out=row)
    seen = np.unpackbits(joined, axis=1, count=moved[0].size).view(bool)
    return np.moveaxis(seen.reshape(len(taken), *moved.shape[1:]), 0, axis)


def window(
    size_in: int,
    size_out: int,
    *,
    size: int,
    stride: int = 1,
    low: int = 0,
    dilation_in: int = 1,
    dilation: int = 1,
) -> Bool[np.ndarray, "out in"]:
    """Which elements along an axis a sliding window takes; the arguments are those of XLA."""
    starts = np.arange(size_out)[:, None] * stride - low
    places = starts + dilation * np.arange(size)
    taken = np.zeros((size_out, size_in), bool)
    index = places // dilation_in
    hit = (places % dilation_in == 0) & (index >= 0) & (index < size_in)
    out = np.broadcast_to(np.arange(size_out)[:, None], index.shape)
    taken[out[hit], index[hit]] = True
    return taken


def reshape(relation: Relation, before: Sequence[int], after: Sequence[int]) -> Relation:
    """Follows a reshape. Only groups of axes along which something varies are written out."""
    expanded, shape = [], []
    for old, new in groups(before, after):
        alike = all(relation.shape[a] == 1 for a in old)
        expanded += [1 if alike else before[a] for a in old]
        shape += [1 if alike else after[a] for a in new]
    labels = relation.shape[-1]
    if math.prod(expanded) * labels > LARGEST:
        return widen(relation, range(len(before))).reshape((1,) * len(after) + (labels,))
    return np.broadcast_to(relation, (*expanded, labels)).reshape(*shape, labels)


def groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pairs the axes of both shapes, left to right, in the smallest groups of equal size."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new = [], []
        sizes = [1, 1]
        while not (old or new) or sizes[0] != sizes[1]:
            if j == len(after) or (i < len(before) and sizes[0] <= sizes[1]):
                sizes[0] *= before[i]
                old.append(i)
                i += 1
            else:
                sizes[1] *= after[j]
                new.append(j)
                j += 1
        found.append((old, new))
    return found
