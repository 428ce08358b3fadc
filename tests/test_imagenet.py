"""Laws on a real network: MobileNetV1 with its ImageNet weights, and 50 labelled photographs."""

import csv
import inspect
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mobilenet
import numpy as np
import pytest
from PIL import Image

import jaxcam
from jaxcam._src import cli
from jaxcam._src.methods import seeded

# Few samples and steps, and few photographs where a method takes hundreds of forward passes: all of
# them on all photographs is what benchmarks/grid_pointing_game.py does.
KNOBS = {"samples": 2, "steps": 3}
SLOW = {"score_cam", "ss_cam", "is_cam", "group_cam", "opti_cam"}
FEW = slice(None, None, 10)  # photographs, where one stands for all


class Photographs(NamedTuple):
    images: jax.Array  # [50, 224, 224, 3]
    classes: np.ndarray  # [50]


@pytest.fixture(scope="module")
def folder() -> Path:
    if not mobilenet.FOLDER.is_dir():
        pytest.skip(f"the weights and photographs are not at {mobilenet.FOLDER}")
    return mobilenet.FOLDER


@pytest.fixture(scope="module")
def model(folder: Path) -> jaxcam.Model:
    return mobilenet.load(folder)


@pytest.fixture(scope="module")
def photographs(folder: Path, model: jaxcam.Model) -> Photographs:
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    images = []
    for row in rows:
        with Image.open(folder / "images" / row["file"]) as picture:
            images.append(model.preprocess(picture.convert("RGB")))
    classes = np.array([int(row["class_index"]) for row in rows])
    assert [model.class_names[c] for c in classes] == [row["class_name"] for row in rows]
    return Photographs(jnp.asarray(np.stack(images)), classes)


@pytest.fixture(scope="module")
def logits(model: jaxcam.Model, photographs: Photographs) -> jax.Array:
    return jax.jit(jax.vmap(partial(model.apply_fn, model.variables)))(photographs.images)


def explain_all(model: jaxcam.Model, method, images: jax.Array) -> jaxcam.Explanation:
    explain = jaxcam.explainer(model.apply_fn, mobilenet.LAYER, method)
    return jax.jit(partial(jax.lax.map, partial(explain, model.variables)))(images)


@pytest.mark.thorough
@pytest.mark.parametrize("layer", ["conv1", "conv_dw_6", mobilenet.LAYER])
def test_head_of_activations_is_the_model(model, photographs, logits, layer):
    @jax.jit
    @jax.vmap
    def cut_and_joined(image):
        activations, head = jaxcam.split(model.apply_fn, layer)(model.variables, image)
        return head(activations), head(jnp.zeros_like(activations))

    joined, of_zeros = cut_and_joined(photographs.images[FEW])
    # Another batch size, so XLA may add in another order: 28 layers of rounding, logits near 20.
    np.testing.assert_allclose(joined, logits[FEW], atol=3e-5, rtol=0)
    assert not np.allclose(of_zeros, logits[FEW], atol=1)


def test_accuracy_is_that_of_the_weights(photographs, logits):
    # Changing the padding, the resize, the crop, the input's range, the order of its colours or
    # the ReLU6 changes one count at least; the epsilon of the batch norms does not show.
    ranks = (logits > jnp.take_along_axis(logits, photographs.classes[:, None], 1)).sum(1)
    assert int((ranks < 1).sum()) == 30
    assert int((ranks < 5).sum()) == 41


def test_cam_is_the_row_of_the_classifier(model, photographs, logits):
    explanations = explain_all(model, jaxcam.cam, photographs.images[FEW])
    kernel = model.variables["params"]["conv_preds"]["kernel"][0, 0]
    np.testing.assert_array_equal(explanations.target, logits[FEW].argmax(1))
    # The sum of 49 equal float32 gradients, each row / 49: at most 49 roundings of 6e-8.
    expected = kernel[:, explanations.target].T
    weights = np.asarray(explanations.weights)[:, 0, 0]
    np.testing.assert_allclose(weights, expected, rtol=4e-6)


