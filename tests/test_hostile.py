"""Whatever the command line is given: one line, exit code 1 or 2, nothing half-made."""

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
from tiers import rest_is_thorough

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
    assert not [path for path in after if path.name.startswith(".jaxcam") or path.suffix == ".part"]
    if code == 2 and arguments[0] != "run":
        assert [p for p in after if p.is_file()] == [p for p in before if p.is_file()]
    return code, said.err


@pytest.mark.parametrize("kind", rest_is_thorough(COMMANDS))
@pytest.mark.parametrize(("field", "i"), broken_models.MODELS)
def test_a_broken_model(capsys, tmp_path, monkeypatch, pictures, kind, field, i):
    monkeypatch.setattr(
        broken_models, "tried", lambda: broken_models.broken(field, i), raising=False
    )
    images = sorted(pictures.iterdir())
    layer = [] if kind == "layers" else ["--layer", "layer"]
    arguments = command_of(kind, images, tmp_path)
    held(capsys, tmp_path, [*arguments, "--model", "broken_models:tried", *layer])


def _names():
    hostile = "<img src=x onerror=alert(1)>", "$\\frac{$", "[red]", "[", "{", "%s", "-rf", "a\nb"
    more = "\x1b[31m", "\u202egpj", "ü", "\udcff", "a" * 246, "..", " ", "'", '"', "\\", "*", "nul"
    return [f"{name}.png" for name in (*hostile, *more)]


@pytest.mark.parametrize("kind", rest_is_thorough(["explain", "run", "audit"], first=2))
def test_hostile_names(capsys, tmp_path, pictures, kind):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for name in _names():
        (folder / name).write_bytes((pictures / "a.png").read_bytes())
    paths = [folder / name for name in _names()]
    for path in paths if kind == "explain" else []:
        code, _ = held(capsys, out, [*command_of(kind, [path], out), *SOUND])
        assert code == (2 if len(path.name) > 240 else 0)
    if kind == "audit":
        assert held(capsys, out, [*command_of(kind, paths, out), *SOUND])[0] == 0
    if kind == "run":
        code, said = held(capsys, out, [*command_of(kind, [folder], out), *SOUND])
        assert code == 2
        assert "not UTF-8; rename the file" in said
        (folder / "\udcff.png").unlink()
        assert held(capsys, out, [*command_of(kind, [folder], out), *SOUND])[0] == 0


def _content():
    sound = b"".join([b"\x89PNG\r\n\x1a\n", b"\0" * 40])
    return [b"", b"text", sound, b"GIF89a", b"\xff\xd8\xff\xe0" + b"\0" * 99, b"BM" + b"\xff" * 60]


@pytest.mark.parametrize("kind", ["explain", "audit", "run"])
def test_files_that_are_no_images(capsys, tmp_path, pictures, kind):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for i, content in enumerate(_content()):
        (folder / f"{i}.png").write_bytes(content)
    os.mkfifo(folder / "fifo.png")
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(folder / "nowhere")
    for path in sorted(folder.iterdir()) if kind != "run" else []:
        assert held(capsys, out, [*command_of(kind, [path], out), *SOUND])[0] == 2
    if kind == "run":
        assert held(capsys, out, [*command_of(kind, [folder], out), *SOUND])[0] == 1


def test_a_huge_picture_is_refused_in_one_line(capsys, tmp_path):
    Image.new("1", (40_000, 20_000)).save(tmp_path / "huge.png")  # beyond Pillow's limit
    code, said = held(
        capsys, tmp_path, ["explain", tmp_path / "huge.png", "--out", tmp_path, *SOUND]
    )
    assert code == 2
    assert "huge.png cannot be read as an image" in said


