"""Explainers exported to StableHLO run in a process that never imported the model."""

import functools
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
from tiers import rest_is_thorough

import jaxcam

RUN = """
import sys
import numpy as np, jax, jax.export

folder = sys.argv[1]
with open(f"{folder}/program", "rb") as file:
    program = jax.export.deserialize(file.read())
given = np.load(f"{folder}/given.npz")
np.save(f"{folder}/found.npy", program.call(given["images"], given["targets"]))
assert not {"jaxcam", "flax"} & set(sys.modules)
"""
METHODS = {
    "grad_cam_plus_plus": jaxcam.grad_cam_plus_plus,
    "score_cam": functools.partial(jaxcam.score_cam, chunk_size=8),
}


@pytest.mark.parametrize("method", rest_is_thorough(METHODS))
def test_a_process_without_jaxcam_runs_what_was_exported(tmp_path, method):
    """The variables are in the program; the number of images is left open."""
    model, canvases = jaxcam.digits_silu(), jaxcam.load_canvases()
    explain = jaxcam.explainer(model.apply_fn, "stage3", METHODS[method])
    explain = jax.vmap(functools.partial(explain, model.variables))
    heatmaps = jax.jit(lambda images, targets: explain(images, targets).heatmap)
    (n,) = jax.export.symbolic_shape("n")
    shapes = [
        jax.ShapeDtypeStruct((n, *array.shape[1:]), array.dtype)
        for array in (canvases.images, canvases.labels)
    ]
    program = jax.export.export(heatmaps, platforms=["cpu", "cuda", "tpu"])(*shapes)
    (tmp_path / "program").write_bytes(program.serialize())
    images, targets = canvases.images[:3], canvases.labels[:3]
    np.savez(tmp_path / "given.npz", images=images, targets=targets)
    subprocess.run([sys.executable, "-c", RUN, tmp_path], check=True, timeout=120)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, heatmaps(images, targets), atol=1e-6)


def test_an_explanation_and_its_variables_pass_an_exported_program():
    model, canvases = jaxcam.digits_relu(), jaxcam.load_canvases()
    explain = jax.jit(jaxcam.explainer(model.apply_fn, "stage3"))
    given = model.variables, canvases.images[0], canvases.labels[0]
    program = jax.export.deserialize(jax.export.export(explain)(*given).serialize())
    found, wanted = program.call(*given), explain(*given)
    assert isinstance(found, jaxcam.Explanation)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
