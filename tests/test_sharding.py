"""A mesh gives the numbers of one device, and its devices share the work."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcam

SCRIPT = Path(__file__).parent / "devices.py"
# One image to a device; or the 128 loops of a method dealt to 4 or 8, and one forward pass on each.
AN_EIGHTH = [
    *(f"grad_cam, {mesh}" for mesh in ("8 x 1", "8 images", "sharded arrays")),
    *(f"score_cam, {mesh}" for mesh in ("8 x 1", "1 x 8", "2 x 4", "sharded arrays")),
    *(f"ablation_cam, {mesh}" for mesh in ("8 x 1", "1 x 8", "2 x 4", "8 probes")),
    *(f"derivatives, {mesh}" for mesh in ("8 x 1", "1 x 8", "2 x 4")),
    "evaluator, 8 x 1",
]
IN_CHUNKS = [
    f"{method}, 2 x 4"
    for method in ("score_cam in chunks", "score_cam of 30", "ss_cam", "group_cam", "recipro_cam")
]


def _start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _answer(process):
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(printed.splitlines()[-1])


@pytest.mark.thorough
def test_eight_devices_give_the_numbers_of_one_for_an_eighth_of_the_work():
    found = _answer(_start(8))
    for case in (*AN_EIGHTH, *IN_CHUNKS):
        difference, _ = found[case]
        # Sums run in another order, and the range of a map magnifies it.
        assert difference < 1e-4, case
    for case in AN_EIGHTH:
        _, share = found[case]
        assert share == pytest.approx(1 / 8, rel=0.1), case
    for name, gathered in {"score_cam": 1, "ablation_cam": 1, "derivatives": 3}.items():
        # At the end alone: of the scores, or of the first, second and third derivatives.
        assert found[f"collectives of {name}"] == [gathered, 0, 0], name
    # 17 of 136 for each device, in chunks of 9 and not of 16, of which a device would run 32.
    assert found["runs"] == 8 * 18
    assert found["3 images"].startswith("3 images on 8 devices; wanted a multiple")


def test_two_processes_give_the_numbers_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [_start(2, port, index) for index in (0, 1)]
    for process in both:
        answer = _answer(process)
        assert answer["shape"] == [8, 8, 8]
        assert answer["difference"] < 1e-5


def test_a_mesh_of_other_axes_is_refused():
    mesh = jax.make_mesh((1,), ("batch",))
    with pytest.raises(ValueError, match=r"axes \('batch',\); wanted 'images', 'probes' or both"):
        jaxcam.sharded(lambda *_: None, mesh)


@pytest.mark.parametrize(
    ("image", "target"), [((8, 8, 3), ()), ((2, 8, 8, 3), ()), ((2, 8, 8, 3), (3,))]
)
def test_images_without_a_target_each_are_refused(image, target):
    explain = jaxcam.sharded(lambda *_: None, jax.make_mesh((1, 1), ("images", "probes")))
    with pytest.raises(ValueError, match=r"got images and targets of shapes .* wanted n images"):
        explain(None, np.zeros(image), np.zeros(target, int))
