"""Every command and code block of the README runs."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import jax_defaults

import jaxcam
from jaxcam._src import cli
from jaxcam._src.demo.bundle import FOLDER

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
MODULE = "# my_network.py\n"
AUDIT = {"audit.json", "audit.png"}


def _blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "bibtex"}


@pytest.mark.thorough
def test_python_blocks_run_in_order(capsys):
    namespace = {}
    with jax_defaults():
        for block in _blocks("python"):
            if not block.startswith(MODULE):
                exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["heatmaps"].shape == (24, 64, 64)
    assert namespace["picture"].shape == (64, 64, 3)
    assert len(namespace["explanations"]) == 3
    assert "layers_0 (64, 64, 8) 1" in capsys.readouterr().out


def test_the_table_of_methods_is_that_of_their_docstrings(capsys):
    assert cli.main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out in (ROOT / "README.md").read_text()


def test_the_set_up_commands_are_what_continuous_integration_runs():
    set_up = [line for block in _blocks("bash") for line in block.splitlines() if "pip" in line]
    assert len(set_up) == 2
    assert all(line.startswith("python3 -m venv") for line in set_up)
    assert "grep '^python3 -m venv' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture
def folder_of_a_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copy(FOLDER / "canvas0.png", "digit.png")
    shutil.copy(FOLDER / "canvas1.png", "other.png")
    shutil.copytree(FOLDER, "photographs", ignore=shutil.ignore_patterns("*.msgpack"))
    (module,) = (block for block in _blocks("python") if block.startswith(MODULE))
    Path("my_network.py").write_text(module)
    yield tmp_path
    sys.modules.pop("my_network", None)


@pytest.mark.thorough
def test_commands_run(folder_of_a_user, capsys):
    lines = [line for block in _blocks("bash") for line in block.splitlines() if "pip" not in line]
    assert len(lines) == 8
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "jaxcam"
        assert cli.main(arguments) == 0
    written = {path.name for path in (folder_of_a_user / "maps").iterdir()}
    assert {"digit_overlay.png", "digit_cam.npy", "other_cam.npy", "explanations.json"} <= written
    assert {path.name for path in (folder_of_a_user / "audit").iterdir()} == AUDIT
    heatmaps = dict(_reader()(folder_of_a_user / "maps-of-all"))
    canvases, model = jaxcam.load_canvases(), jaxcam.digits_relu()
    wanted = jaxcam.explainer(model.apply_fn, "stage3")(model.variables, canvases.images[0])
    assert len(heatmaps) == len(canvases.images)
    np.testing.assert_allclose(heatmaps["canvas0.png"], wanted.heatmap, atol=1e-5)


def _reader() -> Callable[[Path], Iterator[tuple[str, np.ndarray]]]:
    """What the README says to read the maps of a run with."""
    (block,) = (block for block in _blocks("python") if "def read(" in block)
    namespace: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), namespace)
    return namespace["read"]
