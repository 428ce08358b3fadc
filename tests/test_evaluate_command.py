"""`jaxcam evaluate`: what it measures, writes and prints, that it goes on, and what it refuses."""

import csv
import functools
import json

import jax
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from test_cli import run_command
from test_pipeline import files_of, kill_once, start

import jaxcam
from jaxcam._src.cli.evaluate import DEAR, FLOORS
from jaxcam._src.demo.bundle import FOLDER
from jaxcam._src.files import UsageError
from jaxcam._src.methods import METHODS, describe
from jaxcam._src.pipeline.objects import Object, inside_of

LAYER = ["--layer", "stage3"]
FEW = ["--metric", "drop", "--metric", "energy", "--metric", "insertion"]
BOX = ["xmin", "ymin", "xmax", "ymax"]


def _table(path, rows, columns):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture(scope="module")
def canvases(tmp_path_factory):
    """The first six bundled canvases as a list with classes and boxes."""
    given, rows = jaxcam.load_canvases(), []
    folder = tmp_path_factory.mktemp("canvases")
    for i in range(6):
        top, left, bottom, right = given.boxes[i]
        name = f"canvas{i}.png"
        (folder / name).write_bytes((FOLDER / name).read_bytes())
        rows.append([name, given.labels[i], left, top, right, bottom])
    return _table(folder / "canvases.csv", rows, ["image", "target", *BOX])


