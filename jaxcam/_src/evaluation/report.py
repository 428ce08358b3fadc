"""What an evaluation of many images says: a summary, and tables for a terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from jaxcam._src.evaluation import statistics
from jaxcam._src.evaluation.figure import OF_MEANS, draw, heading
from jaxcam._src.evaluation.measures import MEASURES
from jaxcam._src.evaluation.statistics import Interval
from jaxcam._src.files import whole_file
from jaxcam._src.metrics.faithfulness import harmonic_mean
from jaxcam._src.names import printable

_CELL = 14  # characters of a number with its interval, and what parts it from the next
_FEWEST = 10  # images that tell methods apart: an interval of fewer is too narrow


class Numbers(NamedTuple):
    """What was measured, of the images without an error.

    Attributes:
      values: `[images, methods]` of each metric.
      curves: `[methods, points]` of those that have one, means over the images.
      flat: on which share of the images the map is flat, `[methods]`.
      methods: their labels, the floors last.
      floors: which of the labels are floors.
      images: how many.
    """

    values: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    flat: np.ndarray
    methods: list[str]
    floors: list[str]
    images: int


def numbers_of(rows: Mapping[str, Sequence[Any]], floors: Sequence[str]) -> Numbers | None:
    """Reads the columns of an index, with as many rows for each image, in one order.

    Args:
      rows: the columns.
      floors: the names of the methods that are floors.

    Returns:
      None where every image has an error. A label is the method's name, with the layer and the
      score where there are several.
    """
    keys = [*zip(rows["method"], rows["layer"], rows["score"], strict=True)]
    settings = [*dict.fromkeys(keys)]
    good = np.array([error is None for error in rows["error"]]).reshape(-1, len(settings)).all(1)
    if not good.any():
        return None
    order = sorted(range(len(settings)), key=lambda i: settings[i][0] in floors)

    def of_images(column: Sequence[Any]) -> np.ndarray:
        entries = np.array(
            [x for x, kept in zip(column, np.repeat(good, len(settings)), strict=True) if kept]
        )
        return entries.reshape(-1, len(settings), *entries.shape[1:])[:, order]

    measured = [name for name in MEASURES if name in rows]
    labels = _labels([settings[i] for i in order])
    return Numbers(
        {name: of_images(rows[name]).astype(float) for name in measured},
        {n: of_images(rows[c]).mean(0) for n in measured if (c := f"{n}_curve") in rows},
        of_images([reason is not None for reason in rows["flat"]]).mean(0),
        labels,
        [label for label, i in zip(labels, order, strict=True) if settings[i][0] in floors],
        int(good.sum()),
    )


def _labels(settings: Sequence[tuple[str, str, str]]) -> list[str]:
    layers, scores = ({setting[i] for setting in settings} for i in (1, 2))
    return [
        method
        + (f" at {layer}" if len(layers) > 1 else "")
        + (f" of {score}" if len(scores) > 1 else "")
        for method, layer, score in settings
    ]


def summary(numbers: Numbers, judge: str) -> dict[str, Any]:
    """All of it as JSON takes it: `["methods"][method][metric]` has a mean, a low and a high."""
    intervals = {name: statistics.interval(values) for name, values in numbers.values.items()}
    if {"coherency", "complexity", "drop"} <= numbers.values.keys():
        intervals[OF_MEANS] = _adcc_of_means(numbers)
    return {
        "images": numbers.images,
        "decided": _decided(judge),
        "methods": {
            label: {name: _at(found, i) for name, found in intervals.items()}
            for i, label in enumerate(numbers.methods)
        },
        "floors": numbers.floors,
        "flat": dict(zip(numbers.methods, numbers.flat.tolist(), strict=True)),
        "curves": {
            name: dict(zip(numbers.methods, curves.tolist(), strict=True))
            for name, curves in numbers.curves.items()
        },
        "metrics": {
            name: _compared(values, numbers.methods, way)
            for name, values in numbers.values.items()
            if (way := MEASURES[name].higher_is_better) is not None
        },
    }


def _decided(judge: str) -> str:
    return (
        f"judged by the {judge} of the class that is explained, which no metric picks again; "
        "removed pixels become 0 in deletion and correlations, what their neighbours say in ROAD, "
        "and come into the blurred image in insertion; equal pixels in a random order; flat maps "
        f"count, as 0 everywhere; intervals of {statistics.LEVEL:.0%} by {statistics.DRAWS} draws "
        "of the images"
    )


def _adcc_of_means(numbers: Numbers) -> Interval:
    """ADCC as published tables have it: of the means over the images."""
    parts = np.stack([numbers.values[name] for name in ("coherency", "complexity", "drop")], -1)

    def harmonic(means: np.ndarray) -> np.ndarray:
        coherency, complexity, drop = np.moveaxis(means, -1, 0)
        return np.asarray(harmonic_mean(coherency, 1 - complexity, 1 - drop))

    return statistics.interval(parts, of=harmonic)


def _compared(values: np.ndarray, methods: Sequence[str], higher_is_better: bool) -> dict[str, Any]:
    """One metric's methods against each other; without ranks, where there are too few images."""
    apart = statistics.differences(values)
    wins = statistics.win_rates(values, higher_is_better=higher_is_better)
    ranks = statistics.ranks(apart, higher_is_better=higher_is_better).tolist()
    count = len(methods)
    return {
        "higher_is_better": higher_is_better,
        "rank": dict(zip(methods, ranks, strict=True)) if len(values) >= _FEWEST else None,
        "pairs": [
            {
                "method": methods[i],
                "other": methods[j],
                "wins": float(wins[i, j]),
                "difference": _at(apart, (i, j)),
            }
            for i in range(count)
            for j in range(i + 1, count)
        ],
    }


def _at(found: Interval, place: Any) -> dict[str, float]:
    return {name: float(values[place]) for name, values in found._asdict().items()}


def tables(found: Mapping[str, Any], width: int) -> list[Table]:
    """The summary in tables of so many characters: means and half the width of their intervals.

    What no other method beats beyond noise has a star.
    """
    methods = found["methods"]
    metrics = [*next(iter(methods.values()))]
    beside = max(1, (width - max(map(len, methods)) - 2) // _CELL)
    made = []
    for start in range(0, len(metrics), beside):
        part = metrics[start : start + beside]
        table = Table("method", *(heading(found, name) for name in part), box=SIMPLE_HEAD)
        for label in methods:
            table.add_row(printable(label), *(_cell(found, name, label) for name in part))
        made.append(table)
    return made


def legend(found: Mapping[str, Any]) -> str:
    """What the signs of the tables say, and what was decided."""
    star = "* no other is better beyond noise"
    few = f"{found['images']} images are too few to say what is better beyond noise"
    return (
        f"{found['images']} images, {found['decided']}. Floors last; + higher is better, - lower; "
        f"{star if found['images'] >= _FEWEST else few}."
    )


def _cell(found: Mapping[str, Any], name: str, label: str) -> str:
    number = found["methods"][label][name]
    text = f"{number['mean']:.3f}±{(number['high'] - number['low']) / 2:.3f}"
    rank = found["metrics"].get(name, {}).get("rank")
    return f"{text}*" if rank and rank[label] == 1 else text


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Writes `summary.json` and `evaluation.png`."""
    with whole_file(folder / "summary.json") as file:
        file.write(json.dumps(found, indent=1).encode())
    with whole_file(folder / "evaluation.png") as file:
        draw(found, file)
