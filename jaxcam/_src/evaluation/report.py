"""What an evaluation of many images says: a summary, tables for a terminal, and a figure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from jaxcam._src.evaluation import statistics
from jaxcam._src.evaluation.measures import HIGHER, MEASURES, NEITHER
from jaxcam._src.evaluation.statistics import Interval
from jaxcam._src.files import whole_file
from jaxcam._src.metrics.faithfulness import harmonic_mean
from jaxcam._src.names import printable

DECIDED = (
    "by the probability of the class that is explained, which no metric picks again; removed are "
    "pixels to 0 in deletion and correlations, from the blurred image in insertion, to what their "
    "neighbours say in ROAD; equal pixels in a random order; flat maps count, as 0 everywhere; "
    "intervals of 95 % by 2000 resamples of the images"
)
_CELL = 14  # characters of a number with its interval, and what parts it from the next
_OF_MEANS = "adcc_of_means"


class Numbers(NamedTuple):
    """What was measured, of the images without an error.

    Attributes:
      values: `[images, methods]` of each metric.
      curves: `[methods, points]` of those that have one, means over the images.
      flat: on which share of the images the map is flat, `[methods]`.
      methods: their labels.
      images: how many.
    """

    values: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    flat: np.ndarray
    methods: list[str]
    images: int


def numbers_of(rows: Mapping[str, Sequence[Any]]) -> Numbers | None:
    """Reads the columns of an index; None where every image has an error.

    A label is the method's name, with the layer and the score where there are several.
    """
    keys = [*zip(rows["method"], rows["layer"], rows["score"], strict=True)]
    settings = [*dict.fromkeys(keys)]
    count = len(settings)
    good = np.array([error is None for error in rows["error"]]).reshape(-1, count).all(1)
    if not good.any():
        return None

    def table(name: str) -> np.ndarray:
        column = [*rows[name]]
        kept = [column[i * count : (i + 1) * count] for i in np.flatnonzero(good)]
        return np.array(kept)

    measured = [name for name in MEASURES if name in rows]
    curves = {name: table(f"{name}_curve").mean(0) for name in measured if f"{name}_curve" in rows}
    flat = (table("flat") != None).mean(0)  # noqa: E711  # of each entry
    values = {name: table(name).astype(float) for name in measured}
    return Numbers(values, curves, flat, _labels(settings), int(good.sum()))


def _labels(settings: Sequence[tuple[str, str, str]]) -> list[str]:
    several = [len({setting[i] for setting in settings}) > 1 for i in range(3)]
    joints = ("", " at ", " of ")
    return [
        "".join(
            joint + part
            for joint, part, told in zip(joints, setting, several, strict=True)
            if told or not joint
        )
        for setting in settings
    ]


def summary(numbers: Numbers) -> dict[str, Any]:
    """All of it as JSON takes it: `["methods"][method][metric]` has a mean, a low and a high."""
    intervals = {name: statistics.interval(values) for name, values in numbers.values.items()}
    if {"coherency", "complexity", "drop"} <= numbers.values.keys():
        intervals[_OF_MEANS] = _adcc_of_means(numbers)
    methods = {
        label: {name: _at(found, i) for name, found in intervals.items()}
        for i, label in enumerate(numbers.methods)
    }
    judging = {n: v for n, v in numbers.values.items() if MEASURES[n].better != NEITHER}
    return {
        "images": numbers.images,
        "decided": DECIDED,
        "methods": methods,
        "flat": dict(zip(numbers.methods, numbers.flat.tolist(), strict=True)),
        "curves": {
            name: dict(zip(numbers.methods, curves.tolist(), strict=True))
            for name, curves in numbers.curves.items()
        },
        "metrics": {name: _compared(name, v, numbers.methods) for name, v in judging.items()},
    }


def _adcc_of_means(numbers: Numbers) -> Interval:
    """ADCC as published tables have it: of the means over the images."""
    parts = np.stack([numbers.values[name] for name in ("coherency", "complexity", "drop")], -1)

    def harmonic(means: np.ndarray) -> np.ndarray:
        coherency, complexity, drop = np.moveaxis(means, -1, 0)
        return np.asarray(harmonic_mean(coherency, 1 - complexity, 1 - drop))

    return statistics.interval(parts, of=harmonic)


def _compared(name: str, values: np.ndarray, methods: Sequence[str]) -> dict[str, Any]:
    """One metric's methods against each other."""
    way = {"higher_is_better": MEASURES[name].better == HIGHER}
    apart = statistics.differences(values)
    pairs = [(i, j) for i in range(len(methods)) for j in range(len(methods)) if i != j]
    wins = statistics.win_rates(values, **way)
    return {
        **way,
        "rank": dict(zip(methods, statistics.ranks(values, **way).tolist(), strict=True)),
        "pairs": [
            {"method": methods[i], "other": methods[j], "wins": float(wins[i, j])}
            | {"difference": _at(apart, (i, j))}
            for i, j in pairs
        ],
    }


