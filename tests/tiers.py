"""Which of a test's cases run at once, and which only in CI, with `-m thorough`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def rest_is_thorough(cases: Iterable[Any], *, first: int = 1) -> list[Any]:
    """The first cases as they are; more of the same is left to CI."""
    given = list(cases)
    return given[:first] + [_thorough(case) for case in given[first:]]


def thorough_but(cases: Iterable[Any], is_kept: Callable[[Any], bool]) -> list[Any]:
    """The cases that are kept as they are, the others left to CI."""
    given = list(cases)
    assert any(map(is_kept, given)), "all cases are left to CI; is one of the names misspelt?"
    return [case if is_kept(case) else _thorough(case) for case in given]


def _thorough(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.thorough)
