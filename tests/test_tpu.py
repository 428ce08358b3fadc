"""The compiler for TPUs takes the methods, and the devices of a mesh share their work."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "tpu_programs.py"
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the compiler for TPUs is not installed: pip install -e '.[tpu-compiler]'",
)


@pytest.fixture(scope="module")
def rows():
    command = [sys.executable, str(SCRIPT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


@needs_compiler
def test_methods_compile_for_tpus_in_float32(rows):
    assert not any("error" in row or row["float64"] for row in rows.values())


@needs_compiler
def test_four_chips_share_the_masked_images_and_exchange_scores_at_the_end(rows):
    alone, shared = rows["score_cam 1"], rows["score_cam 4"]
    # The 64 masked images are dealt; the forward pass of the image is run on each chip.
    assert shared["gflops"] == pytest.approx(alone["gflops"] / 4, rel=0.1)
    assert shared["collectives"] == {"all-gather": 1}
    assert shared["collectives_in_loops"] == shared["loops_after_collectives"] == 0
    assert not rows["grad_cam 4"]["collectives"]
