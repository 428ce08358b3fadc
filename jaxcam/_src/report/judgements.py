"""What `jaxcam evaluate` wrote, read again: numbers of each image, and those of all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcam._src.evaluation.measures import MEASURES
from jaxcam._src.files import UsageError
from jaxcam._src.report import runs
from jaxcam._src.report.runs import Run, readable

_SCORE = "logit"  # which `run` and `explain` explain


class Judgement(NamedTuple):
    """The numbers of one evaluation.

    Attributes:
      folder: of the evaluation.
      model: as the command line named it.
      names: of the images.
      numbers: of (method, layer), of an image's name: what was explained, and each metric.
      means: of each label of the summary: each metric's mean, low and high.
      floors: which of the labels are floors.
    """

    folder: Path
    model: str
    names: set[str]
    numbers: Mapping[tuple[str, str], Mapping[str, Mapping[str, Any]]]
    means: Mapping[str, Mapping[str, Mapping[str, float]]]
    floors: Sequence[str]


def read(folder: Path, settings: Mapping[str, Any]) -> Judgement:
    """The numbers of a folder with these settings.

    Raises:
      UsageError: the evaluation is not finished, or damaged.
    """
    with readable(folder):
        columns = runs.rows(folder, settings)
        if not (folder / "summary.json").is_file():
            raise UsageError(f"{folder} has no summary.json; give its command again")
        summary = json.loads((folder / "summary.json").read_text())
        found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            if row["score"] == _SCORE and row["error"] is None:
                found.setdefault((row["method"], row["layer"]), {})[row["image"]] = row
        names = {*columns["image"]}
        means, floors = summary["methods"], summary["floors"]
        return Judgement(folder, settings["model"], names, found, means, floors)


def of_run(run: Run, judgements: Sequence[Judgement]) -> dict[str, list[float | None]]:
    """For each metric a number for each image of a run, None where it was not judged.

    A number of a map of another class is none of this map.
    """
    found: dict[str, list[float | None]] = {}
    if run.settings["occurrence"] is not None:  # evaluations know only layers that run once
        return found
    key = run.settings["method"], run.settings["layer"]
    for rows in (each.numbers[key] for each in judgements if key in each.numbers):
        for metric in (name for name in MEASURES if name in next(iter(rows.values()))):
            column = found.setdefault(metric, [None] * len(run.names))
            for i, (name, target) in enumerate(zip(run.names, run.answers["target"], strict=True)):
                if name in rows and rows[name]["target"] == target:
                    column[i] = rows[name][metric]
    return found
