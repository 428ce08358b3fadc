"""Whatever the command line is given: one line, exit code 1 or 2, no traceback, nothing half-made."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import broken_models
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcam._src import cli

SOUND = ["--model", "broken_models:sound", "--layer", "layer"]
COMMANDS = ["explain", "audit", "run", "layers"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for name, side in {"a.png": 20, "b.png": 33, "c.jpg": 9}.items():
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(folder / name)
    return folder


def command_of(kind, images, out):
    """The arguments of a command that explains images and writes to `out`."""
    if kind == "layers":
        return ["layers"]
    if kind == "run":
        (image, *_) = images
        return ["run", "--images", image if image.is_dir() else image.parent, "--out", out]
    return [kind, *images, "--out", out]


def held(capsys, out, arguments):
    """Runs a command, checks that it held, and returns its exit code and what it complained."""
    before = sorted(out.rglob("*"))
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in said.out + said.err
    assert "\x1b[" not in said.out + said.err
    lines = said.err.splitlines()
    assert all(line.startswith("jaxcam") for line in lines)
    if code == 2:
        assert len([line for line in lines if "warning: " not in line]) == 1
    after = sorted(out.rglob("*"))
    assert not [path for path in after if path.name.startswith(".")]
    if code == 2 and arguments[0] != "run":
        assert [p for p in after if p.is_file()] == [p for p in before if p.is_file()]
    return code, said.err


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize(("field", "i"), broken_models.MODELS)
def test_a_broken_model(capsys, tmp_path, monkeypatch, pictures, kind, field, i):
    monkeypatch.setattr(
        broken_models, "tried", lambda: broken_models.broken(field, i), raising=False
    )
    images = sorted(pictures.iterdir())
    layer = [] if kind == "layers" else ["--layer", "layer"]
    arguments = command_of(kind, images, tmp_path)
    held(capsys, tmp_path, [*arguments, "--model", "broken_models:tried", *layer])
