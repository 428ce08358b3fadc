"""What `jaxcam evaluate` wrote, read again: numbers of each image, and those of all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxcam._src.evaluation.measures import MEASURES
from jaxcam._src.files import UsageError
from jaxcam._src.report import runs
from jaxcam._src.report.runs import Run, readable

_SCORE = "logit"  # which `run` and `explain` explain where they name no other


class Judgement(NamedTuple):
    """The numbers of one evaluation.

    Attributes:
      folder: of the evaluation.
      model: as the command line named it.
      names: of the images.
      numbers: of (method, layer, score), of an image's name: what was explained, and each metric.
      means: of each label of the summary: each metric's mean, low and high.
      floors: which of the labels are floors.
      made: how all maps were made, by convention and knobs.
    """

    folder: Path
    model: str
    names: set[str]
    numbers: Mapping[tuple[str, str, str], Mapping[str, Mapping[str, Any]]]
    means: Mapping[str, Mapping[str, Mapping[str, float]]]
    floors: Sequence[str]
    made: tuple[Any, Any]


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
        found: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            if row["error"] is None:
                key = row["method"], row["layer"], row["score"]
                found.setdefault(key, {})[row["image"]] = row
        names = {*columns["image"]}
        means, floors = summary["methods"], summary["floors"]
        made = settings["convention"], settings["set"]
        return Judgement(folder, settings["model"], names, found, means, floors, made)


def of_run(run: Run, judgements: Sequence[Judgement]) -> dict[str, list[float | None]]:
    """For each metric a number for each image of a run, None where it was not judged.

    A number of a map of another class is none of this map.
    """
    found: dict[str, list[float | None]] = {}
    if run.settings["occurrence"] is not None:  # evaluations know only layers that run once
        return found
    made = run.settings["convention"], run.settings["set"]
    key = run.settings["method"], run.settings["layer"], run.settings["score"] or _SCORE
    alike = [each.numbers for each in judgements if each.made == made and key in each.numbers]
    for rows in (numbers[key] for numbers in alike):
        for metric in (name for name in MEASURES if name in next(iter(rows.values()))):
            column = found.setdefault(metric, [None] * len(run.names))
            for i, (name, target) in enumerate(zip(run.names, run.answers["target"], strict=True)):
                if name in rows and rows[name]["target"] == target:
                    column[i] = rows[name][metric]
    return found
