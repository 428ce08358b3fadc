"""What makes the maps that the user asks for: each method at each layer."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxcam._src import methods
from jaxcam._src.base import Explanation, Model, WeightsFn
from jaxcam._src.cli import choices
from jaxcam._src.cli.choices import Place
from jaxcam._src.cli.model import classes_of, target_of, try_shapes
from jaxcam._src.compiling import compiler_options
from jaxcam._src.explain import explainer
from jaxcam._src.explanations import of_one_map
from jaxcam._src.files import UsageError


class Maker(NamedTuple):
    """What makes one map of each image.

    Attributes:
      names: of the layer and of the method, as settings of what is written.
      at: cuts the model at the layer; several, whose maps are fused.
      method: bound to its knobs and to a key.
      explain: `(variables, image, target) -> Explanation`, compiled.
    """

    names: dict[str, str]
    at: Place | list[Place]
    method: WeightsFn
    explain: Callable[..., Explanation]


def makers_of(options: argparse.Namespace, model: Model) -> dict[Path, Maker]:
    """Each layer with each method, by the folder to write to, tried on shapes.

    One alone is written to the folder that the user named, several to folders inside of it.

    Raises:
      UsageError: there is no such layer or method, or one cannot explain the model.
    """
    given = choices.methods_of(options, choices.KNOWN, ["grad_cam"])
    keywords = choices.how(options)
    target = target_of(options, classes_of(model, options.score))
    places = choices.places_of(options, choices.named_places(options, model))

    def makers(name: str, method: Callable[..., Any]) -> list[Maker]:
        found = []
        for layer, at in places.items():
            seeded = methods.seeded(method, options.seed)
            explain = of_one_map(explainer(model.apply_fn, at, seeded, **keywords))
            explain = jax.jit(explain, compiler_options=compiler_options())
            try_shapes(explain, model, target)
            found.append(Maker({"layer": layer, "method": name}, at, seeded, explain))
        return found

    of_methods = choices.taken(options, given, makers).values()
    return _placed(options.out, [maker for each in zip(*of_methods, strict=True) for maker in each])


def _placed(out: Path, makers: Sequence[Maker]) -> dict[Path, Maker]:
    if not makers:
        raise UsageError("no method can explain the model at these layers")
    if len(makers) == 1:
        return {out: makers[0]}
    places = {out / _folder(maker.names): maker for maker in makers}
    if len(places) < len(makers):
        raise UsageError("two layers would be written to one folder; give one --layer at a time")
    return places


def _folder(names: Mapping[str, str]) -> str:
    return f"{names['method']}@{names['layer'].replace('/', '.')}"