@pytest.fixture(scope="module")
def evaluated(canvases, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    common = ["--images", canvases, *LAYER, *FEW, "--method", "layer_cam", "--batch-size", 4]
    process = start([*common, "--out", out], command="evaluate")
    said, error = process.communicate()
    assert process.returncode == 0, error
    return out, said


def _rows(out):
    return pyarrow.parquet.read_table(out / "index").to_pylist()


def test_numbers_are_those_of_the_evaluator(evaluated):
    out, _ = evaluated
    model, canvases = jaxcam.digits_relu(), jaxcam.load_canvases()
    metrics = {"drop": jaxcam.metrics.drop, "energy": jaxcam.metrics.energy}
    methods = {"layer_cam": jaxcam.layer_cam, "uniform": jaxcam.uniform}
    evaluate = jax.jit(jaxcam.evaluator(model.apply_fn, "stage3", methods, metrics))
    rows = {(row["image"], row["method"]): row for row in _rows(out)}
    assert len(rows) == 6 * (1 + len(FLOORS))
    for i in (0, 5):
        inside = canvases.boxes[i].mask()
        wanted = evaluate(model.variables, canvases.images[i], canvases.labels[i], inside=inside)
        for method, numbers in wanted.numbers.items():
            row = rows[f"canvas{i}.png", method]
            assert row["target"] == canvases.labels[i]
            np.testing.assert_allclose(row["target_score"], wanted.score, rtol=1e-5)
            for name, value in numbers.items():
                np.testing.assert_allclose(row[name], value, atol=1e-5)


@pytest.mark.thorough
def test_knobs_and_conventions_are_those_of_the_evaluator(canvases, capsys, tmp_path):
    with canvases.open(newline="") as file:
        columns, first, *_ = csv.reader(file)
    one = _table(canvases.parent / "one.csv", [first], columns)
    how = ["--method", "score_cam", "--set", "top_k=4", "--convention", "torchcam"]
    command = ["--images", one, *LAYER, *how, "--metric", "energy", "--out", tmp_path]
    code, _, error = run_command(capsys, "evaluate", *command)
    assert code == 0, error
    model, given = jaxcam.digits_relu(), jaxcam.load_canvases()
    methods = {"score_cam": functools.partial(jaxcam.score_cam, top_k=4)}
    evaluate = jaxcam.evaluator(
        model.apply_fn,
        "stage3",
        methods,
        {"energy": jaxcam.metrics.energy},
        convention=jaxcam.conventions.torchcam,
    )
    inside = given.boxes[0].mask()
    wanted = evaluate(model.variables, given.images[0], given.labels[0], inside=inside)
    (found,) = (row["energy"] for row in _rows(tmp_path) if row["method"] == "score_cam")
    np.testing.assert_allclose(found, wanted.numbers["score_cam"]["energy"], atol=1e-5)


@pytest.mark.thorough
def test_what_a_run_wrote_among_the_images_is_none_and_layers_keep_their_order(
    canvases, capsys, tmp_path
):
    images = tmp_path / "images"
    images.mkdir()
    (images / "canvas0.png").write_bytes((FOLDER / "canvas0.png").read_bytes())
    layers = ["--layer", "stage3", "--layer", "stage2"]
    command = ["--images", images, *layers, "--method", "layer_cam", "--metric", "drop"]
    for _ in range(2):
        code, _, error = run_command(capsys, "evaluate", *command, "--out", images / "judged")
        assert code == 0, error
    rows = _rows(images / "judged")
    assert [row["layer"] for row in rows] == ["stage3"] * 5 + ["stage2"] * 5
    code, _, error = run_command(capsys, "evaluate", *command, "--out", images)
    assert (code, "is the folder of the images" in error) == (2, True)


@pytest.mark.thorough
def test_fused_layers_are_judged_as_one(canvases, capsys, tmp_path):
    layers = ["--layer", "stage2", "--layer", "stage3", "--fuse", "layer_cam"]
    command = ["--images", canvases, *layers, "--method", "layer_cam", "--metric", "drop"]
    code, _, error = run_command(capsys, "evaluate", *command, "--out", tmp_path)
    assert code == 0, error
    model, given = jaxcam.digits_relu(), jaxcam.load_canvases()
    evaluate = jaxcam.evaluator(
        model.apply_fn,
        ["stage2", "stage3"],
        {"layer_cam": jaxcam.layer_cam},
        {"drop": jaxcam.metrics.drop},
        fuse=jaxcam.fuse_layer_cam,
    )
    wanted = evaluate(model.variables, given.images[0], given.labels[0])
    first = next(row for row in _rows(tmp_path) if row["method"] == "layer_cam")
    assert first["layer"] == "stage2+stage3"
    np.testing.assert_allclose(first["drop"], wanted.numbers["layer_cam"]["drop"], atol=1e-5)


def test_the_summary_is_that_of_the_rows(evaluated):
    out, _ = evaluated
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 6
    assert [*summary["methods"]] == ["layer_cam", *FLOORS]
    for name in ("drop", "energy", "insertion"):
        for method, numbers in summary["methods"].items():
            values = [row[name] for row in _rows(out) if row["method"] == method]
            np.testing.assert_allclose(numbers[name]["mean"], np.mean(values), rtol=1e-6)
            assert numbers[name]["low"] <= numbers[name]["mean"] <= numbers[name]["high"]
    with Image.open(out / "evaluation.png") as drawn:
        assert min(drawn.size) > 200
    energy = summary["metrics"]["energy"]
    assert energy["higher_is_better"]
    assert energy["rank"] is None  # of six images
    (pair,) = (p for p in energy["pairs"] if {p["method"], p["other"]} == {"layer_cam", "edge_map"})
    assert (pair["method"], pair["wins"]) == ("layer_cam", 1)
    assert pair["difference"]["low"] > 0
    (curve,) = summary["curves"].values()
    scores = np.array(curve["layer_cam"])
    area = (scores[1:] + scores[:-1]).mean() / 2
    np.testing.assert_allclose(
        summary["methods"]["layer_cam"]["insertion"]["mean"], area, rtol=1e-5
    )


def test_the_table_is_narrow_and_says_what_was_decided(evaluated):
    _, said = evaluated
    lines = said.splitlines()
    table = [line for line in lines if line.startswith(("  layer_cam", "  uniform"))]
    assert len(table) == 2
    assert max(map(len, table)) <= 100
    assert "no metric picks again" in said
    assert "energy +" in said


@pytest.mark.thorough
def test_layers_and_scores_are_compared(capsys, canvases, tmp_path):
    given = ["--images", canvases, *LAYER, "--metric", "complexity", "--method", "grad_cam"]
    both = ["--score", "logit", "--score", "margin", "--out", tmp_path]
    code, _, error = run_command(capsys, "evaluate", *given, *both)
    assert code == 0, error
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["methods"]) == 2 * (1 + len(FLOORS))
    assert {"grad_cam of logit", "grad_cam of margin", "edge_map of margin"} <= {
        *summary["methods"]
    }


@pytest.mark.thorough
def test_an_evaluation_goes_on_after_every_kill(canvases, tmp_path):
    model = ["--model", "test_pipeline:slow_model", "--threads", 1, "--batch-size", 1]
    common = ["--images", canvases, *LAYER, "--metric", "drop", "--method", "grad_cam", *model]
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    for number in range(5):
        process = start([*common, "--out", out], command="evaluate")
        kill_once(process, lambda: len([*out.glob("index/0*")]) >= number)  # noqa: B023
    for folder in (out, undisturbed):
        last = start([*common, "--out", folder], command="evaluate")
        said, error = last.communicate()
        assert last.returncode == 0, error
        assert ("were done before" in said) == (folder == out)
    assert files_of(out) == files_of(undisturbed)


