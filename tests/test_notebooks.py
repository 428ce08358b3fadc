"""Notebooks run top to bottom, import public names alone, and stay small."""

import pytest
from cases import jax_defaults
from pages import NOTEBOOKS, cells


@pytest.mark.thorough
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs(path, request):
    assert path.stat().st_size < 1_000_000
    code = cells(path, "code")
    if any("import optax" in cell for cell in code):  # it trains networks
        request.getfixturevalue("optimised")
    namespace = {"__name__": "__main__"}
    with jax_defaults():
        for cell in code:
            assert "_src" not in cell
            exec(compile(cell, path.name, "exec"), namespace)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
