"""The command line: what it writes, and one line for what it cannot do."""

import dataclasses
import functools
import importlib.metadata
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxcam
from jaxcam._src import cli, files
from jaxcam._src.audit.price import Price
from jaxcam._src.cli import METHODS, audit, knobs, streams
from jaxcam._src.demo.bundle import FOLDER
from jaxcam._src.explanations import of_one_map
from jaxcam._src.pipeline import store

CANVAS = str(FOLDER / "canvas0.png")
SCORE_CAM = ["--layer", "stage3", "--method", "score_cam"]


def nan_model():
    """A factory whose weights are broken."""
    model = jaxcam.digits_relu()
    params = model.variables["params"]
    kernel = params["stem"]["kernel"] * np.float32("nan")
    broken = {**model.variables, "params": {**params, "stem": {"kernel": kernel}}}
    return dataclasses.replace(model, variables=broken)


def nameless_model():
    """A factory with fewer names than logits."""
    return dataclasses.replace(jaxcam.digits_relu(), class_names=("zero", "one"))


def blind_model():
    """A factory whose preprocessing spoils every image but a blank one."""
    model = jaxcam.digits_relu()

    def preprocess(image):
        pixels = np.array(model.preprocess(image))
        return np.where(pixels.max() > 0, np.float32("nan"), pixels)

    return dataclasses.replace(model, preprocess=preprocess)


def failing_model():
    """A factory that cannot load its weights."""
    raise RuntimeError("the checkpoint\nis gone")


def twice_model():
    """A factory of a model that runs its layer twice, with names that look like indices."""

    def apply_fn(variables, image):
        image = jaxcam.tag(jaxcam.tag(image * 2, "twice") + 1, "twice")
        return image.mean((0, 1)) @ jnp.arange(5.0)[None]

    digits = jaxcam.digits_relu()
    return jaxcam.Model(apply_fn, {"key": jax.random.key(0)}, digits.preprocess, list("43210"))


def binary_model():
    """A factory of a model with one logit."""

    def apply_fn(variables, image):
        features = jaxcam.tag(jnp.concatenate([image, 1 - image], -1), "features")
        return features.mean((0, 1), keepdims=True)[0, 0] @ jnp.array([[1.0], [-1.0]])

    return jaxcam.Model(apply_fn, {}, jaxcam.digits_relu().preprocess, ["one"])


def crowded_model():
    """A factory of a model behind whose layer all positions meet, and what they make is curved."""

    def apply_fn(variables, image):
        cells = image.reshape(4, 16, 4, 16, 1).mean((1, 3)) * variables
        cells = jaxcam.tag(cells, "cells").reshape(16, 6)
        mixed = jax.nn.softmax(cells @ cells.T, axis=-1) @ cells
        return jnp.tanh(mixed).sum(0)[:5]

    digits, scale = jaxcam.digits_relu(), np.linspace(0.5, 2, 6, dtype=np.float32)
    return jaxcam.Model(apply_fn, scale[None, None], digits.preprocess, list("43210"))


def picky_model():
    """A factory whose preprocessing fails."""

    def preprocess(image):
        raise KeyError("scale")

    return dataclasses.replace(jaxcam.digits_relu(), preprocess=preprocess)


def gaudy_model():
    """A factory whose display leaves [0, 1]."""
    return dataclasses.replace(jaxcam.digits_relu(), display=lambda image: image + 3)


def no_model():
    """A factory that returns something else."""
    return {"params": 1}


