"""`jaxcam report`: a page of what runs found of the same images, side by side."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcam._src import files
from jaxcam._src.base import Model
from jaxcam._src.cli import batches
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import check_picture, displayed, tracked
from jaxcam._src.cli.streams import complain, say
from jaxcam._src.files import UsageError
from jaxcam._src.pipeline import listing
from jaxcam._src.pipeline.listing import Listing
from jaxcam._src.render import rgb
from jaxcam._src.report import contents, judgements, photographs, runs, writing
from jaxcam._src.report.side_by_side import Compared, compare

_WHOLE = (
    "photographs are shown whole, since --model was not given: where its preprocess crops them, "
    "maps are not at their places"
)


def run(options: argparse.Namespace) -> int:
    """Writes the page, and says what it lacks. Returns 1 where photographs are missing."""
    batches.check_packages("report", ("pyarrow",))
    compared = _compared(options.runs)
    names = compared.first.names
    model = _model(options.model, compared.first.settings["model"])
    images = _images(options, model)
    root = (images.root if images else compared.first.root).resolve()
    paths = [root / name for name in names]
    if not any(path.is_file() for path in paths):
        raise UsageError(f"{root} has none of the images; give --images, the folder they are in")
    writing.check_out(options.out)
    missing: list[int] = []
    pictures = photographs.small(paths, _reader(model))
    shards = contents.shards(compared, _noted(tracked(names, "photographs"), pictures, missing))
    notes = [] if model else [_WHOLE]

    def head() -> dict[str, Any]:  # once all photographs have been read
        known = contents.head(compared, root, _truth(images, model, names))
        return {**known, "missing": missing, "notes": notes}

    with files.one_line(f"the report {options.out} stopped"):
        writing.write(options.out, head, shards, len(names))
    return _say(options.out, compared, missing, notes)


def _compared(folders: Sequence[Path]) -> Compared:
    """The runs and evaluations of these folders, over the same images."""
    several = dict.fromkeys(inner for folder in folders for inner in runs.folders_of(folder))
    found = [(folder, runs.settings_of(folder)) for folder in several]
    judged = [each for each in found if "metric" in each[1]]
    return compare(
        [runs.read(*each) for each in found if each not in judged],
        [judgements.read(*each) for each in judged],
    )


def _model(given: str | None, of_run: Any) -> Model | None:
    """The model whose preprocess photographs go through.

    What a run names is data, and runs nothing but the models of this package; the user's own are
    named on the command line.
    """
    spec = given or (of_run if str(of_run).startswith("jaxcam:") else None)
    if spec is None:
        return None
    model = load_model(spec)
    check_picture(model)
    return model


def _images(options: argparse.Namespace, model: Model | None) -> Listing | None:
    """Where the user says that the images are, and with a list perhaps their classes."""
    if options.images is None:
        return None
    if options.images.is_dir():
        return Listing(options.images, [], None)
    if model:
        images = listing.read(options.images, model.class_names)
    else:
        with files.one_line("without --model no class is known"):
            images = listing.read(options.images, ())
    batches.say_columns(options, images)
    return images


def _truth(
    images: Listing | None, model: Model | None, names: Sequence[str]
) -> list[tuple[int, str]] | None:
    """The class that a list gives to each image."""
    if not (images and images.targets and model):
        return None
    given = dict(zip(images.names, images.targets, strict=True))
    return [(given[n], model.class_names[given[n]]) if n in given else (-1, "") for n in names]


def _reader(model: Model | None) -> Callable[[Path], np.ndarray]:
    """Reads a photograph, as the model sees it if there is one."""

    def seen(path: Path) -> np.ndarray:
        if model is None:
            return rgb(np.asarray(files.open_image(path)))
        return displayed(model, path, files.preprocessed(model, path))

    return seen


def _noted(
    names: Iterable[str], pictures: Iterable[bytes | None], missing: list[int]
) -> Iterator[bytes | None]:
    """The photographs; notes which are missing."""
    for i, (_, picture) in enumerate(zip(names, pictures, strict=True)):
        if picture is None:
            missing.append(i)
        yield picture


def _say(out: Path, compared: Compared, missing: Sequence[int], notes: Sequence[str]) -> int:
    names = compared.first.names
    for note in notes:
        complain(f"warning: {note}")
    if missing:
        first = names[missing[0]]
        these = f"{len(missing)} of {len(names)} photographs cannot be read, such as {first}"
        complain(f"{these}; their maps are shown on grey")
    sets = len(compared.runs)
    say(f"report: {out}, {len(names)} images, {sets} {'map' if sets == 1 else 'maps'} of each")
    return int(bool(missing))
