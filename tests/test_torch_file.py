"""Tensors are read out of files of PyTorch, and nothing in them is executed."""

import pickle

import numpy as np
import pytest

from jaxcam._src.demo.torch_file import read_tensors

MAGIC = 0x1950A86A20F9469CFC6C
NUMBERS = np.arange(6, dtype="<f4")
FAR = 2**62  # four of these, in bytes, are 0 in 64 bits


def of(value):
    """The opcodes that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(key="7", size=NUMBERS.size, kind=("torch", "FloatStorage")):
    return b"(" + of("storage") + named(*kind) + of(key) + of("cpu") + of(size) + b"NtQ"


def tensor(offset=0, shape=(2, 3), strides=(3, 1), of_storage=None):
    view = (of_storage or storage()) + of(offset) + of(shape) + of(strides)
    hooks = named("collections", "OrderedDict") + b")R"
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + view + b"\x89" + hooks + b"tR"


def state(**tensors):
    """A dict with an attribute beside it, as a `state_dict` has."""
    items = b"".join(of(name) + pushed for name, pushed in tensors.items())
    ordered = named("collections", "OrderedDict") + b")R"
    return ordered + b"(" + items + b"u" + b"}" + of("_metadata") + ordered + b"sb"


def file_of(*pushed, stored=(NUMBERS,)):
    """A whole file: pickles of these opcodes, and then the storages."""
    pickles = b"".join(b"\x80\x02" + each + b"." for each in pushed)
    sizes = (len(numbers).to_bytes(8, "little") + numbers.tobytes() for numbers in stored)
    return pickles + b"".join(sizes)


def file_with(pushed, keys=("7",), stored=(NUMBERS,), head=(MAGIC, 1001, {"little_endian": True})):
    return file_of(*map(of, head), pushed, of(list(keys)), stored=stored)


def test_tensors_are_views_of_their_storages():
    count = np.array([12], "<i8")
    counter = tensor(0, (), (), storage("8", 1, ("torch", "LongStorage")))
    pushed = state(whole=tensor(), turned=tensor(1, (3, 2), (1, 2)), counter=counter)
    found = read_tensors(file_with(pushed, ("8", "7"), (count, NUMBERS)))
    np.testing.assert_array_equal(found["whole"], NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(found["turned"], [[1, 3], [2, 4], [3, 5]])
    assert (found["counter"].dtype, found["counter"]) == (np.int64, 12)


def calls(module, name):
    """Opcodes that call a function, in the ways that there are."""
    argument = of("touched")
    yield named(module, name) + argument + b"\x85R"
    yield b"(" + argument + f"i{module}\n{name}\n".encode()
    yield b"(" + named(module, name) + argument + b"o"
    yield named(module, name) + argument + b"\x85\x81"
    yield of(module) + of(name) + b"\x93" + argument + b"\x85R"


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("os", "mkdir"),
        ("posix", "mkdir"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "OrderedDict.__init__"),
        ("collections", "namedtuple"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch", "DoubleStorage"),
    ],
)
def test_what_else_a_pickle_names_is_refused_and_does_not_run(
    tmp_path, monkeypatch, module, name, place
):
    monkeypatch.chdir(tmp_path)
    for call in calls(module, name):
        pushed = [of(MAGIC), of(1001), of({"little_endian": True}), state(w=tensor()), of(["7"])]
        pushed[place] = call
        with pytest.raises(ValueError, match=rf"names '{module}.{name}'; wanted float32 and int64"):
            read_tensors(file_of(*pushed))
    assert not list(tmp_path.iterdir())


def test_what_it_may_name_keeps_its_attributes():
    """`b` sets attributes of what a pickle was given, a class or a function too."""
    changed = b"N}" + of("__defaults__") + of((1, 2)) + b"s\x86b"
    for name in (("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")):
        with pytest.raises(ValueError, match="no file of tensors"):
            read_tensors(file_with(named(*name) + changed))
    test_tensors_are_views_of_their_storages()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (b"", "Ran out of input"),
        (b"PK\x03\x04 and more", "before torch 1.6"),
        (file_with(state(w=tensor()), head=(3, 1001, {})), "has 3 in place of 0x1950a86a20f9469c"),
        (file_with(state(w=tensor()), head=(MAGIC, 1002, {})), "has 1002 in place of 0x3e9"),
        (file_with(state(w=tensor()), head=(MAGIC, 1001, {"little_endian": False})), "big-endian"),
        (file_with(state(w=of(3))), "more than tensors by name"),
        (file_with(of([1, 2])), "no file of tensors"),
        (file_with(state(w=tensor()), keys=["9"]), "no file of tensors"),
        (file_with(state(w=tensor()), keys=[]), "no file of tensors"),
        (file_with(state(w=tensor(of_storage=storage(size=5)))), "6 numbers in place of 5"),
        (file_with(state(w=tensor(of_storage=storage(size=-1)))), "6 numbers in place of -1"),
        (file_with(state(w=tensor(of_storage=of(("module", "x")) + b"Q"))), "not enough values"),
    ],
)
def test_a_foreign_file_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        read_tensors(wrong)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (2, 3), (3, 1)),
        (-1, (2, 3), (3, 1)),
        (6, (), ()),
        (0, (7,), (1,)),
        (5, (2,), (-1,)),
        (0, (2,), (FAR,)),
        (0, (5,), (FAR // 4,)),
        (0, (2, 2), (FAR, -FAR)),
        (FAR, (2, 3), (3, 1)),
        (0, (FAR,), (0,)),
        (0, (7,), (0,)),
        (5, (0, 9), (1, 1)),
        (0, (-1, 2), (1, 1)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(offset, shape, strides):
    with pytest.raises(ValueError, match="does not lie in its 6 numbers"):
        read_tensors(file_with(state(w=tensor(offset, shape, strides))))


def test_any_part_of_a_file_is_refused():
    whole = file_with(state(w=tensor()))
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="no file of tensors"):
            read_tensors(whole[:length])


def test_a_type_that_is_only_spelled_is_no_type():
    """Of objects, a storage would hold addresses."""
    for spelled in ("|O", "<f8", "V1"):
        pushed = b"(" + of("storage") + of(spelled) + of("7") + of("cpu") + of(6) + b"NtQ"
        with pytest.raises(ValueError, match="wanted whole storages of numbers"):
            read_tensors(file_with(state(w=tensor(of_storage=pushed))))