MANIFESTS = {
    "Target": "image,Target\na.png,cat\n",
    "a blank": "image, target\na.png,cat\n",
    "targets": "image,targets\na.png,cat\n",
    "twice": "image,target,target\na.png,cat,cat\n",
    "image twice": "image,image\na.png,b.png\n",
    "Image": "Image\na.png\n",
    "too many": "image,target\na.png,cat,bird\n",
    "a comma": "image,target\na, b.png,cat\n",
    "too few": "image,target\na.png\n",
    "no class": "image,target\na.png,cow\n",
    "no target": "image,target\na.png,\n",
    "a long field": f"image\n{'a' * 200_000}\n",
    "an open quote": 'image,target\n"a.png,cat\n',
    "a quote inside": 'image,target\n"a".png,cat\n',
    "nothing": "",
    "no rows": "image,target\n",
}
SPELLINGS = {
    "plain": "image,target\na.png,cat\nb.png,1\n",
    "mark, CRLF": "\ufeffimage,target\r\na.png,cat\r\n\r\nb.png,1\r\n",
    "quoted": '"image","target"\n"a.png","cat"\n"b.png","[red]dog[/]"\n',
    "others": "split,target,image\ntest,0,a.png\n,1,b.png\n",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_means_something_else_is_refused(capsys, tmp_path, pictures, name):
    path = tmp_path / "list.csv"
    path.write_text(MANIFESTS[name])
    for picture in pictures.iterdir():
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    code, said = held(capsys, out, ["run", "--images", path, "--out", out, *SOUND])
    assert code == 2
    assert "list.csv" in said
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_manifest_says_which_columns_are_read(capsys, tmp_path, pictures, name):
    path = tmp_path / "list.csv"
    path.write_bytes(SPELLINGS[name].encode())
    for picture in pictures.iterdir():
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    arguments = ["run", "--images", path, "--out", tmp_path / "out", *SOUND]
    assert cli.main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr().out
    assert "list.csv: columns " in said
    assert ("; not used: split" in said) == (name == "others")
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(tmp_path / "out" / "index").to_pylist()
    assert [(row["image"], row["target"]) for row in rows] == [("a.png", 0), ("b.png", 1)]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.sampled_from('image,target\n\r" ;\t\0\ufeffäcat.png01'), max_size=60))
def test_any_text_as_a_manifest(capsys, tmp_path, text):
    path, out = tmp_path / "list.csv", tmp_path / "out"
    path.write_bytes(text.encode())
    out.mkdir(exist_ok=True)
    code, _ = held(capsys, out, ["run", "--images", path, "--out", out, *SOUND])
    assert code in (1, 2)
    for left in out.rglob("*"):
        if left.is_file():
            left.unlink()


HUGE = "9" * 30
OPTIONS = ["", "0", "-1", "nan", "1e400", HUGE, "\0", "\x1b[31m", "None", "a/b", "[/]", "x" * 5000]


@pytest.mark.parametrize("value", OPTIONS)
@pytest.mark.parametrize(
    "option",
    "--layer --occurrence --method --seed --target --out --batch-size --threads --share --model "
    "--images".split(),
)
def test_hostile_options(capsys, tmp_path, monkeypatch, pictures, option, value):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--images", str(pictures), "--out", str(tmp_path / "out"), *SOUND]
    code, _ = held(capsys, tmp_path, [*arguments, f"{option}={value}"])
    sound = {("--seed", "0"), ("--seed", "-1"), ("--target", "0"), ("--occurrence", "0")}
    sound |= {("--occurrence", "-1"), ("--seed", HUGE), ("--threads", HUGE)}
    sound |= {("--out", value) for value in OPTIONS}
    assert code == 2 or (option, value) in sound or (code == 1 and option == "--images")


STORES = {
    "a list": lambda out: (out / "run.json").write_text("[]"),
    "a number": lambda out: (out / "run.json").write_text("3"),
    "no JSON": lambda out: (out / "run.json").write_text("{"),
    "no UTF-8": lambda out: (out / "run.json").write_bytes(b"\xff\xfe\xff"),
    "a folder": lambda out: ((out / "run.json").unlink(), (out / "run.json").mkdir()),
    "gone": lambda out: (out / "run.json").unlink(),
    "an index that is a file": lambda out: (_empty(out / "index"), (out / "index").write_text("")),
    "maps that are a file": lambda out: (_empty(out / "maps"), (out / "maps").write_text("")),
    "a folder for an index": lambda out: _replace_by_folder(out / "index" / "000000.parquet"),
    "a folder for maps": lambda out: _replace_by_folder(out / "maps" / "000001.npz"),
}
DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "a bit": lambda path: path.write_bytes(_flipped(path.read_bytes(), 130)),
    "text": lambda path: path.write_text("text"),
}


