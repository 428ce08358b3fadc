"""The commands that need no image: what there is to choose from, and the demonstration."""

import argparse

from rich.table import Table

from jaxcam._src import files, methods
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import METHODS, blank
from jaxcam._src.cli.streams import console, results, say
from jaxcam._src.cut import layers
from jaxcam._src.demo import report
from jaxcam._src.names import printable

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
        found = layers(model.apply_fn, model.variables, blank(model))
    width = max((len(printable(layer.name)) for layer in found), default=0)
    for layer in found:
        runs = f"  {layer.runs} times" if layer.runs > 1 else ""
        leaf = f"  leaf {layer.leaf}" if layer.leaf else ""
        say(f"{printable(layer.name):{width}}  {layer.dtype}{list(layer.shape)}{runs}{leaf}")
