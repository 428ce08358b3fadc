"""Every command and code block of the README runs, and every command of a notebook."""

import csv
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import jax_defaults
from pages import NOTEBOOKS, README, ROOT, blocks, cells, languages, text

import jaxcam
from jaxcam._src import cli
from jaxcam._src.demo.bundle import FOLDER

SCALE = ROOT / "notebooks" / "07_scale.ipynb"
EVALUATION = ROOT / "notebooks" / "05_evaluation.ipynb"
METHODS = ROOT / "notebooks" / "09_methods.ipynb"
MODULE = "# my_network.py\n"
AUDIT = {"audit.json", "audit.png"}
IMAGES = 3
LONGEST = 150  # lines that are read in five minutes


def _lines(path: Path) -> list[str]:
    """The commands of a page in `jaxcam`: all but those that install, and build the reference."""
    lines = [line for block in blocks(path, "bash") for line in block.splitlines()]
    lines = [line.removeprefix(".venv/bin/") for line in lines]
    return [line for line in lines if "pip" not in line and not line.startswith("pdoc")]


def test_every_block_is_of_a_kind_that_is_tested():
    assert languages(README) == {"bash", "python"}
    for path in NOTEBOOKS:
        assert languages(path) <= {"bash", "python"}, path
        if "bash" in languages(path):
            assert path in {SCALE, EVALUATION}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", [README, *NOTEBOOKS], ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", text(path)):
        if not link.startswith("https://"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_shown_and_not_run_is_python(path):
    for block in blocks(path, "python"):
        compile(block, path.name, "exec")


@pytest.mark.thorough
def test_python_blocks_run_in_order(capsys):
    namespace: dict[str, Any] = {}
    with jax_defaults():
        for block in blocks(README, "python"):
            exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["heatmaps"].shape == (24, 64, 64)
    assert namespace["picture"].shape == (64, 64, 3)
    assert namespace["layer"] == "stage3"
    assert namespace["explanation"].heatmap.shape == (64, 64)
    assert "\nstage3 (16, 16, 64) 1\n" in capsys.readouterr().out
    assert "# stage3 (16, 16, 64) 1\n" in README.read_text()


def test_the_table_of_methods_is_that_of_their_docstrings(capsys):
    assert cli.main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out in text(METHODS)


def test_the_set_up_commands_are_what_continuous_integration_runs():
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    (pattern,) = re.findall(r"grep '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    assert len([line for line in lines if re.match(pattern, line)]) == 2


def test_the_extras_that_pages_name_exist():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in (README, *NOTEBOOKS):
        for names in re.findall(r"pip install [^\n`]*\.\[([\w,-]+)\]", text(path)):
            assert set(names.split(",")) <= set(known), names


def test_the_citation_is_of_this_version():
    versions = re.findall(r"^ *version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert set(versions) == {jaxcam.__version__}


@pytest.fixture
def folder_of_a_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copy(FOLDER / "canvas0.png", "digit.png")
    shutil.copy(FOLDER / "canvas1.png", "other.png")
    Path("photographs").mkdir()
    boxes = jaxcam.load_canvases().boxes[:IMAGES]
    with Path("boxes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "xmin", "ymin", "xmax", "ymax"])
        for i, box in enumerate(boxes):
            shutil.copy(FOLDER / f"canvas{i}.png", "photographs")
            rows.writerow([f"canvas{i}.png", box.left, box.top, box.right, box.bottom])
    (module,) = (block for block in blocks(SCALE, "python") if block.startswith(MODULE))
    Path("my_network.py").write_text(module)
    yield tmp_path
    sys.modules.pop("my_network", None)


def _run(lines: list[str]) -> None:
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "jaxcam"
        assert cli.main(arguments) == 0, line


@pytest.mark.thorough
def test_photographs_become_a_page(folder_of_a_user):
    lines = _lines(README)
    assert [line.split()[1] for line in lines] == ["run", "report"]
    _run(lines)
    page = (folder_of_a_user / "report.html").read_text()
    assert all(f"canvas{i}.png" in page for i in range(IMAGES))


@pytest.mark.thorough
def test_commands_run(folder_of_a_user):
    lines = _lines(SCALE)
    assert len(lines) == 7
    _run(lines)
    written = {path.name for path in (folder_of_a_user / "maps").iterdir()}
    assert {"digit_overlay.png", "digit_cam.npy", "other_cam.npy", "explanations.json"} <= written
    assert {path.name for path in (folder_of_a_user / "audit").iterdir()} == AUDIT
    heatmaps = dict(_reader()(folder_of_a_user / "maps-of-all"))
    canvases, model = jaxcam.load_canvases(), jaxcam.digits_relu()
    wanted = jaxcam.explainer(model.apply_fn, "stage3")(model.variables, canvases.images[0])
    assert len(heatmaps) == IMAGES
    np.testing.assert_allclose(heatmaps["canvas0.png"], wanted.heatmap, atol=1e-5)


@pytest.mark.thorough
def test_commands_that_judge_run(folder_of_a_user):
    lines = _lines(EVALUATION)
    assert len(lines) == 2
    _run(lines)
    assert (folder_of_a_user / "judged" / "summary.json").exists()
    assert (folder_of_a_user / "judged-by-boxes" / "summary.json").exists()


def _reader() -> Callable[[Path], Iterator[tuple[str, np.ndarray]]]:
    """What the notebook says to read the maps of a run with."""
    (cell,) = (cell for cell in cells(SCALE, "code") if "def read(" in cell)
    namespace: dict[str, Any] = {"Path": Path, "jaxcam": jaxcam, "np": np}
    exec(compile(cell, SCALE.name, "exec"), namespace)
    return namespace["read"]