def run_command(capsys, *arguments):
    """The exit code, standard output and standard error of one command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.thorough
def test_demo_writes_a_figure_and_beats_the_floor(capsys, tmp_path):
    code, out, _ = run_command(capsys, "demo", "--out", tmp_path / "new" / "folder")
    assert code == 0
    folder = tmp_path / "new" / "folder"
    written = {path.name for path in folder.iterdir()}
    assert written - {"photograph.png"} == {"figure.png", "energy.json"}
    assert ("jaxcam-xai[photographs]" in out) == ("photograph.png" not in written)
    for name in written - {"energy.json"}:
        with Image.open(folder / name) as figure:
            assert figure.size[0] > 500
    energy = json.loads((folder / "energy.json").read_text())
    floor = energy.pop("all ones (floor)")
    assert set(energy) == {"cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam"}
    for name, shares in energy.items():
        assert name in out
        for network, share in shares.items():
            assert share > 2 * floor[network]
    assert str(folder / "figure.png") in out


def test_layers_lists_names_shapes_and_runs(capsys):
    code, out, _ = run_command(capsys, "layers", "--model", "jaxcam:digits_silu")
    assert code == 0
    assert "stage3/conv2" in out
    assert "[16, 16, 64]" in out


@pytest.mark.parametrize("target", ["4", "four", None])
def test_explain_writes_overlay_map_and_numbers(capsys, tmp_path, target):
    images = [FOLDER / "canvas0.png", FOLDER / "canvas1.png"]
    choice = [] if target is None else ["--target", target]
    code, out, _ = run_command(
        capsys, "explain", *images, "--layer", "stage3", "--method", "grad_cam_plus_plus",
        *choice, "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    stems = ["canvas0", "canvas1"]
    written = {f"{stem}_{kind}" for stem in stems for kind in ("overlay.png", "cam.npy")}
    assert {path.name for path in tmp_path.iterdir()} == written | {"explanations.json"}

    model, canvases = jaxcam.digits_relu(), jaxcam.load_canvases()
    explain = jaxcam.explainer(model.apply_fn, "stage3", jaxcam.grad_cam_plus_plus)
    numbers = json.loads((tmp_path / "explanations.json").read_text())
    for i, (stem, entry) in enumerate(zip(stems, numbers["images"], strict=True)):
        label = int(canvases.labels[i])
        wanted = explain(model.variables, canvases.images[i], 4 if target else label)
        found = np.load(tmp_path / f"{stem}_cam.npy")
        np.testing.assert_allclose(found, wanted.cam, rtol=1e-6, atol=1e-5)
        picture = np.asarray(Image.open(tmp_path / f"{stem}_overlay.png"), int)
        drawn = jaxcam.overlay(jaxcam.unit_range(canvases.images[i]), wanted.heatmap)
        assert abs(picture - drawn).max() <= 2  # a colour may round either way
        assert entry["target"]["class"] == (4 if target else label)
        assert entry["top"][0]["class"] == label
        assert len(entry["top"]) == 5
        assert entry["top"][0]["probability"] > 0.5
        assert model.class_names[label] in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "no.png", "--layer", "stage3"], "there is no image no.png"),
        (["explain", "TEXT", "--layer", "stage3"], "cannot be read as an image"),
        (["explain", "CUT", "--layer", "stage3"], "cannot be read as an image"),
        (["explain", CANVAS, CANVAS, "--layer", "stage3"], "2 images are named 'canvas0'"),
        (["explain", CANVAS, "--layer", "stage4"], "no layer 'stage4'. Did you mean 'stage"),
        (["explain", CANVAS, "--layer", "classifier"], "Choose a layer before"),
        (["explain", CANVAS, "--layer", "stage2", "--method", "cam"], "cam needs a global"),
        (
            ["explain", CANVAS, "--layer", "stage3", "--method", "gradcam"],
            "mean 'grad_cam'",
        ),
        (["explain", CANVAS, "--layer", "stage3", "--target", "ten"], "no class 'ten'."),
        (["explain", CANVAS, "--layer", "stage3", "--target", "10"], "give an index up to 9"),
        (["explain", CANVAS, "--layer", "stage3", "--model", "x"], "package.module:factory"),
        (["layers", "--model", "no_such_module:f"], "ModuleNotFoundError"),
        (["layers", "--model", "jaxcam:no_such_factory"], "there is no factory 'no_such_factory'"),
        (["layers", "--model", "jaxcam:efficientnet_lite"], "Did you mean 'efficientnet_lite0'"),
        (["layers", "--model", "jaxcam:grad_cam"], "grad_cam takes arguments; wanted a function"),
        (["layers", "--model", "jaxcam:__version__"], "; wanted a function without arguments"),
        (
            ["layers", "--model", "test_cli.py:failing_model"],
            "such as --model test_cli:failing_model, run",
        ),
        (["layers", "--model", "test_cli:failing_model"], "RuntimeError: the checkpoint is gone"),
        (["layers", "--model", "test_cli:no_model"], "returned dict; wanted a jaxcam.Model"),
        (["layers", "--model", "test_cli:nan_model"], "['params']['stem']['kernel'] holds NaN"),
        (["explain", CANVAS, "--layer", "stem", "--model", "test_cli:nameless_model"], "2 class"),
        (["explain", CANVAS, "--layer", "stem", "--model", "test_cli:blind_model"], "not finite"),
        (["explain", CANVAS, "--layer", "stem", "--model", "test_cli:picky_model"], "KeyError"),
        (["layers", "--model", "test_cli:picky_model"], "KeyError: 'scale'"),
        (["explain", CANVAS, "--layer", "stem", "--model", "test_cli:gaudy_model"], "[3, 4]"),
        (["explain", CANVAS, "--layer", "twice", "--model", "test_cli:twice_model"], "2 times"),
        (["explain", CANVAS, "--layer", "stage3", "--out", "FILE"], "choose another --out"),
        (["audit", CANVAS, "--layer", "stage4"], "no layer 'stage4'. Did you mean 'stage"),
        (["audit", CANVAS, "no.png", "--layer", "stage3"], "there is no image no.png"),
        (["audit", "EMPTY", "--layer", "stage3"], "there is no image in the folder"),
        (["audit", CANVAS, "--layer", "stage3", "--target", "ten"], "no class 'ten'."),
        (["audit", CANVAS, "--layer", "stage3", "--model", "test_cli:blind_model"], "holds NaN"),
        (["audit", CANVAS, "--layer", "stem", "--model", "test_cli:gaudy_model"], "[3, 4]"),
        (["audit", CANVAS, "--layer", "stage3", "--out", "FILE"], "choose another --out"),
        (["audit", CANVAS, "--layer", "stage3", "--samples", "1"], "samples is 1; it counts"),
        (["demo", "--out", "FILE/deeper"], "choose another --out"),
        (
            ["explain", CANVAS, "--layer", "stage3", "--method", "score_cam", "--set", "topk=3"],
            "no score_cam knob 'topk'. Did you mean 'top_k' or 'dtype'? There are: chunk_size, top",
        ),
        (["explain", CANVAS, "--layer", "stage3", "--set", "top_k=3"], "no grad_cam knob to set"),
        (
            ["explain", CANVAS, *SCORE_CAM, "--set", "top_k=many"],
            "--set top_k=many: wanted int or None",
        ),
        (["explain", CANVAS, *SCORE_CAM, "--set", "top_k"], "wanted [METHOD.]NAME=VALUE"),
        (["explain", CANVAS, *SCORE_CAM, "--set", "top_k=0"], "top_k is 0; it is a count"),
        (["explain", CANVAS, *SCORE_CAM, "--set", "rank_fn=x"], "wanted a function of jaxcam"),
        (["explain", CANVAS, *SCORE_CAM, "--set", "dtype=x"], "wanted a type of numbers"),
        (["explain", CANVAS, *SCORE_CAM, "--set", "cam.top_k=1"], "no chosen method 'cam'"),
        (["explain", CANVAS, "--layer", "stage3", "--score", "prob"], "mean 'probability'"),
        (["explain", CANVAS, "--layer", "stage3", "--fuse", "max"], "wants several layers"),
        (["explain", CANVAS, "--layer", "stage3", "--fuse", "mex"], "mean 'max'"),
        (["explain", CANVAS, "--layer", "stage3", "--convention", "x"], "no convention 'x'"),
        (["audit", CANVAS, "--layer", "stage3", "--score", "prob"], "mean 'probability'"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_no_file(capsys, tmp_path, arguments, message):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((FOLDER / "canvas0.png").read_bytes()[:400])
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for word, name in {
        "TEXT": "text.png",
        "CUT": "cut.png",
        "FILE": "file",
        "EMPTY": "empty",
    }.items():
        arguments = [argument.replace(word, str(tmp_path / name)) for argument in arguments]
    if arguments[:1] in (["explain"], ["audit"]) and "--out" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path)]
    code, out, err = run_command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


CROWDED = ["audit", CANVAS, "--model", "test_cli:crowded_model", "--layer", "cells"]


@pytest.mark.thorough
def test_an_audit_that_takes_long_says_so_and_takes_a_sample(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "price", lambda *_, **__: Price(1.0, 0.5, 96.0, 96.0))
    monkeypatch.setattr(audit, "_SAMPLE", 24)
    code, said, _ = run_command(capsys, *CROWDED, "--out", tmp_path)
    assert code == 0
    first, second, _ = said.split("\n", 2)
    assert (
        first == "cells: a whole audit would take about 98 seconds or more; --exact insists on it"
    )
    assert second == "cells: a sample of 24 activations takes about 13 seconds"
    assert "by a sample of 24 of 96 activations" in said
    numbers = json.loads((tmp_path / "audit.json").read_text())["layers"]["cells"]["mean"]
    assert numbers["sample"]["activations"] == 24
    low, high = (numbers["sample"][end]["second_error"] for end in ("low", "high"))
    assert low < numbers["second_error"] < high


@pytest.mark.thorough
def test_an_exact_audit_says_that_it_takes_long(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "_UNTOLD", 0.0)  # so that any time is long
    code, said, _ = run_command(capsys, *CROWDED, "--exact", "--out", tmp_path)
    assert code == 0
    assert said.startswith("cells: takes up to about")
    assert "sample" not in json.loads((tmp_path / "audit.json").read_text())["layers"]["cells"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model", "layer"), [("digits_silu", "stage3/conv2"), ("digits_relu", None)]
)
def test_audit_of_a_folder_and_several_layers(capsys, tmp_path, model, layer):
    """The closed form is far from exact inside the SiLU network, and exact everywhere else."""
    folder = tmp_path / "canvases"
    folder.mkdir()
    for name in ("canvas0.png", "canvas1.png"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    (folder / "notes.txt").write_text("no picture")
    layers = ["--layer", "stage3", "--layer", "stage3/conv2"]
    out = tmp_path / "out"
    code, said, _ = run_command(
        capsys, "audit", folder, *layers, "--model", f"jaxcam:{model}", "--exact", "--out", out
    )
    assert code == 0
    assert said.count("The closed form is") == 2
    assert {path.name for path in out.iterdir()} == {"audit.json", "audit.png"}
    numbers = json.loads((out / "audit.json").read_text())["layers"]
    assert all(len(each["images"]) == 2 for each in numbers.values())
    with Image.open(out / "audit.png") as figure:
        assert figure.size[0] > 1000
    errors = {name: each["mean"]["alpha_error"] for name, each in numbers.items()}
    if layer:
        assert errors.pop(layer) > 0.1
    assert max(errors.values()) <= 1e-6


def test_a_run_of_a_layer_and_a_class_name_before_an_index(capsys, tmp_path):
    model = ["--model", "test_cli:twice_model"]
    code, out, _ = run_command(capsys, "layers", *model)
    assert (code, out) == (0, "twice  float32[64, 64, 1]  2 times\n")
    choice = ["--layer", "twice", "--occurrence", "1", "--target", "3"]
    code, _, _ = run_command(capsys, "explain", CANVAS, *choice, *model, "--out", tmp_path)
    assert code == 0
    (entry,) = json.loads((tmp_path / "explanations.json").read_text())["images"]
    assert entry["target"] == {"class": 1, "name": "3"}


def test_photographs_are_turned_upright(tmp_path):
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera lay on its side
    picture.save(tmp_path / "turned.png", exif=exif)
    assert files.open_image(tmp_path / "turned.png").size == (2, 3)


def test_16_bits_are_scaled_and_32_are_refused(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    read = np.asarray(files.open_image(tmp_path / "sixteen.png"))
    np.testing.assert_array_equal(read[..., 0], pixels)
    Image.fromarray(pixels / np.float32(255)).save(tmp_path / "floats.tiff")
    with pytest.raises(files.UsageError, match=r"32-bit numbers .* save it with 8 or 16"):
        files.open_image(tmp_path / "floats.tiff")


def test_an_interrupt_is_one_line(capsys, monkeypatch, tmp_path):
    def interrupted(methods, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.lists.report, "run", interrupted)
    code, _, err = run_command(capsys, "demo", "--out", tmp_path)
    assert (code, err) == (130, "jaxcam: interrupted\n")


def test_version_is_that_of_the_package(capsys):
    code, out, _ = run_command(capsys, "--version")
    assert code == 0
    assert out.strip() == importlib.metadata.version("jaxcam-xai")


def test_python_m_jaxcam_is_the_command_line():
    command = [sys.executable, "-m", "jaxcam", "explain", "no.png", "--layer", "stage3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "jaxcam: there is no image no.png\n"


def test_methods_are_listed_by_their_whole_names_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setattr(streams.results, "width", 80)
    assert cli.main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {*METHODS} - {"grad_cam_plus_plus_closed"} <= {word for x in lines for word in x.split()}


def test_a_method_is_described_with_its_knobs(capsys):
    code, out, _ = run_command(capsys, "methods", "score_cam")
    assert code == 0
    for part in ("Score-CAM", "softmax of", "many channels", "top_k=None", "arxiv.org/abs/1910"):
        assert part in out
    code, _, error = run_command(capsys, "methods", "scorecam")
    assert (code, error.count("\n")) == (2, 1)
    assert "there is no method 'scorecam'. Did you mean 'score_cam'" in error


def test_without_a_layer_the_last_with_positions_is_explained_and_named(capsys, tmp_path):
    code, out, _ = run_command(capsys, "explain", CANVAS, "--out", tmp_path)
    assert code == 0
    assert out.startswith("layer: stage3 (last with positions; choose with --layer)\n")
    assert json.loads((tmp_path / "explanations.json").read_text())["layer"] == "stage3"
    model = ["--model", "test_cli:twice_model", "--out", tmp_path]
    code, _, error = run_command(capsys, "explain", CANVAS, *model)
    assert code == 2
    assert "--layer is not given: the model has no layer with positions that runs once" in error


VIT = ["--model", "jaxcam:digits_vit"]


def test_tokens_of_a_layer_are_laid_out_as_a_grid(capsys, tmp_path):
    code, out, _ = run_command(capsys, "explain", CANVAS, *VIT, "--out", tmp_path)
    assert code == 0
    assert out.startswith("layer: block2 (last with positions; choose with --layer)\n")
    model = jaxcam.digits_vit()
    image = model.preprocess(Image.open(CANVAS))
    explain = jaxcam.explainer(model.apply_fn, jaxcam.token_grid(model.apply_fn, "block2"))
    cam = np.load(tmp_path / "canvas0_cam.npy")
    np.testing.assert_allclose(cam, explain(model.variables, image).cam, rtol=1e-4, atol=1e-6)
    command = ["explain", CANVAS, *VIT, "--layer", "block3", "--out", tmp_path / "other"]
    code, _, error = run_command(capsys, *command)
    assert (code, error.count("\n")) == (2, 1)
    assert "the patches' tokens of layer 'block3' cannot reach what the model returns" in error


def test_layers_say_what_exact_derivatives_cost_of_tokens(capsys):
    code, out, _ = run_command(capsys, "layers", *VIT, "--matching", "block2", "--cost")
    assert code == 0
    assert "the default" in out
    assert out.endswith("48 directions instead of 3,072\n")


def test_layers_mark_the_default_and_leave_out_what_has_no_map(capsys):
    code, out, _ = run_command(capsys, "layers")
    assert code == 0
    *_, default, left = out.splitlines()
    assert default.split("  ")[-2:] == [
        "the default",
        "exact Grad-CAM++: piecewise linear: one gradient",
    ]
    assert "classifier" not in out
    assert left == "left out, without positions: 1; --all lists them too"
    command = ["layers", "--model", "jaxcam:digits_silu", "--all", "--cost"]
    code, out, _ = run_command(capsys, *command, "--matching", "classifier")
    assert re.search(r"^classifier .*no map: layer 'classifier' returns", out, re.M)
    code, out, _ = run_command(capsys, *command, "--matching", "stage3/conv2")
    assert out.endswith("exact Grad-CAM++: local, 1 colour: 1 direction instead of 16,384\n")


SEVERAL = [
    "--layer",
    "stage2",
    "--layer",
    "stage3",
    "--method",
    "grad_cam",
    "--method",
    "score_cam",
]


@pytest.mark.thorough
def test_several_methods_and_layers_each_as_if_alone_and_side_by_side(capsys, tmp_path):
    knobs = ["--set", "top_k=8", "--out", tmp_path / "out"]
    code, out, _ = run_command(capsys, "explain", CANVAS, *SEVERAL, *knobs)
    assert code == 0
    names = {f"{method}@{layer}" for method in SEVERAL[5::2] for layer in SEVERAL[1:4:2]}
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == names | {"canvas0_side_by_side.png"}
    assert (out.count("zero 100.0%"), out.count("\n")) == (1, 2)
    with Image.open(tmp_path / "out" / "canvas0_side_by_side.png") as figure:
        assert 1.3 < figure.width / figure.height < 1.5  # two layers; the image and two methods
    alone = ["--layer", "stage2", "--method", "score_cam", "--set", "score_cam.top_k=8"]
    assert run_command(capsys, "explain", CANVAS, *alone, "--out", tmp_path / "alone")[0] == 0
    cams = [tmp_path / "out" / "score_cam@stage2", tmp_path / "alone"]
    cams = [np.load(folder / "canvas0_cam.npy") for folder in cams]
    np.testing.assert_array_equal(*cams)
    settings = json.loads((tmp_path / "alone" / "explanations.json").read_text())
    assert settings["set"] == ["score_cam.top_k=8"]


@pytest.mark.parametrize("score", ["logit", "log_probability"])
def test_scores_knobs_and_conventions_are_those_of_python(capsys, tmp_path, score):
    choice = ["--score", score, "--convention", "torchcam", "--method", "ss_cam", "--seed", 3]
    knobs = ["--set", "samples=2", "--set", "sigma=1", "--set", "rank_fn=grad_cam"]
    more = ["--set", "ss_cam.top_k=4", "--layer", "stage3", "--out", tmp_path]
    code, _, error = run_command(capsys, "explain", CANVAS, *choice, *knobs, *more)
    assert code == 0, error
    model, image = jaxcam.digits_relu(), jaxcam.load_canvases().images[0]
    method = functools.partial(
        jaxcam.ss_cam, key=jax.random.key(3), samples=2, sigma=1.0, rank_fn=jaxcam.grad_cam, top_k=4
    )
    how = {"score_fn": getattr(jaxcam, score), "convention": jaxcam.conventions.torchcam}
    explain = jax.jit(jaxcam.explainer(model.apply_fn, "stage3", method, **how))
    cam = np.load(tmp_path / "canvas0_cam.npy")
    np.testing.assert_allclose(cam, explain(model.variables, image).cam, rtol=1e-4, atol=1e-5)
    settings = json.loads((tmp_path / "explanations.json").read_text())
    assert settings["convention"] == "torchcam"
    assert settings.get("score", "logit") == score


@pytest.mark.parametrize("command", ["explain", "run"])
def test_the_layers_of_a_fusion_make_one_map_that_of_python(capsys, tmp_path, command):
    images = {"explain": [CANVAS], "run": ["--images", str(FOLDER)]}[command]
    layers = ["--layer", "stage2", "--layer", "stage3"]
    how = ["--method", "layer_cam", "--fuse", "layer_cam", "--out", tmp_path]
    code, _, error = run_command(capsys, command, *images, *layers, *how)
    assert code == 0, error
    model, image = jaxcam.digits_relu(), jaxcam.load_canvases().images[0]
    at = ["stage2", "stage3"]
    explain = jaxcam.explainer(model.apply_fn, at, jaxcam.layer_cam, fuse=jaxcam.fuse_layer_cam)
    wanted = jax.jit(explain)(model.variables, image).heatmap
    is_run = command == "run"
    kept = store.read_maps(tmp_path, [0])[0] if is_run else np.load(tmp_path / "canvas0_cam.npy")
    np.testing.assert_allclose(kept, wanted, atol=1e-5)
    record = {"explain": "explanations.json", "run": "run.json"}[command]
    settings = json.loads((tmp_path / record).read_text())
    assert (settings["layer"], settings["fuse"]) == ("stage2+stage3", "layer_cam")


def test_a_fused_map_is_flat_where_that_of_every_layer_is():
    model, image = jaxcam.digits_relu(), jaxcam.load_canvases().images[0]
    at = ["stage2", "stage3"]
    for method, is_flat in ((_nothing, True), (jaxcam.layer_cam, False)):
        explain = of_one_map(jaxcam.explainer(model.apply_fn, at, method))
        explanation = explain(model.variables, image)
        assert (jaxcam.why_flat(explanation) is not None) == is_flat
        assert explanation.cam.shape == explanation.heatmap.shape == (64, 64)


def _nothing(tap):
    return jnp.zeros_like(tap.activations)


def test_layers_of_attention_are_named_with_commas():
    given = {"attention_rollout": jaxcam.attention_rollout}
    bound = knobs.bound(given, ["layers=blocks/0,blocks/1", "queries=0"])
    found = bound["attention_rollout"]
    assert isinstance(found, functools.partial)
    assert found.keywords == {"layers": ("blocks/0", "blocks/1"), "queries": 0}


def test_a_knob_of_another_dtype_and_without_a_value():
    given = {"score_cam": jaxcam.score_cam, "grad_cam": jaxcam.grad_cam}
    settings = ["dtype=bfloat16", "score_cam.rank_fn=None", "chunk_size=4"]
    bound = knobs.bound(given, settings)
    assert bound["grad_cam"] is jaxcam.grad_cam
    wanted = {"dtype": jnp.dtype("bfloat16"), "rank_fn": None, "chunk_size": 4}
    found = bound["score_cam"]
    assert isinstance(found, functools.partial)
    assert found.keywords == wanted


def test_a_binary_score_has_two_targets(capsys, tmp_path):
    command = ["explain", CANVAS, "--model", "test_cli:binary_model", "--score", "binary_logit"]
    for target in ("not one", "1"):
        given = ["--layer", "features", "--target", target, "--out", tmp_path]
        assert run_command(capsys, *command, *given)[0] == 0
        (entry,) = json.loads((tmp_path / "explanations.json").read_text())["images"]
        assert entry["target"]["class"] == int(target == "1")
        assert entry["target"]["name"] == ("one" if target == "1" else "not one")


def test_random_numbers_come_from_the_seed(tmp_path, capsys):
    command = ["explain", CANVAS, "--layer", "stage3", "--method", "random_cam"]
    maps = []
    for seed in ("0", "0", "1"):
        assert cli.main([*command, "--seed", seed, "--out", str(tmp_path)]) == 0
        maps.append(np.load(tmp_path / "canvas0_cam.npy"))
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])
    assert json.loads((tmp_path / "explanations.json").read_text())["seed"] == 1


def deep_model():
    """A factory of a model of many layers that are alike."""

    def apply_fn(variables, image):
        x = image
        for i in range(40):
            x = jaxcam.tag(jnp.tanh(x), f"block{i}/conv")
            x = jaxcam.tag(x * variables["scale"], f"block{i}/stage{i // 20}/norm")
        return x.mean((0, 1))

    def preprocess(picture):
        return np.asarray(picture.resize((5, 6)), np.float32)

    variables = {"scale": np.ones((1, 1, 3), np.float32)}
    return jaxcam.Model(apply_fn, variables, preprocess, list("abc"))


def test_layers_that_are_alike_share_a_line(capsys):
    command = ["layers", "--model", "test_cli:deep_model"]
    code, out, _ = run_command(capsys, *command)
    assert code == 0
    assert out.splitlines() == [
        f"{'block{0..39}/conv':41}  float32[6, 5, 3]  40 alike",
        "block0/stage0/norm .. block38/stage1/norm  float32[6, 5, 3]  39 alike",
        f"{'block39/stage1/norm':41}  float32[6, 5, 3]  the default  "
        "exact Grad-CAM++: piecewise linear: one gradient",
    ]
    code, out, _ = run_command(capsys, *command, "--matching", "block1?/conv")
    assert [line.split()[0] for line in out.splitlines()] == [f"block1{i}/conv" for i in range(10)]
    code, _, error = run_command(capsys, *command, "--matching", "blocks")
    assert code == 2
    assert "no layers that match 'blocks' and can be explained; --all lists" in error