def test_cam_is_grad_cam_times_the_positions(model, photographs):
    images = photographs.images[FEW]
    cam = explain_all(model, jaxcam.cam, images)
    grad_cam = explain_all(model, jaxcam.grad_cam, images)
    # Two sums of 49 float32 numbers, of which one is divided by 49 afterwards.
    np.testing.assert_allclose(cam.weights, 49 * np.asarray(grad_cam.weights), rtol=1e-6)
    np.testing.assert_allclose(cam.heatmap, grad_cam.heatmap, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("name", cli.METHODS)
def test_every_photograph_has_a_heatmap(model, photographs, logits, name):
    few = slice(None, None, 50) if name in SLOW else slice(None)
    images = photographs.images[few]
    taken = KNOBS.keys() & inspect.signature(cli.METHODS[name]).parameters.keys()
    method = partial(cli.METHODS[name], **{knob: KNOBS[knob] for knob in taken})
    explanations = explain_all(model, seeded(method, seed=0), images)
    assert explanations.heatmap.shape == images.shape[:-1]
    np.testing.assert_array_equal(explanations.target, logits[few].argmax(1))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(explanations))
    assert float(explanations.heatmap.min()) >= 0
    # A flat map, where nothing speaks against the top class, has no range. Else XLA divides by the
    # range as a product with its reciprocal, an ulp from 1 at times.
    flat = np.ptp(explanations.cam, axis=(1, 2)) == 0
    assert not flat.any() or name == "counterfactual_grad_cam"
    np.testing.assert_allclose(explanations.heatmap.max((1, 2)), ~flat, atol=1e-6)


def test_factory_takes_pictures_of_any_size(folder, model):
    factory = mobilenet.model()
    assert len(factory.class_names) == 1000
    assert factory.class_names == json.loads((folder / "classes.json").read_text())
    for size in ((640, 480), (100, 333), (224, 224)):
        image = np.asarray(factory.preprocess(Image.new("RGB", size, (255, 0, 255))))
        assert image.shape == (224, 224, 3)
        assert factory.display is not None
        shown = np.asarray(factory.display(image))
        np.testing.assert_array_equal(shown[0, 0], [1, 0, 1])


def test_the_command_line_explains_a_photograph(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    photograph = folder / "images" / "n02007558_flamingo.JPEG"
    command = ["explain", str(photograph), "--model", "mobilenet:model", "--layer", mobilenet.LAYER]
    assert cli.main([*command, "--method", "grad_cam_plus_plus", "--out", str(tmp_path)]) == 0
    assert "flamingo" in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "explanations.json").read_text())["images"]
    assert entry["top"][0]["name"] == entry["target"]["name"] == "flamingo"
    assert np.load(tmp_path / entry["cam"]).shape == (7, 7)
    with Image.open(tmp_path / entry["overlay"]) as overlay:
        assert overlay.size == (224, 224)


@pytest.mark.thorough
@pytest.mark.usefixtures("optimised")
def test_the_audit_of_photographs(folder, tmp_path, capsys, monkeypatch):
    """A network of ReLU6: at any layer its logits are piecewise linear, its probabilities not."""
    monkeypatch.chdir(Path(__file__).parent)
    photographs = sorted((folder / "images").iterdir())[:2]
    layers = ["--layer", mobilenet.LAYER, "--layer", "conv_pw_12"]
    command = ["audit", *map(str, photographs), *layers, "--model", "mobilenet:model", "--exact"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("The closed form is exact here, since") == 2
    for found in json.loads((tmp_path / "audit.json").read_text())["layers"].values():
        assert found["mean"]["alpha_error"] <= 1e-6
        agreement = found["mean"]["agreement"]["pearson"]["exact exp"]
        assert agreement["closed form"] > 1 - 1e-6
        assert agreement["exact probability"] < 0.999
