"""Room for the frames of a trace."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def with_room(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, in which Python has room for the frames of all calls.

    CPython keeps frames in chunks of 16 KiB, and a loop whose calls cross the end of one takes a
    new chunk each time. A trace takes up to half as long again if that happens, which depends on
    how deep the calls around it are. A frame as large as this one brings a chunk that lasts.
    """

    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    # More than 128 KiB in words of 8 bytes, for which CPython takes a chunk of 256.
    called.__code__ = called.__code__.replace(co_stacksize=2**14 + 1)
    return functools.wraps(function)(called)