def test_a_box_follows_what_preprocess_does():
    def preprocess(picture):
        cut = np.asarray(picture.crop((2, 0, 10, 8)).resize((4, 4)), np.float32)
        return 1 - cut / 255  # dark is large

    model = jaxcam.Model(lambda _, x: x, None, preprocess, ["a"])
    picture = Image.new("RGB", (12, 8), "grey")
    found = inside_of(Object(((2.0, 0.0, 6.0, 4.0),)), model, picture, FOLDER)
    np.testing.assert_array_equal(found, np.kron([[1, 0], [0, 0]], np.ones((2, 2))))


def test_padding_is_outside_and_a_picture_that_is_standardised_is_refused():
    def padded(picture):
        return np.pad(np.asarray(picture, np.float32), ((2, 2), (0, 0), (0, 0)))

    def standardised(picture):
        values = np.asarray(picture, np.float32)
        return (values - values.mean()) / values.std() if values.std() else 0 * values / 0

    picture, box = Image.new("RGB", (12, 8), "grey"), Object(((2.0, 0.0, 6.0, 4.0),))
    found = inside_of(box, jaxcam.Model(lambda _, x: x, None, padded, ["a"]), picture, FOLDER)
    assert (found.shape, found.sum()) == ((12, 12), 16)
    assert found[2:6, 2:6].all()
    with np.errstate(invalid="ignore"), pytest.raises(UsageError, match="leave out the boxes or"):
        inside_of(box, jaxcam.Model(lambda _, x: x, None, standardised, ["a"]), picture, FOLDER)
    gone = Object(((11.2, 7.2, 11.6, 7.6),))
    model = jaxcam.Model(lambda _, x: x, None, lambda p: padded(p)[:6], ["a"])
    with pytest.raises(UsageError, match="preprocess leaves nothing of the object"):
        inside_of(gone, model, picture, FOLDER)


def test_a_mask_that_is_nowhere_bright_is_refused(tmp_path):
    picture = Image.new("RGB", (12, 8), "grey")
    Image.new("L", picture.size, 1).save(tmp_path / "mask.png")  # of 255
    model = jaxcam.Model(lambda _, x: x, None, lambda p: np.asarray(p, np.float32), ["a"])
    with pytest.raises(UsageError, match="nowhere brighter than 1 of 255"):
        inside_of(Object(mask="mask.png"), model, picture, tmp_path)


@pytest.mark.thorough
def test_shares_wait_for_each_other_and_a_foreign_batch_is_done_again(capsys, canvases, tmp_path):
    given = ["--images", canvases, *LAYER, "--metric", "complexity", "--method", "grad_cam"]
    given += ["--batch-size", 3, "--out", tmp_path]
    said = [run_command(capsys, "evaluate", *given, "--share", f"{i}/2")[1] for i in (0, 1)]
    assert "other shares are not done" in said[0]
    assert "summary.json" in said[1]
    before = files_of(tmp_path)
    first, second = sorted(tmp_path.glob("index/*.parquet"))
    whole = pyarrow.parquet.read_table(first)
    foreign = [pyarrow.parquet.read_table(second), whole[:0], whole[:-1], whole.drop(["score"])]
    for table in foreign:
        pyarrow.parquet.write_table(table, first)
        said = run_command(capsys, "evaluate", *given)[1]
        assert "6 images (3 were done before)" in said
        assert files_of(tmp_path) == before


def one_logit():
    """A factory of a network with one logit."""
    model = jaxcam.digits_relu()

    def apply_fn(variables, image):
        return model.apply_fn(variables, image)[:1]

    return jaxcam.Model(apply_fn, model.variables, model.preprocess, ["zero"])


