"""Notebooks run top to bottom, import public names alone, and stay small."""

import json
from pathlib import Path

import pytest
from cases import jax_defaults

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def _cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.thorough
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs(path):
    assert path.stat().st_size < 1_000_000
    namespace = {"__name__": "__main__"}
    with jax_defaults():
        for cell in _cells(path):
            assert "_src" not in cell
            exec(compile(cell, path.name, "exec"), namespace)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
