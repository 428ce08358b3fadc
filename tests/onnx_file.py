"""Reads the nodes and the tensors of an ONNX file, without the package onnx, executing nothing.

Such a file is one message of protocol buffers (https://protobuf.dev/programming-guides/encoding): a
message is fields, one after another, each with a number and a kind, and a field may hold a message.
The numbers of the fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_DTYPES = {1: "<f4", 7: "<i8"}  # those of the files read here
_FIXED = {1: 8, 5: 4}  # bytes of a field, by its kind; kind 0 is a varint, 2 says its size


class Node(NamedTuple):
    """One operation: names of its values, and what it is given beside them."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


class Graph(NamedTuple):
    """Nodes in the order in which they run, and tensors by name, as views of the file."""

    nodes: list[Node]
    tensors: dict[str, np.ndarray]


def read(data: bytes) -> Graph:
    """Reads a model whose tensors are float32 or int64 and whose attributes are numbers.

    Raises:
      ValueError: it ends too early, or holds anything else.
    """
    (graph,) = (_fields(value) for value in _fields(memoryview(data))[7])
    tensors = dict(map(_tensor, graph[5]))
    return Graph([_node(_fields(value)) for value in graph[1]], tensors)


def _fields(data: memoryview) -> dict[int, list[Any]]:
    """The values of a message by number: integers, or bytes of any other kind."""
    found: dict[int, list[Any]] = defaultdict(list)
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(data, place)
        else:
            size, place = _varint(data, place) if kind == 2 else (_FIXED.get(kind, -1), place)
            if not 0 <= size <= len(data) - place:
                raise ValueError(f"field {number} of kind {kind} does not lie in its message")
            value, place = data[place : place + size], place + size
        found[number].append(value)
    return found


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A signed integer of 64 bits, seven to a byte, the lowest first; and where it ends."""
    found = 0
    for shift, byte in enumerate(data[place : place + 10]):
        found |= (byte & 127) << 7 * shift
        if byte < 128:
            return found - (found >> 63 << 64), place + shift + 1
    raise ValueError("an integer has no end")


def _integers(values: list[Any]) -> Iterator[int]:
    """A repeated field of integers: one a field, or many packed in one."""
    for value in values:
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            found, place = _varint(value, place)
            yield found


def _text(value: memoryview) -> str:
    return str(value, "utf8")


def _node(fields: dict[int, list[Any]]) -> Node:
    inputs, outputs = ([*map(_text, fields[number])] for number in (1, 2))
    return Node(_text(fields[4][0]), inputs, outputs, dict(map(_attribute, fields[5])))


def _attribute(data: memoryview) -> tuple[str, Any]:
    """Its name, and its number or integers."""
    fields = _fields(data)
    name, (kind,) = _text(fields[1][0]), fields[20]
    if kind == 1:
        return name, float(np.frombuffer(fields[2][0], "<f4")[0])
    if kind not in (2, 7):
        raise ValueError(f"attribute {name!r} is of type {kind}; wanted numbers: 1, 2 or 7")
    return name, fields[3][0] if kind == 2 else [*_integers(fields[8])]


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    """Its name and its numbers."""
    fields = _fields(data)
    name, (dtype,), shape = _text(fields[8][0]), fields[2], [*_integers(fields[1])]
    if dtype not in _DTYPES:
        raise ValueError(f"tensor {name!r} is of type {dtype}; wanted float32, 1, or int64, 7")
    numbers = np.frombuffer(b"".join(fields[9]), _DTYPES[dtype])
    if min(shape, default=0) < 0 or numbers.size != math.prod(shape):
        raise ValueError(f"tensor {name!r} has {numbers.size} numbers for the shape {shape}")
    return name, numbers.reshape(shape)
