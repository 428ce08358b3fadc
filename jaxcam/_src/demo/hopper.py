"""The demonstration on a photograph: Grace Hopper, which comes with Matplotlib (public domain)."""

import functools
from collections.abc import Mapping, Sequence
from typing import IO

import jax
import numpy as np

from jaxcam._src.base import WeightsFn
from jaxcam._src.compiling import compiler_options
from jaxcam._src.demo.photographs import efficientnet_lite0
from jaxcam._src.explain import explainer
from jaxcam._src.methods import seeded
from jaxcam._src.render import overlay, save_gallery, save_panels

_model = functools.cache(efficientnet_lite0)
LAYER = "head"
CLASSES = ("graduation cap", "Windsor tie", "military uniform")


def save_classes(
    methods: Mapping[str, WeightsFn], file: IO[bytes], classes: Sequence[str] = CLASSES
) -> None:
    """Writes a figure with a row for each class and a column for each method, as PNG."""
    columns = {name: _overlays(method, classes) for name, method in methods.items()}
    pictures = [[_shown(), *row] for row in zip(*columns.values(), strict=True)]
    save_panels(pictures, ["EfficientNet-Lite0", *columns], file, captions=classes)


def save_methods(
    methods: Mapping[str, WeightsFn], file: IO[bytes], label: str = CLASSES[1]
) -> None:
    """Writes a figure of what each method shows of one class, below its name, as PNG."""
    pictures = {name: _overlays(method, [label])[0] for name, method in methods.items()}
    save_gallery(pictures, file)


def _overlays(method: WeightsFn, classes: Sequence[str]) -> list[np.ndarray]:
    """The photograph below the map of each class."""
    model = _model()
    explain = explainer(model.apply_fn, LAYER, seeded(method, 0))
    explain = jax.jit(explain, compiler_options=compiler_options())
    targets = [list(model.class_names).index(name) for name in classes]
    found = [explain(model.variables, _image(), target).heatmap for target in targets]
    return [overlay(_shown(), np.asarray(heatmap)) for heatmap in found]


@functools.cache
def _image() -> np.ndarray:
    from matplotlib import cbook
    from PIL import Image

    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as picture:
        return np.asarray(_model().preprocess(picture.convert("RGB")))


def _shown() -> np.ndarray:
    return np.asarray((_model().display or np.asarray)(_image()))