def _empty(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _replace_by_folder(path):
    path.unlink()
    path.mkdir()


def _flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.fixture
def a_run(capsys, tmp_path, pictures):
    """A finished run in three batches, and the command that made it."""
    out = tmp_path / "out"
    arguments = ["run", "--images", pictures, "--out", out, "--batch-size", 1, *SOUND]
    out.mkdir()
    assert held(capsys, out, arguments)[0] == 0
    return out, arguments


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_is_another_thing_is_refused(capsys, a_run, name):
    out, arguments = a_run
    STORES[name](out)
    code, said = held(capsys, out, arguments)
    assert code == 2
    assert str(out) in said


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", ["maps/000001.npz", "index/000001.parquet"])
def test_a_damaged_batch_is_done_again(capsys, a_run, place, damage):
    out, arguments = a_run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    cams = np.load(out / "maps" / "000001.npz")["cam"]
    DAMAGES[damage](out / place)
    if damage == "a bit" and place.startswith("index"):
        pytest.skip("Parquet has no sum over all of its bytes")
    assert held(capsys, out, arguments)[0] == 0
    np.testing.assert_array_equal(np.load(out / "maps" / "000001.npz")["cam"], cams)
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert before[out / "index/000001.parquet"] == after[out / "index/000001.parquet"]


def _process(*arguments, **options):
    command = [sys.executable, "-m", "jaxcam", *map(str, arguments)]
    here = Path(__file__).parent
    return subprocess.Popen(command, cwd=here, text=True, errors="replace", **options)


@pytest.mark.parametrize(
    ("redirection", "wanted"),
    [
        ("> /dev/full", "jaxcam: cannot write the output: No space left on device\n"),
        (">&-", ""),
        ("| true", ""),
    ],
)
@pytest.mark.parametrize("command", rest_is_thorough(["methods", f"layers {' '.join(SOUND[:2])}"]))
def test_an_output_that_takes_nothing(command, redirection, wanted):
    shell = f"{sys.executable} -m jaxcam {command} {redirection}"
    done = subprocess.run(
        shell, shell=True, cwd=Path(__file__).parent, text=True, stderr=subprocess.PIPE, timeout=120
    )
    assert done.stderr == wanted
    assert done.returncode == (2 if wanted else 0)


@pytest.mark.parametrize(
    "encoding", rest_is_thorough(["ascii:strict", "utf-8:strict", "latin-1:strict"])
)
def test_a_terminal_of_another_alphabet(tmp_path, pictures, encoding):
    for name in ("ü.png", "\udcff.png", "猫.png"):
        (tmp_path / name).write_bytes((pictures / "a.png").read_bytes())
        environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": encoding}
        arguments = ["explain", tmp_path / name, *SOUND, "--out", tmp_path / "out"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = _process(*arguments, env=environment, **streams)
        said, error = process.communicate(timeout=120)
        assert (process.returncode, error) == (0, "")
        assert "explained: " in said
    assert len(json.loads((tmp_path / "out" / "explanations.json").read_text())["images"]) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("kind", rest_is_thorough(["run", "explain", "audit", "demo"]))
def test_a_full_disk(tmp_path, capsys, pictures, kind):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        images = [pictures] if kind in ("run", "audit") else sorted(pictures.iterdir())
        command = (
            ["demo", "--out", disk / "o"] if kind == "demo" else command_of(kind, images, disk)
        )
        code, said = held(capsys, disk, [*command, *([] if kind == "demo" else SOUND)])
        assert code == 2
        assert "No space left on device" in said
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "number", rest_is_thorough([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
)
def test_a_run_goes_on_after_a_signal_at_any_moment(capsys, tmp_path, pictures, number):
    folder, out, calm = tmp_path / "in", tmp_path / "out", tmp_path / "calm"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i:02}.png").write_bytes((pictures / "a.png").read_bytes())
    arguments = ["run", "--images", folder, "--batch-size", 2, *SOUND]
    rng = np.random.default_rng(number)
    for _ in range(3):
        process = _process(*arguments, "--out", out, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline, made = time.monotonic() + 60, len(list(out.glob("index/*.parquet")))
        while len(list(out.glob("index/*.parquet"))) == made and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(rng.uniform(0, 0.01))
        process.send_signal(number)
        error = process.communicate(timeout=120)[1]
        assert "Traceback" not in error
    for place in (out, calm):
        place.mkdir(exist_ok=True)
        assert held(capsys, place, [*arguments, "--out", place])[0] == 0
    for path in sorted(calm.glob("*/*")):
        assert path.read_bytes() == (out / path.relative_to(calm)).read_bytes()
