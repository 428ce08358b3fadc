"""`jaxcam run`: what it writes, that it goes on after any kill, and what it says of bad input."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet
import pytest
from test_cli import run_command

import jaxcam
from jaxcam._src.cli import METHODS, batches
from jaxcam._src.demo.bundle import FOLDER
from jaxcam._src.methods import seeded
from jaxcam._src.pipeline.step import stepper

LAYER = ["--layer", "stage3"]
IMAGES = sorted(path.name for path in FOLDER.glob("*.png"))


def slow_model():
    """A factory whose images take long enough for a run to be killed between them."""
    model = jaxcam.digits_relu()

    def preprocess(image):
        time.sleep(0.05)
        return model.preprocess(image)

    return jaxcam.Model(model.apply_fn, model.variables, preprocess, model.class_names)


def uneven_model():
    """A factory whose images have two sizes."""
    model = jaxcam.digits_relu()

    def preprocess(image):
        pixels = np.asarray(model.preprocess(image))
        return pixels[:32] if image.size == (64, 64) else pixels

    return jaxcam.Model(model.apply_fn, model.variables, preprocess, model.class_names)


@pytest.fixture
def canvases(tmp_path):
    """A folder of the bundled canvases, half of them in a folder of their own."""
    folder = tmp_path / "canvases"
    shutil.copytree(FOLDER, folder, ignore=lambda *_: ["relu.msgpack", "silu.msgpack"])
    (folder / "inner").mkdir()
    for name in IMAGES[::2]:
        (folder / name).rename(folder / "inner" / name)
    return folder


def _index(folder):
    return pyarrow.parquet.read_table(folder / "index").to_pylist()


def _cam(folder, row):
    return np.load(folder / "maps" / row["maps"])["cam"][row["row"]]


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
def test_maps_and_numbers_are_those_of_the_explainer(capsys, canvases, tmp_path, method):
    out = tmp_path / "out"
    code, said, _ = run_command(
        capsys, "run", "--images", canvases, *LAYER, "--method", method, "--batch-size", 7,
        "--out", out,
    )  # fmt: skip
    assert (code, said) == (0, f"explained: 24 of 24 images, in {out}\n")
    rows = _index(out)
    assert [row["image"] for row in rows] == sorted(
        path.relative_to(canvases).as_posix() for path in canvases.rglob("*.png")
    )
    assert [np.load(path)["cam"].shape for path in sorted((out / "maps").iterdir())] == [
        (n, 16, 16) for n in (7, 7, 7, 3)
    ]
    model, labels = jaxcam.digits_relu(), jaxcam.load_canvases().labels
    explain = jax.jit(jaxcam.explainer(model.apply_fn, "stage3", getattr(jaxcam, method)))
    for row in rows[::5]:
        number = int(row["image"].split("canvas")[-1].removesuffix(".png"))
        wanted = explain(model.variables, jaxcam.load_canvases().images[number])
        cam = _cam(out, row)
        np.testing.assert_allclose(cam, wanted.cam, rtol=1e-4, atol=1e-5)
        lifted = jaxcam.unit_range(jaxcam.upsample(cam, (64, 64)))
        np.testing.assert_allclose(lifted, wanted.heatmap, atol=1e-4)
        probabilities = jax.nn.softmax(wanted.logits)
        assert row["prediction"] == row["target"] == labels[number]
        assert row["prediction_name"] == row["target_name"] == model.class_names[labels[number]]
        assert row["prediction_probability"] == pytest.approx(float(probabilities.max()), 1e-5)
        assert row["target_probability"] == row["prediction_probability"]
        assert row["target_logit"] == pytest.approx(float(wanted.logits.max()), 1e-5)
        assert row["error"] is None


def test_a_list_gives_paths_and_targets(capsys, canvases, tmp_path):
    names = [path.relative_to(canvases).as_posix() for path in sorted(canvases.rglob("*.png"))]
    targets = ["three" if i % 2 else str(i % 10) for i in range(len(names))]
    with (canvases / "list.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerows([("image", "target"), *zip(names, targets, strict=True)])
    (canvases / "list.txt").write_text("\n".join(names[::-1]) + "\n\n")
    found = {}
    for name in ("list.csv", "list.txt"):
        out = tmp_path / name
        command = ["run", "--images", canvases / name, *LAYER, "--batch-size", 10, "--out", out]
        assert run_command(capsys, *command)[0] == 0
        found[name] = _index(out)
    assert [row["target"] for row in found["list.csv"]] == [
        3 if i % 2 else i % 10 for i in range(len(names))
    ]
    assert [row["image"] for row in found["list.txt"]] == names[::-1]
    for row, same in zip(found["list.csv"], found["list.txt"][::-1], strict=True):
        assert row["prediction"] == same["prediction"] == same["target"]


def test_one_target_for_all(capsys, canvases, tmp_path):
    command = ["run", "--images", canvases, *LAYER, "--target", "seven", "--out", tmp_path / "out"]
    assert run_command(capsys, *command)[0] == 0
    assert {row["target_name"] for row in _index(tmp_path / "out")} == {"seven"}


def test_what_is_no_image_is_skipped_listed_and_counted(capsys, canvases, tmp_path):
    (canvases / "text.png").write_text("no picture")
    (canvases / "inner" / "cut.png").write_bytes((FOLDER / "canvas0.png").read_bytes()[:300])
    command = ["run", "--images", canvases, *LAYER, "--batch-size", 8, "--out", tmp_path / "out"]
    for before in ("", " (26 were done before)"):  # a second time, with nothing left to do
        code, said, error = run_command(capsys, *command)
        assert code == 1
        assert f"explained: 24 of 26 images{before}" in said
        assert error.splitlines()[0].startswith("jaxcam: skipped inner/cut.png: ")
        assert "text.png cannot be read as an image" in error.splitlines()[1]
    rows = _index(tmp_path / "out")
    skipped = [row for row in rows if row["error"]]
    assert [row["image"] for row in skipped] == ["inner/cut.png", "text.png"]
    assert all(
        row["prediction"] is None and np.isnan(_cam(tmp_path / "out", row)).all() for row in skipped
    )
    whole = [row for row in rows if not row["error"]]
    assert all(np.isfinite(_cam(tmp_path / "out", row)).all() for row in whole)


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("test_cli:blind_model", "preprocess gave NaN or infinity"),
        (
            "test_pipeline:uneven_model",
            "gave float32[32, 64, 1], and float32[64, 64, 1] of a picture",
        ),
    ],
)
def test_what_the_model_cannot_take_is_skipped(capsys, canvases, tmp_path, factory, reason):
    command = ["run", "--images", canvases, *LAYER, "--model", factory]
    code, said, error = run_command(capsys, *command, "--out", tmp_path / "out")
    assert code == 1, error
    assert "explained: 0 of 24 images" in said
    assert error.count(reason) == 20
    assert "skipped 24 images; the index has them all" in error


def start(arguments, command="run", **environment):
    command = [sys.executable, "-m", "jaxcam", command, *map(str, arguments)]
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_once(process, is_time):
    while process.poll() is None and not is_time():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # it had not ended by itself


@pytest.mark.thorough
def test_a_run_goes_on_after_every_kill_and_repeats_nothing(canvases, tmp_path):
    model = ["--model", "test_pipeline:slow_model", "--threads", 1, "--batch-size", 2]
    common = ["--images", canvases, *LAYER, *model]
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    maps, index = out / "maps", out / "index"
    reference = start([*common, "--out", undisturbed])

    def count(folder):
        return len([*folder.glob("0*")])

    moments = [
        lambda: index.exists(),  # before the first batch
        lambda: count(maps) > 0,  # between the maps of a batch and its index, or a little later
        lambda: count(index) > 2,
        lambda: count(index) > 4,
    ]
    finished = {}
    for is_time in moments:
        kill_once(start([*common, "--out", out]), is_time)
        for path, when in finished.items():
            assert path.stat().st_mtime_ns == when  # no finished batch was written again
        finished = {path: path.stat().st_mtime_ns for path in index.glob("0*")}
    # As if it had been killed in the middle of a file, and between the two files of a batch.
    (maps / ".000011.npz.host-1.part").write_bytes(b"half")
    shutil.copy(maps / "000000.npz", maps / "000010.npz")
    last = start([*common, "--out", out])
    said, _ = last.communicate()
    assert last.returncode == 0
    assert f"24 images ({2 * len(finished)} were done before)" in said
    assert 4 < len(finished) < 12
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    reference.communicate()
    assert files_of(out) == files_of(undisturbed)


def _by_number(index, port):
    return [f"--share={index}/2"], {}


def _by_slurm(index, port):
    """As on a cluster that JAX knows: it finds its processes in their environment."""
    environment = {"SLURM_JOB_ID": "4242", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    environment |= {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
    return ["--share=auto"], {**environment, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}


@pytest.mark.thorough
@pytest.mark.parametrize("share", [_by_number, _by_slurm])
def test_two_processes_share_the_batches(canvases, tmp_path, share):
    out, alone = tmp_path / "out", tmp_path / "alone"
    common = ["--images", canvases, *LAYER, "--batch-size", 5]
    both = []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for index in range(2):
        choice, environment = share(index, port)
        both.append(start([*common, *choice, "--out", out], **environment))
    said = [process.communicate() for process in both]
    assert "14 of 14" in said[0][0], said
    assert "10 of 10" in said[1][0], said
    whole = start([*common, "--out", alone])
    assert "24 of 24" in whole.communicate()[0]
    assert files_of(out) == files_of(alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "no_folder"], "there is no folder and no list no_folder"),
        (["--images", "EMPTY"], "there is no image in"),
        (["--images", "TABLE"], "starts with the line 'picture'; wanted the names"),
        (["--images", "CLASSES"], "classes.csv, line 2: there is no class 'eleven'"),
        (["--images", "PICTURE"], "cannot be read"),
        (["--images", "FOLDER", "--layer", "stage4"], "no layer 'stage4'"),
        (["--images", "FOLDER", "--method", "gradcam"], "mean 'grad_cam'"),
        (["--images", "FOLDER", "--batch-size", "0"], "--batch-size is 0; wanted 1 or more"),
        (["--images", "FOLDER", "--threads", "0"], "--threads is 0; wanted 1 or more"),
        (["--images", "SHORT"], "short.csv, line 3: there is no image"),
        (["--images", "GIVEN", "--target", "4"], "has a column target; leave out --target"),
        (["--images", "FOLDER", "--share", "2/2"], "--share is '2/2'; wanted I/N"),
        (["--images", "FOLDER", "--share", "first"], "--share is 'first'; wanted I/N"),
        (["--images", "FOLDER", "--target", "ten"], "no class 'ten'"),
    ],
)
def test_bad_input_is_one_line_and_no_file(capsys, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("picture\ncanvas0.png\n")
    (tmp_path / "classes.csv").write_text("image,target\ncanvas0.png,eleven\n")
    (tmp_path / "short.csv").write_text("target,image\n3,canvas0.png\n4\n")
    (tmp_path / "given.csv").write_text("\ufeffimage,target\ncanvas0.png,four\n")
    places = {
        "FOLDER": FOLDER,
        "EMPTY": tmp_path / "empty",
        "TABLE": tmp_path / "table.csv",
        "CLASSES": tmp_path / "classes.csv",
        "SHORT": tmp_path / "short.csv",
        "GIVEN": tmp_path / "given.csv",
        "PICTURE": FOLDER / "canvas0.png",
    }
    given = [places.get(argument, argument) for argument in arguments]
    code, out, error = run_command(capsys, "run", *LAYER, *given, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_run_in_the_same_folder_is_refused(capsys, tmp_path):
    command = ["run", "--images", FOLDER, *LAYER, "--out", tmp_path]
    assert run_command(capsys, *command)[0] == 0
    before = files_of(tmp_path)
    code, _, error = run_command(capsys, *command, "--method", "layer_cam")
    assert code == 2
    assert (
        "holds a run with {'method': 'grad_cam'}, and this one has {'method': 'layer_cam'}" in error
    )
    assert files_of(tmp_path) == before
    assert json.loads(before["run.json"])["count"] == 24


def test_several_methods_and_layers_are_runs_of_their_own(capsys, tmp_path):
    methods = ["--method", "grad_cam", "--method", "layer_cam"]
    common = ["run", "--images", FOLDER, *LAYER, "--batch-size", 12, "--out"]
    alone = [*common, tmp_path / "alone", "--method", "layer_cam"]
    assert run_command(capsys, *alone)[0] == 0
    several = [*common, tmp_path / "several", *methods]
    assert run_command(capsys, *several)[0] == 0
    folders = [tmp_path / "several" / f"{name}@stage3" for name in methods[1::2]]
    assert sorted((tmp_path / "several").iterdir()) == folders
    assert files_of(folders[1]).keys() == files_of(tmp_path / "alone").keys()
    assert files_of(folders[1])["run.json"] == files_of(tmp_path / "alone")["run.json"]
    for here, there in zip(_index(folders[1]), _index(tmp_path / "alone"), strict=True):
        assert here["target"] == there["target"]
        np.testing.assert_allclose(
            _cam(folders[1], here), _cam(tmp_path / "alone", there), rtol=1e-4, atol=1e-5
        )
    code, _, error = run_command(capsys, *common, tmp_path / "alone", *methods)
    assert code == 2
    assert "alone holds a run of one map; choose another --out for several" in error
    code, _, error = run_command(capsys, *common, tmp_path / "several", "--method", "layer_cam")
    assert code == 2
    assert "several holds runs of several maps; choose another --out for one" in error
    page = ["report", tmp_path / "several", "--out", tmp_path / "page.html"]
    assert "24 images, 2 maps of each" in run_command(capsys, *page)[1]
    whole = files_of(tmp_path / "several")
    (folders[0] / "index" / "000001.parquet").unlink()
    untouched = (folders[1] / "index" / "000001.parquet").stat().st_mtime_ns
    assert "(12 were done before)" in run_command(capsys, *several)[1]
    assert (folders[1] / "index" / "000001.parquet").stat().st_mtime_ns == untouched
    assert files_of(tmp_path / "several").keys() == whole.keys()


def test_the_knobs_of_a_run_are_part_of_what_it_is(capsys, tmp_path):
    command = ["run", "--images", FOLDER, *LAYER, "--out", tmp_path, "--method", "recipro_cam"]
    knobs = ["--set", "chunk_size=8", "--score", "margin"]
    assert run_command(capsys, *command, *knobs)[0] == 0
    settings = json.loads((tmp_path / "run.json").read_text())
    assert (settings["set"], settings["score"]) == (["chunk_size=8"], "margin")
    code, _, error = run_command(capsys, *command)
    assert code == 2
    assert "holds a run with {'score': 'margin', 'set': ['chunk_size=8']}, and this one" in error


def test_the_same_names_in_another_folder_are_another_run(capsys, canvases, tmp_path):
    out, copy = tmp_path / "out", tmp_path / "copy"
    shutil.copytree(canvases, copy)
    assert run_command(capsys, "run", "--images", canvases, *LAYER, "--out", out)[0] == 0
    code, _, error = run_command(capsys, "run", "--images", copy, *LAYER, "--out", out)
    assert code == 2
    assert "choose another --out" in error


def test_a_batch_without_its_maps_is_explained_again(capsys, tmp_path):
    command = ["run", "--images", FOLDER, *LAYER, "--batch-size", 12, "--out", tmp_path]
    assert run_command(capsys, *command)[0] == 0
    whole = files_of(tmp_path)
    (tmp_path / "maps" / "000001.npz").unlink()
    assert "(12 were done before)" in run_command(capsys, *command)[1]
    assert files_of(tmp_path) == whole
    (tmp_path / "run.json").write_text("no record")
    code, _, error = run_command(capsys, *command)
    assert code == 2
    assert "run.json cannot be read; choose another --out" in error


def test_methods_that_fill_a_device_take_one_image_at_a_time(monkeypatch):
    """Those with a key too, whose knobs are behind the seed."""
    together = []
    plain = jax.vmap
    monkeypatch.setattr(jax, "vmap", lambda *a, **k: together.append(k) or plain(*a, **k))
    for name in ("score_cam", "ss_cam", "ablation_cam", "grad_cam"):
        stepper(lambda _, x: x, None, [("layer", seeded(METHODS[name], 0))])
    assert len(together) == 1


def test_a_package_that_is_missing_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(batches.importlib.util, "find_spec", lambda name: None)
    code, _, error = run_command(capsys, "run", "--images", FOLDER, *LAYER, "--out", tmp_path)
    assert (code, error) == (2, "jaxcam: run needs grain; pip install 'jaxcam-xai[run]'\n")
