"""A function that has room for the frames of its calls is the same function."""

import inspect

import pytest

from jaxcam._src.frames import with_room


def _depth(n: int, *, fails: bool = False) -> int:
    if n == 0 and fails:
        raise ValueError("at the bottom")
    return 1 + _depth(n - 1, fails=fails) if n else 0


def test_a_function_with_room_is_the_same_function():
    roomy = with_room(_depth)
    assert roomy(500) == 500
    assert (roomy.__name__, inspect.signature(roomy)) == ("_depth", inspect.signature(_depth))
    with pytest.raises(ValueError, match="at the bottom"):
        roomy(500, fails=True)


def test_the_room_is_more_than_the_chunk_of_python():
    assert 8 * with_room(_depth).__code__.co_stacksize > 2**17
