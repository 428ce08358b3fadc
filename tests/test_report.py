"""`jaxcam report`: what the page holds, and one line for what it cannot show."""

import base64
import json
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from reported import MODEL, SIZE, draw_photographs, write_evaluation, write_run
from scipy.stats import spearmanr
from test_cli import run_command

import jaxcam
from jaxcam._src.demo.bundle import FOLDER
from jaxcam._src.report import contents, numbers, writing

NAMES = [f"photo{i}.png" for i in range(7)]


@pytest.fixture
def images(tmp_path):
    return draw_photographs(tmp_path / "images", NAMES)


def report(capsys, tmp_path, *arguments):
    """Makes a report, and returns the exit code, what was said, and what was complained."""
    return run_command(capsys, "report", *arguments, "--out", tmp_path / "report.html")


def blocks_of(page):
    """The blocks of JSON in a page, by their id."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', page, re.S)
    return {name: json.loads(text) for name, text in found}


def held(tmp_path):
    """What the page in this folder holds."""
    return blocks_of((tmp_path / "report.html").read_text())


def test_the_page_holds_photographs_maps_and_answers(capsys, images, tmp_path):
    cams = write_run(tmp_path / "run", images, NAMES)
    code, said, error = report(capsys, tmp_path, tmp_path / "run")
    assert code == 0, error
    assert said == f"report: {tmp_path / 'report.html'}, 7 images, 1 map of each\n"
    assert "photographs are shown whole" in error
    head, shard = held(tmp_path)["report"], held(tmp_path)["shard-0"]
    assert head["names"] == NAMES
    assert [head["classes"][c] for c in head["prediction"]] == ["cat", "dog", "cow"] * 2 + ["cat"]
    np.testing.assert_allclose(head["margin"], 2 * np.array(head["confidence"]) - 0.9, atol=1e-3)
    values = np.frombuffer(base64.b64decode(shard["maps"][0]), np.uint8).reshape(7, *SIZE)
    low, high = np.frombuffer(base64.b64decode(shard["ranges"][0]), "<f4").reshape(7, 2).T
    found = low[:, None, None] + (high - low)[:, None, None] * values / 255
    np.testing.assert_allclose(found, cams, atol=1 / 255 / 2 + 1e-6)
    for name, text in zip(NAMES, shard["photographs"], strict=True):
        (tmp_path / "shown.webp").write_bytes(base64.b64decode(text))
        shown = np.asarray(Image.open(tmp_path / "shown.webp"), float)
        np.testing.assert_array_equal(shown, np.asarray(Image.open(images / name), float))


def test_runs_are_side_by_side_with_labels_apart(capsys, images, tmp_path):
    cams = write_run(tmp_path / "a", images, NAMES)
    write_run(tmp_path / "b", images, NAMES, layer="first", cams=cams[:, :3, :3])
    write_run(tmp_path / "c", images, NAMES, seed=1)
    write_run(tmp_path / "d", images, NAMES[::-1], cams=cams[::-1])
    folders = [tmp_path / name for name in "abcd"]
    assert report(capsys, tmp_path, *folders)[0] == 0
    head, shard = held(tmp_path)["report"], held(tmp_path)["shard-0"]
    labels = [(each["method"], each["layer"]) for each in head["sets"]]
    assert labels == [
        (f"grad_cam (seed 0) ({tmp_path / 'a'})", "last"),
        ("grad_cam (seed 0)", "first"),
        ("grad_cam (seed 1)", "last"),
        (f"grad_cam (seed 0) ({tmp_path / 'd'})", "last"),
    ]
    assert shard["maps"][0] == shard["maps"][3]  # in the order of the first
    assert len(head["disagreement"]) == 7


def test_an_evaluation_adds_numbers_to_the_maps_that_it_judged(capsys, images, tmp_path):
    write_run(tmp_path / "run", images, NAMES)
    write_run(tmp_path / "other", images, NAMES, method="fem")
    write_evaluation(tmp_path / "judged", NAMES[:3], [0.1, 0.2, 0.3])
    write_evaluation(tmp_path / "of_dogs", NAMES[:5], [0.6, 0.7, 0.8, 0.9, 1.0], target=1)
    folders = [tmp_path / name for name in ("run", "other", "judged", "of_dogs")]
    assert report(capsys, tmp_path, *folders)[0] == 0
    head = held(tmp_path)["report"]
    first, second = head["sets"]
    assert first["numbers"]["drop"] == [0.1, 0.7, 0.3, None, 1.0, None, None]  # 1 and 4 are dogs
    assert "drop" not in second["numbers"]
    assert head["better"]["drop"] is False
    assert head["judged"][0]["means"]["uniform"] == {"drop": pytest.approx(0.2)}
    assert head["judged"][0]["floors"] == ["uniform"]


def test_what_explain_wrote_is_shown_too(capsys, tmp_path):
    photographs = [FOLDER / f"canvas{i}.png" for i in range(3)]
    command = ["explain", *photographs, "--layer", "stage3", "--method", "cam"]
    assert run_command(capsys, *command, "--out", tmp_path / "explained")[0] == 0
    code, _, error = report(capsys, tmp_path, tmp_path / "explained")
    assert (code, error) == (0, "")  # a model of jaxcam, by which photographs are seen
    head = held(tmp_path)["report"]
    assert head["names"] == [path.name for path in photographs]
    assert [len(top) for top in head["topProbabilities"]] == [5] * 3


def test_a_list_says_which_answers_are_wrong(capsys, tmp_path):
    canvases = jaxcam.load_canvases()
    given = {"canvas0.png": canvases.labels[0], "canvas1.png": (canvases.labels[1] + 1) % 10}
    shutil.copytree(FOLDER, tmp_path / "images", ignore=shutil.ignore_patterns("*.msgpack"))
    rows = [f"{name},{label}" for name, label in given.items()]
    (tmp_path / "images" / "list.csv").write_text("\n".join(["image,target", *rows]))
    right = {"prediction": [int(x) for x in canvases.labels[:3]], "model": "jaxcam:digits_relu"}
    names = [f"canvas{i}.png" for i in range(3)]
    write_run(tmp_path / "run", FOLDER, names, **right)
    listed = ["--images", tmp_path / "images" / "list.csv"]
    assert report(capsys, tmp_path, tmp_path / "run", *listed)[0] == 0
    head = held(tmp_path)["report"]
    assert head["ownClassIs"] == "labelled"
    assert head["ownClass"][2] is None
    labels = [head["targetTexts"][c] for c in head["ownClass"][:2]]
    assert labels == [str(label) for label in given.values()]
    code, _, error = report(capsys, tmp_path, tmp_path / "run", *listed, "--model", "nowhere:load")
    assert code == 2
    assert "nowhere" in error


def test_skipped_images_and_flat_maps_are_told(capsys, images, tmp_path):
    cams = np.random.default_rng(0).random((7, *SIZE), np.float32)
    cams[2], cams[3] = np.nan, 0
    lost = {"error": [None] * 2 + ["broken"] + [None] * 4, "cams": cams}
    lost |= {"flat": [None] * 3 + ["no gradient"] + [None] * 3}
    write_run(tmp_path / "run", images, NAMES, **lost)
    write_run(tmp_path / "other", images, NAMES, method="fem", **lost)
    assert report(capsys, tmp_path, tmp_path / "run", tmp_path / "other")[0] == 0
    head = held(tmp_path)["report"]
    assert head["errors"][2] == "broken"
    assert head["sets"][0]["flat"] == [None] * 3 + [0] + [None] * 3
    assert head["sets"][0]["flatReasons"] == ["no gradient"]
    assert head["disagreement"][2] is None
    assert head["disagreement"][3] == 0  # two flat maps agree
    assert head["sets"][0]["low"] == 0


def test_a_missing_photograph_is_counted(capsys, images, tmp_path):
    write_run(tmp_path / "run", images, NAMES)
    (images / NAMES[1]).unlink()
    (images / NAMES[4]).write_text("no picture")
    code, _, error = report(capsys, tmp_path, tmp_path / "run")
    assert code == 1
    assert "2 of 7 photographs cannot be read, such as photo1.png; their maps" in error
    assert held(tmp_path)["report"]["missing"] == [1, 4]
    assert held(tmp_path)["shard-0"]["photographs"][1] is None


def test_images_that_have_moved_are_found_where_they_are(capsys, images, tmp_path):
    write_run(tmp_path / "run", images, NAMES)
    moved = images.rename(tmp_path / "moved")
    assert report(capsys, tmp_path, tmp_path / "run", "--images", moved)[0] == 0
    assert held(tmp_path)["report"]["root"] == str(moved)


HOSTILE = ["<img src=x onerror=alert(1)>.png", "<script>alert(2)<!--.png", "$style.png"]
HOSTILE += ["<!--<script>.png", "'\"&amp;.png"]


def test_names_are_data(capsys, tmp_path):
    images = draw_photographs(tmp_path / "images", [f"{i}.png" for i in range(5)])
    for i, name in enumerate(HOSTILE):
        (images / f"{i}.png").rename(images / name)
    classes = {"target_name": ["</script><b>"] * 5, "prediction_name": ["</script><b>"] * 5}
    write_run(tmp_path / "run", images, HOSTILE, method="</style><u>", **classes)
    assert report(capsys, tmp_path, tmp_path / "run")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert held(tmp_path)["report"]["names"] == HOSTILE
    for text in ("<img", "<script>alert", "<!--", "</style><u>", "</script><b>"):
        assert text not in page
    assert not re.search(r"<[^>]*\son\w+=", page.partition("<script>")[0])  # no handler in markup


def test_the_policy_allows_the_page_its_own_script_alone(capsys, images, tmp_path):
    write_run(tmp_path / "run", images, NAMES)
    report(capsys, tmp_path, tmp_path / "run")
    page = (tmp_path / "report.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in page.replace("http-equiv", "")  # nothing from elsewhere


def test_many_images_are_in_a_folder_beside_the_page(capsys, images, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MOST_INSIDE", 5)
    monkeypatch.setattr(contents, "SHARD", 3)
    beside = tmp_path / "report_shards"
    write_run(tmp_path / "run", images, NAMES)
    for _ in range(2):  # the second replaces the first
        assert report(capsys, tmp_path, tmp_path / "run")[0] == 0
        head = held(tmp_path)["report"]
        assert (head["folder"], head["shard"]) == ("report_shards", 3)
        assert sorted(path.name for path in beside.iterdir()) == ["0.js", "1.js", "2.js"]
        assert (beside / "2.js").read_text().startswith("jaxcamShard(2, {")
    monkeypatch.setattr(writing, "MOST_INSIDE", 50)
    assert report(capsys, tmp_path, tmp_path / "run")[0] == 0
    assert not beside.exists()
    beside.mkdir()
    (beside / "thesis.txt").write_text("mine")
    code, _, error = report(capsys, tmp_path, tmp_path / "run")
    assert code == 2
    assert "report_shards holds other files" in error
    assert (beside / "thesis.txt").exists()


def _spoil(tmp_path, how):
    """Makes of two good runs what cannot be shown."""
    run, other, images = tmp_path / "run", tmp_path / "other", tmp_path / "images"
    if how == "unfinished":
        (run / "index" / "000001.parquet").unlink()
    if how == "images gone":
        images.rename(tmp_path / "moved")
    if how == "another batch":
        shutil.rmtree(other)
        write_run(other, images, [*NAMES[:-1], "photo9.png"])
    if how == "another model":
        shutil.rmtree(other)
        write_run(other, images, NAMES, model="elsewhere:other")
    if how == "damaged maps":
        (run / "maps" / "000000.npz").write_bytes(b"PK\3\4 no maps")
    if how == "damaged index":
        (run / "index" / "000000.parquet").write_bytes(b"PAR1 no index PAR1")
    if how == "damaged settings":
        (run / "run.json").write_text("{")
    if how == "other settings":
        (run / "run.json").write_text("[1]")
    if how == "no count":
        (run / "run.json").write_text(json.dumps({"images": str(images), "model": MODEL}))
    if how == "signals":
        shutil.rmtree(run)
        write_run(run, images, NAMES, cams=np.zeros((7, 5), np.float32))
    if how == "no run":
        shutil.rmtree(run)
    if how == "strange explanations":
        shutil.rmtree(run)
        run.mkdir()
        (run / "explanations.json").write_text('{"images": [{"image": 5}]}')
    if how == "strange numbers":
        shutil.rmtree(run)
        columns = {"top_names": [["cat"]] * 7, "target_name": [None] * 7}
        write_run(run, images, NAMES, **columns)


BAD = {
    "no run": "run holds no run.json and no explanations.json",
    "unfinished": "run has 1 of 2 batches; give its command again",
    "images gone": "images has none of the images; give --images",
    "another batch": "are of other images: 'photo6.png' is in one of them alone",
    "another model": "is of the model 'elsewhere:other'",
    "damaged maps": "run is damaged",
    "damaged index": "run is damaged",
    "damaged settings": "run.json is damaged",
    "other settings": "run.json is damaged",
    "no count": "run is damaged",
    "strange explanations": "run is damaged",
    "strange numbers": "report.html stopped: ",
    "signals": "has maps of shape [5]; wanted [h, w]",
}


@pytest.mark.parametrize("how", BAD)
def test_bad_input_is_one_line_and_no_file(capsys, images, tmp_path, how):
    write_run(tmp_path / "run", images, NAMES)
    write_run(tmp_path / "other", images, NAMES, method="fem")
    _spoil(tmp_path, how)
    before = sorted(tmp_path.rglob("*"))
    code, said, error = report(capsys, tmp_path, tmp_path / "run", tmp_path / "other")
    assert (code, said) == (2, "")
    assert BAD[how] in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "message"),
    [("images", "is a folder"), ("page.png", "ends in .html"), ("run/run.json/x.html", "cannot")],
)
def test_a_place_where_no_page_can_be_is_refused(capsys, images, tmp_path, out, message):
    write_run(tmp_path / "run", images, NAMES)
    before = sorted(tmp_path.rglob("*"))
    code, _, error = run_command(capsys, "report", tmp_path / "run", "--out", tmp_path / out)
    assert code == 2
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_half_written_stays(capsys, images, tmp_path, monkeypatch):
    write_run(tmp_path / "run", images, NAMES)
    report(capsys, tmp_path, tmp_path / "run")
    before = (tmp_path / "report.html").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "document", full)
    code, _, error = report(capsys, tmp_path, tmp_path / "run")
    assert code == 2
    assert "No space left" in error
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.glob(".jaxcam-*"))


def test_the_border_is_that_of_the_metric(rng):
    cams = rng.random((3, 4, 4), np.float32)
    heatmaps = [jaxcam.unit_range(jaxcam.upsample(cam, (80, 80))) for cam in cams]
    wanted = [1 - heat[8:-8, 8:-8].sum() / heat.sum() for heat in heatmaps]
    np.testing.assert_allclose(numbers.border(cams), wanted, rtol=1e-5)


def test_disagreement_is_one_less_the_mean_rank_correlation(rng):
    maps = [rng.random((4, 5, 5), np.float32) for _ in range(3)]
    ranks = [spearmanr(np.reshape([m[i] for m in maps], (3, -1)), axis=1)[0] for i in range(4)]
    wanted = [1 - matrix[np.triu_indices(3, 1)].mean() for matrix in np.array(ranks)]
    np.testing.assert_allclose(numbers.disagreement(maps), wanted, atol=1e-5)
    same = [maps[0], np.exp(maps[0]), np.asarray(jnp.repeat(maps[0], 2, 1))]
    assert numbers.disagreement(same[:2]).max() < 1e-6  # ranks alone count
    assert numbers.disagreement([maps[0], same[2]]).shape == (4,)  # of another size


def test_the_mean_of_a_class_is_of_ranged_maps(rng):
    cams = rng.random((5, 3, 3), np.float32) * np.array([1, 50, 1, 1, 1], np.float32)[:, None, None]
    cams[3] = np.nan  # skipped
    (found,) = numbers.class_means(cams, [[0, 1, 3]])
    ranged = [(cam - cam.min()) / np.ptp(cam) for cam in cams[:2]]
    np.testing.assert_allclose(found, 255 * np.sum(ranged, 0) / 3, atol=0.51)
