"""The figure of an evaluation: each metric with the intervals of all methods, and the curves."""

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from jaxcam._src.names import printable

OF_MEANS = "adcc of means"
_LATIN = 255  # the last character that the figure's font surely has
_COLUMNS = 4


def heading(found: Mapping[str, Any], name: str) -> str:
    """The name of a metric, and which way is better: +, - or neither."""
    way = found["metrics"].get("adcc" if name == OF_MEANS else name)
    sign = "" if way is None else (" +" if way["higher_is_better"] else " -")
    return name.replace("_", " ") + sign


def draw(found: Mapping[str, Any], file: IO[bytes]) -> None:
    """Draws a summary as PNG; the floors are grey."""
    from matplotlib.figure import Figure

    labels, curves = [*found["methods"]], found["curves"]
    metrics = [*next(iter(found["methods"].values()))]
    panels = len(metrics) + len(curves)
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    high = max(2.0, 0.19 * len(labels) + 0.8)
    figure = Figure(figsize=(3.4 * columns + 1.5, high * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    shown = iter(axes.flat)
    colours = _colours(len(labels), len(found["floors"]))
    for number, (name, axis) in enumerate(zip(metrics, shown, strict=False)):
        _draw_intervals(axis, [found["methods"][label][name] for label in labels], colours)
        axis.set_title(heading(found, name), fontsize=9)
        told = labels if number % columns == 0 else [""] * len(labels)
        texts = [printable(label, _LATIN) for label in told]
        axis.set_yticks(range(len(labels)), texts, fontsize=7, parse_math=False)
    for name, axis in zip(curves, shown, strict=False):
        _draw_curves(axis, [curves[name][label] for label in labels], colours)
        axis.set_title(f"{name}: score by share of pixels", fontsize=9)
    for axis in shown:
        axis.set_axis_off()
    figure.savefig(file, format="png")


def _colours(count: int, floors: int) -> list[Any]:
    from matplotlib import colormaps

    return [*colormaps["viridis"](np.linspace(0, 0.92, count - floors)), *["0.7"] * floors]


def _draw_intervals(axis: Any, numbers: Sequence[Mapping[str, float]], colours: list[Any]) -> None:
    low, mean, high = (np.array([x[end] for x in numbers]) for end in ("low", "mean", "high"))
    places = range(len(numbers))
    axis.hlines(places, low, high, colors=colours, linewidth=2)
    axis.scatter(mean, places, c=colours, s=14)
    axis.tick_params(axis="x", labelsize=7)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)


def _draw_curves(axis: Any, curves: Sequence[Sequence[float]], colours: list[Any]) -> None:
    for points, colour in zip(curves, colours, strict=True):
        axis.plot(np.linspace(0, 1, len(points)), points, color=colour, linewidth=1)
    axis.tick_params(labelsize=7)