def _at(found: Interval, place: Any) -> dict[str, float]:
    return {name: float(values[place]) for name, values in found._asdict().items()}


def tables(found: Mapping[str, Any], floors: Sequence[str], width: int) -> list[Table]:
    """The summary in tables of so many characters: means and half the width of their intervals.

    What no other method beats beyond noise has a star; the floors stand last.
    """
    methods = found["methods"]
    metrics = [name for name in next(iter(methods.values())) if name != "tied"]
    order = _floors_last(methods, floors)
    made = []
    beside = max(1, (width - max(map(len, order)) - 2) // _CELL)
    for start in range(0, len(metrics), beside):
        part = metrics[start : start + beside]
        table = Table("method", *(_heading(found, name) for name in part), box=SIMPLE_HEAD)
        for label in order:
            cells = (_cell(found, name, label) for name in part)
            table.add_row(printable(label), *cells)
        made.append(table)
    return made


def _floors_last(methods: Iterable[str], floors: Sequence[str]) -> list[str]:
    return sorted(methods, key=lambda label: _is_floor(label, floors))


def _is_floor(label: str, floors: Sequence[str]) -> bool:
    return label.split(" at ")[0].split(" of ")[0] in floors


def _heading(found: Mapping[str, Any], name: str) -> str:
    if name == _OF_MEANS:
        return "adcc of means +"
    way = found["metrics"].get(name)
    sign = "" if way is None else (" +" if way["higher_is_better"] else " -")
    return name.replace("_", " ") + sign


def _cell(found: Mapping[str, Any], name: str, label: str) -> str:
    number = found["methods"][label][name]
    text = f"{number['mean']:.3f}±{(number['high'] - number['low']) / 2:.3f}"
    is_first = found["metrics"].get(name, {}).get("rank", {}).get(label) == 1
    return f"{text}*" if is_first else text


def write(found: Mapping[str, Any], floors: Sequence[str], folder: Path) -> None:
    """Writes `summary.json` and `evaluation.png`, in which the floors are grey."""
    with whole_file(folder / "summary.json") as file:
        file.write(json.dumps(found, indent=1).encode())
    with whole_file(folder / "evaluation.png") as file:
        _draw(found, floors, file)


def _draw(found: Mapping[str, Any], floors: Sequence[str], file: IO[bytes]) -> None:
    """Each metric with the intervals of all methods, and the curves."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    methods, curves = found["methods"], found["curves"]
    labels = _floors_last(methods, floors)
    metrics = [name for name in next(iter(methods.values())) if name != "tied"]
    columns = min(4, len(metrics) + len(curves))
    rows = -(-(len(metrics) + len(curves)) // columns)
    high = max(2.0, 0.19 * len(labels) + 0.8)
    figure = Figure(figsize=(3.4 * columns + 1.5, high * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=False)
    shown = iter(axes.flat)
    places = np.arange(len(labels))
    judged = sum(not _is_floor(label, floors) for label in labels)
    colours = [*colormaps["viridis"](np.linspace(0, 0.92, judged))]
    colours += ["0.7"] * (len(labels) - judged)
    for name, axis in zip(metrics, shown, strict=False):
        each = [methods[label][name] for label in labels]
        low, mean, upper = (np.array([x[end] for x in each]) for end in ("low", "mean", "high"))
        axis.hlines(places, low, upper, colors=colours, linewidth=2)
        axis.scatter(mean, places, c=colours, s=14)
        axis.set_title(_heading(found, name), fontsize=9)
        is_left = axis in axes[:, 0]
        told = [printable(label, 255) if is_left else "" for label in labels]
        axis.set_yticks(places, told, fontsize=7, parse_math=False)
        axis.tick_params(axis="x", labelsize=7)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
    for name, axis in zip(curves, shown, strict=False):
        for colour, label in zip(colours, labels, strict=True):
            points = curves[name][label]
            axis.plot(np.linspace(0, 1, len(points)), points, color=colour, linewidth=1)
        axis.set_title(f"{name}: score by share of pixels", fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in shown:
        axis.set_axis_off()
    figure.savefig(file, format="png")
