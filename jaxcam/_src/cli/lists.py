"""The commands that need no image: what there is to choose from, and the demonstration."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from jaxcam._src import files, methods
from jaxcam._src.base import Layer
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import METHODS, blank
from jaxcam._src.cli.streams import console, results, say
from jaxcam._src.cut import layers
from jaxcam._src.demo import report
from jaxcam._src.files import UsageError
from jaxcam._src.names import printable

_MANY = 60  # layers, from which on those that are alike share a line
_NUMBER = re.compile(r"\d+")
_IN_DEMO = ("cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam")


def demo(options: argparse.Namespace) -> None:
    """Explains the bundled canvases by the methods of the papers that came first."""
    shown = {name: METHODS[name] for name in _IN_DEMO}
    folder = files.writable_folder(options.out)
    with console.status("explaining"), files.all_or_none(folder) as part:
        energy = report.run(shown, part)
    table = Table(title="Share of the heatmap inside the digit's box, mean over the canvases")
    for heading in ("method", *energy[report.FLOOR]):
        table.add_column(heading)
    for name, shares in energy.items():
        table.add_row(name, *(f"{share:.3f}" for share in shares.values()))
    results.print(table)
    say(f"figure: {folder / 'figure.png'}")
    say(f"numbers: {folder / 'energy.json'}")


def list_methods(options: argparse.Namespace) -> None:
    """Prints what each method computes, costs and is not for."""
    if options.markdown:
        print(methods.markdown())
        return
    table = Table(*("method", "paper", "weights", "cost", "avoid"))
    for d in map(methods.describe, methods.METHODS):
        table.add_row(d.name, d.link or d.title, d.weights, d.cost, d.avoid)
    results.print(table)


def list_layers(options: argparse.Namespace) -> None:
    """Prints where a model can be cut."""
    model = load_model(options.model)
    with files.one_line(f"model {options.model!r}"):
        choice = {"matching": options.matching, "every": options.every}
        found = layers(model.apply_fn, model.variables, blank(model), **choice)
    if not found:
        raise UsageError(
            f"the model has no layers that match {options.matching!r} and can be explained; "
            "--every lists what else it names, and jaxcam.tag names more"
        )
    alike = _alike(found, grouped=len(found) > _MANY and options.matching == "*")
    width = max(len(name) for name, _ in alike)
    for name, (layer, *others) in alike:
        runs = f"  {layer.runs} times" if layer.runs > 1 else ""
        leaf = f"  leaf {layer.leaf} {printable(layer.key)}" if layer.key else ""
        more = f"  {1 + len(others)} alike" if others else ""
        say(f"{name:{width}}  {layer.dtype}{list(layer.shape)}{runs}{leaf}{more}")


def _alike(found: Sequence[Layer], grouped: bool) -> list[tuple[str, list[Layer]]]:
    """The layers with the name to print, those whose names differ in numbers alone together."""
    groups: dict[Any, list[Layer]] = {}
    for i, layer in enumerate(found):
        place = dataclasses.replace(layer, name=_NUMBER.sub("#", layer.name))
        groups.setdefault(place if grouped else i, []).append(layer)
    return [(_common_name([layer.name for layer in group]), group) for group in groups.values()]


def _common_name(names: Sequence[str]) -> str:
    """With a range in place of the number that differs, "block{1..12}/conv"; else from .. to."""
    words = _NUMBER.split(names[0])
    numbers = [*zip(*map(_NUMBER.findall, names), strict=True)]
    if sum(len({*n}) > 1 for n in numbers) > 1:
        return printable(f"{names[0]} .. {names[-1]}")
    spans = [f"{{{n[0]}..{n[-1]}}}" if len({*n}) > 1 else n[0] for n in numbers]
    return printable("".join(map("".join, zip(words, [*spans, ""], strict=True))))
