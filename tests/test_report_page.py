"""The page of a report in a browser, from disk: what it shows, sorts, finds and saves."""

import csv
import json

import browser
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from reported import draw_photographs, write_evaluation, write_run

import jaxcam
from jaxcam._src import cli, render
from jaxcam._src.demo.bundle import FOLDER
from jaxcam._src.report import contents, writing

pytestmark = pytest.mark.thorough

CANVASES = [f"canvas{i}.png" for i in range(24)]
HOSTILE = "<img src=x onerror=alert(1)>.png"
CARDS = "#grid li .name"


@pytest.fixture(scope="module")
def chromium():
    with browser.opened() as started:
        yield started


@pytest.fixture(scope="module")
def page_of_canvases(tmp_path_factory):
    """A report of two methods on the bundled canvases, of two layers of one of them."""
    folder = tmp_path_factory.mktemp("canvases")
    for method, layer in (("grad_cam", "stage3"), ("grad_cam", "stage2"), ("layer_cam", "stage3")):
        out = folder / f"{method}-{layer}"
        command = ["run", "--images", FOLDER, "--layer", layer, "--method", method, "--out", out]
        assert cli.main([str(word) for word in command]) == 0
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    assert cli.main(["report", *map(str, runs), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def page_of_strange_things(tmp_path_factory):
    """Hostile names, a signed method, a flat map, a missing photograph, wrong answers, numbers."""
    folder = tmp_path_factory.mktemp("strange")
    names = [HOSTILE, *(f"photo{i}.png" for i in range(1, 9))]
    images = draw_photographs(folder / "images", names)
    right = [i % 3 for i in range(9)]
    answers = {"target": right, "target_name": [f"<b>{'abc'[c]}" for c in right]}
    wrong = [1, 1, 2, 0, 1, 2, 0, 1, 0]  # of the first and the last image
    answers |= {"prediction": wrong, "prediction_name": [f"<b>{'abc'[c]}" for c in wrong]}
    cams = write_run(folder / "run", images, names, **answers)
    cams[3] = 0
    flat = {"flat": [None] * 3 + ["it is flat"] + [None] * 5, **answers}
    write_run(folder / "signed", images, names, method="signed", cams=cams - 0.5, **flat)
    write_evaluation(folder / "judged", names, [0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    (images / "photo5.png").unlink()
    folders = [str(folder / name) for name in ("run", "signed", "judged")]
    assert cli.main(["report", *folders, "--out", str(folder / "report.html")]) == 1
    return folder / "report.html"


@pytest.fixture
def watched(chromium):
    """A page whose faults are none at the end."""
    page = browser.Watched(chromium)
    yield page
    assert page.faults == []
    page.page.context.close()


def names_of(watched):
    return watched.page.locator(CARDS).all_inner_texts()


def test_it_opens_from_disk_and_asks_for_nothing(watched, page_of_canvases):
    watched.open(page_of_canvases).drawn()
    assert names_of(watched) == sorted(CANVASES)
    assert watched.page.locator("#counts").inner_text() == "24 images · 2 methods at 2 layers"


OVERLAYS = [
    (0.5, "viridis", "grad_cam-stage3"),
    (0.5, "cividis", "grad_cam-stage3"),
    (0.5, "turbo", "grad_cam-stage3"),
    (0.75, "gray", "layer_cam-stage3"),
    (0.5, "magma", "grad_cam-stage2"),
]


@pytest.mark.parametrize(("opacity", "colours", "name"), OVERLAYS)
def test_a_map_over_its_image_is_the_overlay(
    watched, page_of_canvases, monkeypatch, opacity, colours, name
):
    monkeypatch.setattr(render, "COLORMAP", colours)
    method, layer = name.split("-")
    chosen = f"method={method}&layer={layer}&opacity={opacity}&colours={colours}"
    watched.open(page_of_canvases, chosen).drawn()
    run = page_of_canvases.parent / name
    rows = pyarrow.parquet.read_table(run / "index").to_pylist()
    cams = np.load(run / "maps" / "000000.npz")["cam"]
    for place in (0, 7, 20):
        image = np.asarray(Image.open(FOLDER / rows[place]["image"]).convert("RGB"))
        heatmap = np.asarray(jaxcam.unit_range(jaxcam.upsample(cams[place], (64, 64))))
        wanted = jaxcam.overlay(image, heatmap, alpha=opacity)
        found = watched.pixels(f"#grid li:nth-child({place + 1}) canvas")
        found = np.array(found).reshape(64, 64, 4)[..., :3]
        assert abs(found - wanted.astype(int)).max() <= 2


def test_a_contour_is_where_the_map_crosses_a_threshold(watched, page_of_canvases):
    watched.open(page_of_canvases, "opacity=0&contour=0.5&layer=stage3").drawn()
    cam = np.load(page_of_canvases.parent / "grad_cam-stage3" / "maps" / "000000.npz")["cam"][0]
    above = np.asarray(jaxcam.unit_range(jaxcam.upsample(cam, (64, 64)))) >= 0.5
    found = np.array(watched.pixels("#grid li canvas")).reshape(64, 64, 4)[..., 0]
    inside = above.copy()
    inside[1:-1, 1:-1] &= above[2:, 1:-1] & above[:-2, 1:-1] & above[1:-1, 2:] & above[1:-1, :-2]
    edge = above & ~inside
    assert edge.sum() > 10
    assert (found[edge] == 255).mean() > 0.9  # a byte of the map may move the line


def test_signs_have_colours_with_zero_in_the_middle(watched, page_of_strange_things):
    watched.open(page_of_strange_things, "method=signed&opacity=1").drawn()
    signed = watched.pixels("#grid li canvas")
    watched.page.uncheck("#signed")
    watched.drawn()
    assert watched.pixels("#grid li canvas") != signed
    middle = watched.tell("[...colourTables[SIGNED].slice(3 * 127, 3 * 129)]")
    assert min(middle) > 240  # white
    watched.page.select_option("#method", "grad_cam")
    assert watched.page.locator("#signed").is_enabled()


def test_one_scale_for_all_is_another_picture(watched, page_of_canvases):
    watched.open(page_of_canvases).drawn()
    before = watched.pixels("#grid li canvas")
    watched.page.check("#raw")
    watched.drawn()
    assert watched.pixels("#grid li canvas") != before
    assert "scale=raw" in watched.page.url


def test_it_sorts_by_any_number(watched, page_of_strange_things):
    watched.open(page_of_strange_things)
    page = watched.page
    page.select_option("#sort", label="drop")
    assert names_of(watched)[:2] == ["photo3.png", "photo4.png"]  # of a drop, small is good
    page.check("#reversed")
    assert names_of(watched)[:2] == [HOSTILE, "photo1.png"]
    page.uncheck("#reversed")
    page.select_option("#sort", label="wrong first")
    assert set(names_of(watched)[:2]) == {HOSTILE, "photo8.png"}
    page.select_option("#method", "signed")
    page.select_option("#sort", label="flat maps first")
    assert names_of(watched)[0] == "photo3.png"
    for option in page.locator("#sort option").all_inner_texts():
        page.select_option("#sort", label=option)
        assert len(names_of(watched)) == 9


def test_it_finds_by_class_name_and_mistake(watched, page_of_strange_things):
    watched.open(page_of_strange_things)
    page = watched.page
    page.check("#wrong")
    assert set(names_of(watched)) == {HOSTILE, "photo8.png"}
    assert page.locator("#count").inner_text() == "2 of 9"
    page.uncheck("#wrong")
    page.fill("#name", "OTO5")
    assert names_of(watched) == ["photo5.png"]
    page.fill("#name", "nothing of this name")
    assert page.locator("#nothing").is_visible()
    page.click("#reset")
    page.select_option("#class", "<b>b")
    assert set(names_of(watched)) == {"photo1.png", "photo4.png", "photo7.png"}


def test_names_are_text(watched, page_of_strange_things):
    watched.open(page_of_strange_things, "image=" + HOSTILE.replace(" ", "%20")).drawn()
    assert watched.page.locator("#large-title").inner_text() == HOSTILE
    assert watched.page.locator("img, b").count() == 0
    watched.page.click("#back")
    assert watched.page.locator(CARDS).first.inner_text() == HOSTILE


def test_the_large_view_has_all_maps_answers_numbers_and_a_command(watched, page_of_canvases):
    watched.open(page_of_canvases)
    watched.page.locator("#grid button").nth(2).click()
    watched.drawn()
    page = watched.page
    name = sorted(CANVASES)[2]
    assert page.locator("#large-title").inner_text() == name
    assert page.locator("#maps figure").count() == 3
    assert page.locator("#likeliest li").count() == 5
    assert page.locator("#numbers th[scope=row]").count() == 3
    command = page.locator("#command").inner_text()
    assert command.startswith(f"jaxcam explain {FOLDER / name} --model jaxcam:digits_relu --layer")
    page.keyboard.press("ArrowRight")
    assert page.locator("#large-title").inner_text() == sorted(CANVASES)[3]
    page.keyboard.press("Escape")
    assert page.locator("#large").is_hidden()
    assert page.evaluate("document.activeElement.title") == sorted(CANVASES)[3]
    page.go_back()
    assert page.locator("#large-title").is_visible()


def test_keys_move_from_card_to_card_and_open_one(watched, page_of_canvases):
    watched.open(page_of_canvases)
    watched.page.locator("#grid button").first.focus()
    columns = watched.tell("arrangement(byId('grid').clientWidth).columns")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft"):
        watched.page.keyboard.press(key)
    assert watched.tell("document.activeElement.title") == sorted(CANVASES)[2 * columns]
    watched.page.keyboard.press("End")
    assert watched.tell("document.activeElement.title") == sorted(CANVASES)[-1]
    watched.page.keyboard.press("Enter")
    assert watched.page.locator("#large-title").inner_text() == sorted(CANVASES)[-1]


def test_what_is_chosen_is_in_the_address(watched, page_of_canvases):
    watched.open(page_of_canvases)
    watched.page.select_option("#method", "layer_cam")
    watched.page.select_option("#sort", "confidence")
    watched.page.fill("#name", "1")
    before, chosen = names_of(watched), watched.page.url.partition("#")[2]
    watched.open(page_of_canvases, chosen)
    assert names_of(watched) == before
    assert watched.page.locator("#method").input_value() == "layer_cam"
    watched.open(page_of_canvases, "opacity=9&method=none&sort=no&class=no&other=1&contour=x")
    assert watched.tell("state.opacity") == 0.5


def test_a_class_has_its_mean_map_its_best_and_its_worst(watched, page_of_canvases):
    watched.open(page_of_canvases, "class=four").drawn()
    assert watched.page.locator("#class-title").inner_text() == "four"
    assert watched.page.locator("#means figure").count() == 3
    members = names_of(watched)
    best = watched.page.locator("#best .name").all_inner_texts()
    worst = watched.page.locator("#worst .name").all_inner_texts()
    assert sorted(best + worst) == sorted(members)
    rows = json.loads((FOLDER / "canvases.json").read_text())
    assert {row["file"] for row in rows if row["label"] == 4} == set(members)


def test_the_selection_is_a_list_for_run(watched, page_of_canvases, tmp_path):
    watched.open(page_of_canvases, "class=four")
    with watched.page.expect_download() as download:
        watched.page.click("#export")
    download.value.save_as(tmp_path / "selection.csv")
    rows = list(csv.DictReader((tmp_path / "selection.csv").read_text().splitlines()))
    assert [row["image"].split("/")[-1] for row in rows] == names_of(watched)
    assert {row["target"] for row in rows} == {"4"}
    command = ["run", "--images", tmp_path / "selection.csv", "--layer", "stage3"]
    assert cli.main([str(word) for word in [*command, "--out", tmp_path / "again"]]) == 0


def test_what_is_missing_skipped_or_flat_is_said(watched, page_of_strange_things):
    watched.open(page_of_strange_things, "method=signed").drawn()
    assert "1 photographs missing" in watched.page.locator("#notes").inner_text()
    card = watched.page.locator("#grid button", has_text="photo5.png")
    assert card.locator(".number").inner_text() == "photograph missing"
    flat = watched.page.locator("#grid button", has_text="photo3.png")
    assert flat.locator(".number").inner_text() == "flat: it is flat"


def test_everything_has_a_name_for_those_who_do_not_see_it(watched, page_of_canvases):
    for chosen in ("", "image=canvas3.png", "class=four"):
        watched.open(page_of_canvases, chosen).drawn()
        unnamed = watched.tell(
            """[...document.querySelectorAll("canvas, meter, input, select, button")]
            .filter((each) => !each.closest("[hidden]"))
            .filter((each) => !(each.ariaLabel || each.labels?.length || each.innerText)).length"""
        )
        assert unnamed == 0
        assert watched.tell("document.querySelectorAll('h1').length") == 1


CONTRAST = """(names) => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(name).trim().slice(1);
    const [r, g, b] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = names.map(light).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(chromium, page_of_canvases, scheme):
    watched = browser.Watched(chromium, color_scheme=scheme).open(page_of_canvases)
    for text in ("--ink", "--soft", "--accent", "--bad"):
        for behind in ("--paper", "--card"):
            assert watched.tell(CONTRAST, [text, behind]) >= 4.5  # of WCAG, level AA


@pytest.mark.parametrize("width", [400, 900, 1600])
def test_nothing_is_wider_than_the_window(chromium, page_of_canvases, width):
    watched = browser.Watched(chromium, width)
    for chosen in ("", "image=canvas3.png", "class=four"):
        watched.open(page_of_canvases, chosen).drawn()
        assert watched.tell("document.documentElement.scrollWidth") <= width
    assert watched.faults == []


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A thousand small photographs."""
    folder = tmp_path_factory.mktemp("many")
    names = [f"photo{i:04}.png" for i in range(1000)]
    images = draw_photographs(folder / "images", names, side=16)
    for method in ("grad_cam", "fem"):
        write_run(folder / method, images, names, method=method, batch_size=250)
    return folder


def test_a_thousand_cards_scroll(watched, many):
    folders = [str(many / method) for method in ("grad_cam", "fem")]
    assert cli.main(["report", *folders, "--out", str(many / "report.html")]) == 0
    watched.open(many / "report.html").drawn()
    assert watched.tell("document.querySelectorAll('#grid li').length") < 120  # those in view
    for place in (250, 999, 10):
        watched.tell("(place) => focusCard(place)", place)
        watched.drawn()
        assert watched.tell("document.activeElement.title") == f"photo{place:04}.png"
    watched.tell("scrollTo(0, document.documentElement.scrollHeight)")
    watched.wait_until("document.querySelector('[title=\"photo0999.png\"] canvas[data-drawn=yes]')")
    assert watched.tell("document.querySelectorAll('#grid li').length") < 120


def test_shards_beside_the_page_are_loaded_as_they_are_wanted(watched, many, monkeypatch):
    monkeypatch.setattr(writing, "MOST_INSIDE", 500)
    monkeypatch.setattr(contents, "SHARD", 50)
    page = many / "folder.html"
    assert cli.main(["report", str(many / "grad_cam"), "--out", str(page)]) == 0
    watched.open(page).drawn()
    assert watched.tell("shards.size") < 5
    watched.tell("focusCard(999)")
    watched.drawn()
    assert watched.tell("shards.has(19)")
    (many / "folder_shards" / "10.js").unlink()
    watched.tell("focusCard(510)")
    lacking = "document.querySelector('[title=\"photo0510.png\"] canvas').title.includes('missing')"
    watched.wait_until(lacking)
    assert all("10.js" in fault or "ERR_FILE" in fault for fault in watched.faults)
    watched.faults.clear()
