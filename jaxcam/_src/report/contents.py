"""What the page holds, as JSON takes it: names, numbers, and maps in base64."""

import base64
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcam._src.evaluation.measures import MEASURES
from jaxcam._src.report import classes, judgements, numbers
from jaxcam._src.report.runs import Run
from jaxcam._src.report.side_by_side import Compared, Label

SHARD = 100  # images
_DIGITS = 4  # of a number


def head(compared: Compared, root: Path, truth: Sequence[tuple[int, str]] | None) -> dict[str, Any]:
    """All but photographs and maps.

    Args:
      compared: the runs.
      root: the folder that names are relative to.
      truth: the class of each image and its name, if there is a list of them; else what was
        explained stands for it.
    """
    answers = compared.first.answers
    explained, predicted = (_classes(compared.first, of) for of in ("target", "prediction"))
    own = [*truth] if truth else explained
    known = sorted({pair for pair in (*explained, *predicted, *own) if pair[0] >= 0})
    place = {pair: i for i, pair in enumerate(known)}
    own_class = [place.get(pair) for pair in own]
    about_classes = {
        "classes": classes.told_apart(known),
        "targetTexts": classes.target_texts(known),
        "ownClass": own_class,
        "ownClassIs": "labelled" if truth else "explained",
        "isTruth": bool(truth) or _has_targets(compared.first),
        "prediction": [place.get(pair) for pair in predicted],
    }
    return {
        "model": compared.first.settings["model"],
        "root": str(root),
        "shard": SHARD,
        "names": compared.first.names,
        "errors": answers["error"],
        **about_classes,
        "confidence": rounded(answers["prediction_probability"]),
        "margin": rounded(_margin(top) for top in answers["top_probabilities"]),
        "topNames": answers["top_names"],
        "topProbabilities": [rounded(top) for top in answers["top_probabilities"]],
        "disagreement": _disagreement(compared.runs),
        **_sets(compared, place, classes.groups(own_class)),
        "better": {name: measure.higher_is_better for name, measure in MEASURES.items()},
        "judged": [_judged(each) for each in compared.judgements],
    }


def shards(compared: Compared, photographs: Iterator[bytes | None]) -> Iterator[dict[str, Any]]:
    """Photographs and maps of so many images at once; the photographs come one by one."""
    sets = [numbers.as_bytes(run.cams) for run in compared.runs]
    for start in range(0, len(compared.first.names), SHARD):
        part = slice(start, start + SHARD)
        yield {
            "photographs": [p and _base64(p) for p in itertools.islice(photographs, SHARD)],
            "maps": [_base64(each.values[part].tobytes()) for each in sets],
            "ranges": [_base64(each.ranges[part].astype("<f4").tobytes()) for each in sets],
        }


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Numbers of a few digits; None for NaN and for none."""
    return [None if x is None or not np.isfinite(x) else float(f"{x:.{_DIGITS}g}") for x in values]


def _classes(run: Run, of: str) -> list[tuple[int, str]]:
    """The class of each image and its name: the "target" or the "prediction"."""
    return [*zip(run.answers[of], run.answers[f"{of}_name"], strict=True)]


def _sets(
    compared: Compared, place: Mapping[tuple[int, str], int], groups: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """Every run as the page has it, with the mean maps of the classes that have several images."""
    labelled = zip(compared.runs, compared.labels, strict=True)
    sets = [_set(*each, place, [*groups.values()], compared) for each in labelled]
    return {"meanClasses": [*groups], "sets": sets}


def _set(
    run: Run,
    label: Label,
    place: Mapping[tuple[int, str], int],
    groups: Sequence[Sequence[int]],
    compared: Compared,
) -> dict[str, Any]:
    """A run as the page has it: a set of maps with their numbers."""
    answers, flat = run.answers, sorted({reason for reason in run.answers["flat"] if reason})
    measured = judgements.of_run(run, compared.judgements)
    columns = {"border": numbers.border(run.cams).tolist()} | measured
    is_there = np.isfinite(run.cams).all((1, 2))
    there = run.cams[is_there] if is_there.any() else np.zeros((1, 1, 1))
    return {
        **label._asdict(),
        "size": [*run.cams.shape[1:]],
        "low": float(there.min()),
        "high": float(there.max()),
        "targets": [place.get(pair) for pair in _classes(run, "target")],
        "probabilities": rounded(answers["target_probability"]),
        "flatReasons": flat,
        "flat": [flat.index(reason) if reason else None for reason in answers["flat"]],
        "numbers": {name: rounded(column) for name, column in columns.items()},
        "means": _base64(numbers.class_means(run.cams, groups).tobytes()),
        "options": _options(run.settings),
    }


def _options(settings: Mapping[str, Any]) -> str:
    """Those of the command that makes one of the maps again, as a shell takes them."""
    words = []
    for name in ("model", "layer", "occurrence", "method", "seed", "score", "convention", "set"):
        value = settings[name]
        given = value if isinstance(value, list) else [] if value is None else [value]
        words += [word for each in given for word in (f"--{name}", str(each))]
    return shlex.join(words)


def _has_targets(run: Run) -> bool:
    """Whether a list gave what was explained, image by image, and not one choice for all."""
    return "count" in run.settings and run.settings["target"] is None


def _margin(top: Sequence[float]) -> float | None:
    return top[0] - top[1] if len(top) > 1 else None


def _disagreement(runs: Sequence[Run]) -> list[float | None] | None:
    if len(runs) < 2:
        return None
    return rounded(numbers.disagreement([run.cams for run in runs]).tolist())


def _judged(judgement: judgements.Judgement) -> dict[str, Any]:
    """The means of an evaluation, a row for each of its methods."""
    return {
        "folder": str(judgement.folder),
        "images": len(judgement.names),
        "floors": [*judgement.floors],
        "means": {
            label: {metric: rounded([found["mean"]])[0] for metric, found in metrics.items()}
            for label, metrics in judgement.means.items()
        },
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
