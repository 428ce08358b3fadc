"""Reads tensors that `torch.save` wrote before torch 1.6, without torch, executing nothing.

Such a file is five pickles, one after another (a magic number, the version of the format, facts
about the machine, the tensors with the keys of their storages, the order of these keys), and then
each storage: how many numbers it has, as an int64, and the numbers.
"""

import collections
import io
import math
import pickle
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_DTYPES = {"torch.FloatStorage": "<f4", "torch.LongStorage": "<i8"}
_COUNT = np.dtype("<i8")  # of what stands before the numbers of a storage


class _Storage(NamedTuple):
    dtype: str
    key: str
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Imports nothing and calls nothing but what stands here."""

    def find_class(self, module: str, name: str) -> Any:
        stand_ins = {
            "collections.OrderedDict": collections.OrderedDict,
            # Made anew each time: a pickle may set attributes of what it is given.
            "torch._utils._rebuild_tensor_v2": lambda *given: _Tensor(*given[:4]),
            **_DTYPES,
        }
        named = f"{module}.{name}"
        if named not in stand_ins:
            raise ValueError(f"it names {named!r:.80}; wanted float32 and int64 tensors alone")
        return stand_ins[named]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or view is not None:
            raise ValueError(f"it refers to {pid!r:.80}; wanted whole storages of numbers")
        return _Storage(dtype, key, size)


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """Reads the tensors of a file by name, as views of `data`.

    Args:
      data: the whole file, which holds a dict of float32 and int64 tensors, as a `state_dict` is.

    Raises:
      ValueError: it is no such file, holds anything else, or ends too early.
    """
    try:
        return _read(data)
    except Exception as error:  # a pickle can be wrong in as many ways as there are errors
        raise ValueError(
            f"this is no file of tensors that can be read here: {error}; wanted a state_dict as "
            "torch.save wrote it before torch 1.6, or with _use_new_zipfile_serialization=False"
        ) from error


def _read(data: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(data)
    for wanted in (_MAGIC, _VERSION):
        came = _Unpickler(file).load()
        if came != wanted:
            raise ValueError(f"it has {came!r:.80} in place of {wanted:#x}")
    machine, tensors, keys = (_Unpickler(file).load() for _ in range(3))
    if machine["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    if not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it holds more than tensors by name")
    stored = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    numbers = _numbers(data, file.tell(), [stored[key] for key in keys])
    return {name: _view(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _numbers(data: bytes, start: int, storages: Iterable[_Storage]) -> Mapping[str, np.ndarray]:
    """The numbers of the storages, which stand one after another from `start` on."""
    found = {}
    for dtype, key, wanted in storages:
        (count,) = np.frombuffer(data, _COUNT, 1, start)
        if not 0 <= count == wanted:
            raise ValueError(f"a storage has {count} numbers in place of {wanted!r:.80}")
        found[key] = np.frombuffer(data, dtype, count, start + _COUNT.itemsize)
        start += _COUNT.itemsize + found[key].nbytes
    return found


def _view(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    """The tensor, whose bounds are checked here: in NumPy large strides overflow unnoticed."""
    _, offset, shape, strides = tensor
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    is_sound = min(offset, *strides, 0) == 0 and min(shape, default=1) >= 1
    if not is_sound or last >= storage.size or math.prod(shape) > storage.size:
        raise ValueError(
            f"a tensor of shape {shape!r:.80}, strides {strides!r:.80} and offset {offset!r:.80} "
            f"does not lie in its {storage.size} numbers"
        )
    in_bytes = [stride * storage.itemsize for stride in strides]
    return np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, in_bytes)
