"""`jaxcam layers`: where a model can be cut, and what exact derivatives cost there."""

import argparse
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxcam._src import files
from jaxcam._src.base import Layer, Model
from jaxcam._src.cli.choices import default_layer, place_of
from jaxcam._src.cli.factory import load_model
from jaxcam._src.cli.model import blank
from jaxcam._src.cli.streams import complain, say
from jaxcam._src.cut import layers
from jaxcam._src.derivatives import structure
from jaxcam._src.files import UsageError
from jaxcam._src.names import printable
from jaxcam._src.suggest import has_positions
from jaxcam._src.taps import tap

_MANY = 60  # layers, from which on those that are alike share a line
_NUMBER = re.compile(r"\d+")


def run(options: argparse.Namespace) -> None:
    """Prints where a model can be cut, and which layer is taken where none is named."""
    model = load_model(options.model)
    choice = {"matching": options.matching, "every": options.all}
    with files.one_line(f"model {options.model!r}"):
        image = blank(model)
        found = layers(model.apply_fn, model.variables, image, **choice)
    shown = [layer for layer in found if options.all or _has_map(layer, image)]
    if not shown:
        raise UsageError(
            f"the model has no layers that match {options.matching!r} and can be explained; "
            "--all lists what else it names, and jaxcam.tag names more"
        )
    default = _default(model)
    shares = len(shown) > _MANY and options.matching == "*" and not options.cost
    alike = _alike(shown, lambda layer: shares and layer.name != default)
    width = max(len(name) for name, _ in alike)
    for name, (layer, *others) in alike:
        facts = [f"{name:{width}}", *_facts(layer)]
        facts += [f"{1 + len(others)} alike"] if others else []
        facts += ["the default"] if layer.name == default else []
        facts += [_cost(layer, model, image)] if options.cost or layer.name == default else []
        say("  ".join(facts))
    if len(shown) < len(found):
        say(f"left out, without positions: {len(found) - len(shown)}; --all lists them too")


def _has_map(layer: Layer, image: jax.ShapeDtypeStruct) -> bool:
    """Whether a map can be made of the layer, perhaps by `jaxcam.token_grid`."""
    axes = len(layer.shape), len(image.shape)
    return has_positions(layer) and (axes[0] == axes[1] or axes[0] == 2 < axes[1])


def _default(model: Model) -> str | None:
    try:
        with files.one_line("there is no default layer"):
            return default_layer(model)
    except UsageError as error:
        complain(str(error))
        return None


def _facts(layer: Layer) -> list[str]:
    return [
        f"{layer.dtype}{list(layer.shape)}",
        *([f"{layer.runs} times"] if layer.runs > 1 else []),
        *([f"leaf {layer.leaf} {printable(layer.key)}"] if layer.key else []),
    ]


def _cost(layer: Layer, model: Model, image: jax.ShapeDtypeStruct) -> str:
    """What exact derivatives of the logit cost at a layer, in words; nothing is computed."""
    found = []

    def look(variables: Any, image: jax.Array) -> jax.Array:
        at = tap(model.apply_fn, place_of(model, layer.name), variables, image)
        found.append(structure(at.score_activations, at.activations))
        return image

    try:
        with files.one_line("no map"):  # of a layer that runs several times, say
            jax.eval_shape(look, model.variables, image)
    except UsageError as error:
        return str(error).partition(";")[0]
    return f"exact Grad-CAM++: {found[0]}"


def _alike(
    found: Sequence[Layer], shares: Callable[[Layer], bool]
) -> list[tuple[str, list[Layer]]]:
    """The layers with the name to print, those whose names differ in numbers alone together."""
    groups: dict[Any, list[Layer]] = {}
    for i, layer in enumerate(found):
        place = dataclasses.replace(layer, name=_NUMBER.sub("#", layer.name))
        groups.setdefault(place if shares(layer) else i, []).append(layer)
    return [(_common_name([layer.name for layer in group]), group) for group in groups.values()]


def _common_name(names: Sequence[str]) -> str:
    """With a range in place of the number that differs, "block{1..12}/conv"; else from .. to."""
    words = _NUMBER.split(names[0])
    numbers = [*zip(*map(_NUMBER.findall, names), strict=True)]
    if sum(len({*n}) > 1 for n in numbers) > 1:
        return printable(f"{names[0]} .. {names[-1]}")
    spans = [f"{{{n[0]}..{n[-1]}}}" if len({*n}) > 1 else n[0] for n in numbers]
    return printable("".join(map("".join, zip(words, [*spans, ""], strict=True))))
