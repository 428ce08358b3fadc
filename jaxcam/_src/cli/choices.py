"""What the user chooses by name: methods with their knobs, scores, conventions and layers."""

import argparse
import functools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import jax

from jaxcam._src import conventions, files, methods, scores
from jaxcam._src.base import Convention, FuseFn, Model, ScoreFn, SplitFn, WeightsFn
from jaxcam._src.cli import knobs
from jaxcam._src.cli.model import blank
from jaxcam._src.cli.streams import say
from jaxcam._src.cut import split
from jaxcam._src.derivatives import closed_form
from jaxcam._src.files import UsageError
from jaxcam._src.fusions import fuse_layer_cam, fuse_max, fuse_refine_cam, fuse_winsor
from jaxcam._src.methods.curvature import grad_cam_plus_plus
from jaxcam._src.names import no_such
from jaxcam._src.suggest import TokensError, suggest_layer
from jaxcam._src.tokens import token_grid

T = TypeVar("T")
Place: TypeAlias = str | SplitFn
METHODS: dict[str, WeightsFn] = methods.METHODS | {
    "grad_cam_plus_plus_closed": functools.partial(grad_cam_plus_plus, derivatives_fn=closed_form)
}
KNOWN = METHODS | methods.OF_ATTENTION  # to whoever asks for one by name, or for all
SCORES: dict[str, ScoreFn] = {
    f.__name__: f
    for f in (
        scores.logit,
        scores.probability,
        scores.log_probability,
        scores.log_odds,
        scores.margin,
        scores.rest,
        scores.finer,
        scores.binary_logit,
        scores.binary_probability,
        scores.binary_log_probability,
        scores.label_probability,
        scores.label_log_probability,
    )
}
CONVENTIONS: dict[str, Convention] = {
    name: getattr(conventions, name) for name in conventions.__all__
}
FUSIONS: dict[str, FuseFn] = {
    f.__name__.removeprefix("fuse_"): f
    for f in (fuse_max, fuse_layer_cam, fuse_refine_cam, fuse_winsor)
}
ALL = "all"
AGAIN = "; may be given several times"


def add_how(command: argparse.ArgumentParser) -> None:
    """The options of a command that makes maps: how methods are bound."""
    knob = f"a knob of a method, [METHOD.]NAME=VALUE, as `jaxcam methods METHOD` lists{AGAIN}"
    command.add_argument("--set", action="append", default=[], metavar="KNOB", help=knob)
    library = f"make maps as a library does: {', '.join(CONVENTIONS)} (default: paper)"
    command.add_argument("--convention", default="paper", metavar="NAME", help=library)
    command.add_argument("--seed", type=int, default=0, help="of whatever is random")


def add_fuse(command: argparse.ArgumentParser) -> None:
    """The option of one map of several layers."""
    fused = f"make one map of all layers, named shallow to deep: {', '.join(FUSIONS)}"
    command.add_argument("--fuse", metavar="NAME", help=fused)


def add_score(command: argparse.ArgumentParser) -> None:
    """The option of what is explained."""
    explained = f"what is explained: {', '.join(SCORES)} (default: %(default)s)"
    command.add_argument("--score", default="logit", metavar="NAME", help=explained)


def named(kind: str, name: str, known: dict[str, Any]) -> Any:
    """What a name stands for.

    Raises:
      UsageError: for nothing; it says what is near.
    """
    if name not in known:
        raise UsageError(no_such(kind, name, known))
    return known[name]


def fuse_of(options: argparse.Namespace) -> FuseFn | None:
    """How the maps of the layers become one; None where each stays one of its own."""
    if options.fuse is None:
        return None
    fuse_fn = named("fusion", options.fuse, FUSIONS)
    if len({*(options.layer or [])}) < 2:
        raise UsageError(f"--fuse {options.fuse} wants several layers, each by a --layer")
    return fuse_fn


def how(options: argparse.Namespace) -> dict[str, Any]:
    """What `explainer` takes by keyword: the score, the convention and the fusion."""
    return {
        "score_fn": named("score", options.score, SCORES),
        "convention": convention_of(options),
        "fuse": fuse_of(options),
    }


def convention_of(options: argparse.Namespace) -> Convention:
    """By which library's conventions maps are made."""
    return named("convention", options.convention, CONVENTIONS)


def more_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Choices that are named in what is written only where they are not the usual ones."""
    usual = {"score": "logit", "convention": "paper", "set": [], "fuse": None}
    given = {name: getattr(options, name, usual[name]) for name in usual}
    return {name: value for name, value in given.items() if value != usual[name]}


def methods_of(
    options: argparse.Namespace, known: dict[str, Any], usual: Sequence[str]
) -> dict[str, Callable[..., Any]]:
    """The methods that the user named, bound to the knobs that the user set."""
    for name in options.method:
        named("method", name, {**known, ALL: None})
    names = known if ALL in options.method else dict.fromkeys(options.method or usual)
    return knobs.bound({name: known[name] for name in names}, options.set)


def taken(
    options: argparse.Namespace,
    given: dict[str, Callable[..., Any]],
    try_fn: Callable[[str, Callable[..., Any]], T],
    always: Container[str] = (),
) -> dict[str, T]:
    """What `try_fn` makes of the methods; of all, those that it refuses are left out with a word.

    Raises:
      UsageError: by `try_fn`, of a method that was named or is always there.
    """
    found = {}
    for name, method in given.items():
        try:
            found[name] = try_fn(name, method)
        except UsageError as error:
            if ALL not in options.method or name in always:
                raise
            say(f"left out: {name}: {error}")
    return found


def named_places(options: argparse.Namespace, model: Model) -> dict[str, Place]:
    """The layers that the user named, or else the last with positions, and says which."""
    if options.layer:
        names = [*dict.fromkeys(options.layer)]
    else:
        with files.one_line("--layer is not given"):
            names = [default_layer(model)]
        say(f"layer: {names[0]} (last with positions; choose with --layer)")
    occurrence = getattr(options, "occurrence", None)
    with files.one_line("cannot explain"):
        return {name: place_of(model, name, occurrence) for name in names}


def default_layer(model: Model) -> str:
    """The last layer with positions, of tokens too.

    Raises:
      ValueError: there is none, or its tokens have no grid.
    """
    try:
        return suggest_layer(model.apply_fn, model.variables, blank(model))
    except TokensError as error:
        if error.layer is None:
            raise
        return error.layer


def place_of(model: Model, layer: str, occurrence: int | None = None) -> Place:
    """What `explainer` takes for a layer: its name, or what lays its tokens out as a grid."""
    cut, image = split(model.apply_fn, layer, occurrence=occurrence), blank(model)
    activations = jax.eval_shape(lambda *given: cut(*given)[0], model.variables, image)
    at = layer if occurrence is None else cut
    is_tokens = len(activations.shape) == 2 < len(image.shape)
    return token_grid(model.apply_fn, at) if is_tokens else at


def places_of(options: argparse.Namespace, layers: Mapping[str, T]) -> dict[str, T | list[T]]:
    """What is explained, by its name: each layer, or all of them where they are fused."""
    return {"+".join(layers): [*layers.values()]} if options.fuse else {**layers}
