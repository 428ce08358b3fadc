"""The commands that need neither a model nor an image: the methods, and the demonstration."""

import argparse
import functools
from pathlib import Path

from rich import box
from rich.table import Table

from jaxcam._src import files, methods
from jaxcam._src.cli import choices, knobs
from jaxcam._src.cli.choices import METHODS
from jaxcam._src.cli.streams import console, results, say
from jaxcam._src.demo import hopper, report
from jaxcam._src.methods.perturbation import score_cam

_ON_PHOTOGRAPH = {
    name: METHODS[name] for name in ("grad_cam", "grad_cam_plus_plus", "layer_cam", "shapley_cam")
} | {"score_cam": functools.partial(score_cam, top_k=64)}  # of 1280 channels
_IN_DEMO = ("cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam")


def demo(options: argparse.Namespace) -> None:
    """Explains the bundled canvases by the methods of the papers that came first."""
    shown = {name: METHODS[name] for name in _IN_DEMO}
    folder = files.writable_folder(options.out)
    with console.status("explaining"), files.all_or_none(folder) as part:
        energy = report.run(shown, part)
        missing = _on_photograph(part / "photograph.png")
    table = Table(title="Share of the heatmap inside the digit's box, mean over the canvases")
    for heading in ("method", *energy[report.FLOOR]):
        table.add_column(heading)
    for name, shares in energy.items():
        table.add_row(name, *(f"{share:.3f}" for share in shares.values()))
    results.print(table)
    say(f"figure: {folder / 'figure.png'}")
    say(missing or f"figure: {folder / 'photograph.png'}, three classes of one photograph")
    say(f"numbers: {folder / 'energy.json'}")


def _on_photograph(path: Path) -> str | None:
    """Explains a photograph; or says what is missing for that."""
    try:
        with files.whole_file(path) as file:
            hopper.save_classes(_ON_PHOTOGRAPH, file)
    except ModuleNotFoundError:
        return "no photograph is explained without pip install 'jaxcam-xai[photographs]'"
    return None


def list_methods(options: argparse.Namespace) -> None:
    """Prints what each method computes and costs; of one named, all that there is to say."""
    if options.markdown:
        print(methods.markdown())
    elif options.name:
        _say_method(options.name)
    else:
        results.print(_table_of_methods())
        say("jaxcam methods NAME: what it is not for, its knobs and its paper")


def _table_of_methods() -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    listed = methods.METHODS | methods.OF_ATTENTION
    table.add_column("method", no_wrap=True, min_width=max(map(len, listed)))
    table.add_column("weights", ratio=3)
    table.add_column("cost", ratio=2)
    for d in map(methods.describe, listed):
        table.add_row(d.name, d.weights, d.cost)
    return table


def _say_method(name: str) -> None:
    method = choices.named("method", name, methods.METHODS | methods.OF_ATTENTION)
    d = methods.describe(name)
    found = knobs.knobs_of(method).values()
    values = ", ".join(f"{knob.name}={knobs.shown(knob.default)}" for knob in found)
    say(f"{d.name}: {d.title}")
    table = Table.grid(padding=(0, 2))
    said = {"weights": d.weights, "cost": d.cost, "avoid": d.avoid, "knobs": values}
    for heading, text in {**said, "paper": d.link}.items():
        table.add_row(heading, text or "none")
    results.print(table)