@pytest.mark.thorough
def test_one_logit_has_no_softmax_probability(capsys, tmp_path):
    model = ["--model", "test_evaluate_command:one_logit", *LAYER]
    code, said, error = run_command(
        capsys, "explain", FOLDER / "canvas1.png", *model, "--out", tmp_path / "maps"
    )
    assert code == 0, error
    assert "zero has logit " in said
    assert "%" not in said
    run_command(capsys, "run", "--images", FOLDER, *model, "--out", tmp_path / "run")
    assert {row["prediction_probability"] for row in _rows(tmp_path / "run")} == {None}
    judged = ["--images", FOLDER, *model, "--judge", "binary_probability", "--out", tmp_path / "j"]
    code, _, error = run_command(capsys, "evaluate", *judged, "--metric", "drop")
    assert (code, "have not the same targets" in error) == (2, True)
    both = [*judged, "--metric", "drop", "--method", "grad_cam", "--score", "binary_logit"]
    code, _, error = run_command(capsys, "evaluate", *both)
    assert code == 0, error
    assert {row["target"] for row in _rows(tmp_path / "j")} == {0, 1}


def test_a_mask_of_another_size_and_a_box_outside_are_skipped(capsys, tmp_path):
    (tmp_path / "a.png").write_bytes((FOLDER / "canvas0.png").read_bytes())
    Image.new("L", (9, 9)).save(tmp_path / "m.png")
    mask = _table(tmp_path / "mask.csv", [["a.png", "m.png"]], ["image", "mask"])
    box = _table(tmp_path / "box.csv", [["a.png", 3, 3, 65, 9]], ["image", *BOX])
    wanted = {
        mask: "m.png has 9 x 9 pixels, and the picture 64 x 64",
        box: "the box 3, 3, 65, 9 does not lie in the picture of 64 x 64 pixels",
    }
    for number, (path, reason) in enumerate(wanted.items()):
        given = ["--images", path, *LAYER, "--metric", "energy", "--out", tmp_path / str(number)]
        code, _, error = run_command(capsys, "evaluate", *given)
        assert code == 2
        skipped, last = error.splitlines()
        assert reason in skipped
        assert "every image was skipped" in last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "energi"], "no metric 'energi'. Did you mean 'energy'"),
        (["--metric", "energy", "--images", FOLDER], "energy asks where the object is"),
        (["--method", "gradcam"], "mean 'grad_cam'"),
        (["--score", "logits"], "mean 'logit'"),
        (["--judge", "nothing"], "no score 'nothing'"),
        (["--images", "HALF"], "has not all of the columns xmin, ymin, xmax, ymax"),
        (["--images", "WORDS"], "line 2: xmin, ymin, xmax, ymax are 'a', '0', '1', '1'"),
        (["--boxes", "BOTH"], "says where the objects are; leave out --boxes"),
        (
            ["--images", "IMAGES", "--boxes", "OTHER"],
            "has no box for 6 of 6 images, the first of which is 'canvas0.png'",
        ),
        (["--images", "IMAGES", "--boxes", "MASKS"], "has no columns xmin, ymin, xmax, ymax"),
        (["--images", "BOTH"], "has boxes and masks; keep one of both"),
        (["--images", "NOMASK"], "line 2: there is no mask; give its path"),
        (["--layer", "stage9"], "no layer 'stage9'"),
        (
            ["--judge", "logit", "--metric", "drop"],
            "drop means nothing of logit, which is not from",
        ),
        (["--method", "all", "--method", "gradcam"], "mean 'grad_cam'"),
    ],
)
def test_bad_input_is_one_line_and_no_file(capsys, canvases, tmp_path, arguments, message):
    tables = {
        "HALF": (["a.png", 1], ["image", "xmin"]),
        "WORDS": (["a.png", "a", 0, 1, 1], ["image", *BOX]),
        "OTHER": (["a.png", 0, 0, 1, 1], ["image", *BOX]),
        "MASKS": (["a.png", "m.png"], ["image", "mask"]),
        "BOTH": (["a.png", "m.png", 0, 0, 1, 1], ["image", "mask", *BOX]),
        "NOMASK": (["a.png", ""], ["image", "mask"]),
    }
    made = {
        name: _table(tmp_path / f"{name.lower()}.csv", [row], columns)
        for name, (row, columns) in tables.items()
    }
    made["IMAGES"] = _table(
        canvases.parent / "images.csv", [[f"canvas{i}.png"] for i in range(6)], ["image"]
    )
    given = [made.get(argument, argument) for argument in arguments]
    common = ["--images", canvases, *LAYER, "--out", tmp_path / "out"]
    code, out, error = run_command(capsys, "evaluate", *common, *given)
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_takes_most_of_the_time_is_known_by_its_cost():
    dear = {name for name in METHODS if DEAR.match(describe(name).cost)}
    assert dear == {"score_cam", "ablation_cam", "ss_cam", "is_cam", "rise", "opti_cam"}
