"""Several runs over the same images, put side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxcam._src.files import UsageError
from jaxcam._src.report.judgements import Judgement
from jaxcam._src.report.runs import CHOICES, Run


class Label(NamedTuple):
    """What a run is called on the page, apart from the others."""

    method: str
    layer: str


class Compared(NamedTuple):
    """Runs of one model over one list of images, in one order.

    Attributes:
      runs: at least one; the names of all are those of the first.
      labels: of the runs, no two alike.
      judgements: of the same model and of some of the images.
    """

    runs: list[Run]
    labels: list[Label]
    judgements: list[Judgement]

    @property
    def first(self) -> Run:
        """The run whose answers stand for all: they are of one model."""
        return self.runs[0]


def compare(runs: Sequence[Run], judgements: Sequence[Judgement]) -> Compared:
    """Puts runs in the order of the first.

    Raises:
      UsageError: there is no run, or one is of another model or of other images.
    """
    if not runs:
        raise UsageError(
            "these folders hold numbers and no maps; give one of jaxcam run or explain too"
        )
    first, known = runs[0], {*runs[0].names}
    for each in (*runs, *judgements):
        model = each.model if isinstance(each, Judgement) else each.settings["model"]
        if model != first.settings["model"]:
            raise UsageError(
                f"{each.folder} is of the model {model!r}, and {first.folder} of "
                f"{first.settings['model']!r}; a report is of one model"
            )
        of_all = isinstance(each, Run)
        if other := {*each.names} ^ known if of_all else each.names - known:
            raise UsageError(
                f"{each.folder} and {first.folder} are of other images: {min(other)!r} is in one "
                "of them alone; give runs over the same images"
            )
    return Compared([_ordered(run, first) for run in runs], _labels(runs), [*judgements])


def _ordered(run: Run, first: Run) -> Run:
    if run.names == first.names:
        return run
    if len({*run.names}) < len(run.names):
        raise UsageError(
            f"{run.folder} has an image twice, and another order than {first.folder}; give runs "
            "over the same list"
        )
    place = {name: i for i, name in enumerate(run.names)}
    order = [place[name] for name in first.names]
    answers = {name: [column[i] for i in order] for name, column in run.answers.items()}
    return run._replace(names=first.names, answers=answers, cams=run.cams[order])


def _labels(runs: Sequence[Run]) -> list[Label]:
    """Method and layer, with the other choices where the runs differ in them."""
    settings = [run.settings for run in runs]
    varied = [name for name in CHOICES[2:] if len({str(each[name]) for each in settings}) > 1]
    labels = [_label(each, varied) for each in settings]
    alike = [label for label in labels if labels.count(label) > 1]
    return [
        label._replace(method=f"{label.method} ({run.folder})") if label in alike else label
        for label, run in zip(labels, runs, strict=True)
    ]


def _label(settings: Mapping[str, Any], varied: Sequence[str]) -> Label:
    said = [f"{name} {settings[name]}" for name in varied if settings[name] is not None]
    more = f" ({', '.join(said)})" if said else ""
    return Label(f"{settings['method']}{more}", str(settings["layer"]))
