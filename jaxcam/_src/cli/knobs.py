"""Knobs of methods on the command line: `--set NAME=VALUE`, checked against the signatures."""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax.numpy as jnp

import jaxcam
from jaxcam._src.files import UsageError, one_line
from jaxcam._src.names import no_such


def knobs_of(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The knobs of a method by name, but for its key, which `--seed` gives."""
    parameters = inspect.signature(method).parameters.values()
    keyword = (p for p in parameters if p.kind is p.KEYWORD_ONLY)
    return {p.name: p for p in keyword if p.name != "key"}


def shown(value: Any) -> str:
    """A knob's value as it is given to `--set`; of several, with commas."""
    several = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return getattr(value, "__name__", several)


def bound(
    methods: dict[str, Callable[..., Any]], settings: Sequence[str]
) -> dict[str, Callable[..., Any]]:
    """The methods with these knobs set; one without a method's name is of all that have it.

    Raises:
      UsageError: a setting is no [METHOD.]NAME=VALUE, or of no knob or method that there is.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for setting in settings:
        place, equals, text = setting.partition("=")
        *owner, knob = place.split(".")
        if not equals or len(owner) > 1:
            raise UsageError(f"--set {setting}: wanted [METHOD.]NAME=VALUE, such as top_k=32")
        for name in _owners(owner, knob, methods):
            values[name][knob] = _value(setting, text, knobs_of(methods[name])[knob])
    return {
        name: functools.partial(method, **values[name]) if values[name] else method
        for name, method in methods.items()
    }


def _owners(
    owner: Sequence[str], knob: str, methods: dict[str, Callable[..., Any]]
) -> Sequence[str]:
    """The methods that a setting is of, each of which has the knob."""
    if owner and owner[0] not in methods:
        raise UsageError(no_such("chosen method", owner[0], methods))
    among = owner or [*methods]
    having = [name for name in among if knob in knobs_of(methods[name])]
    if not having:
        known = [known for name in among for known in knobs_of(methods[name])]
        whose = f"{among[0]} knob" if len(among) == 1 else "knob"
        raise UsageError(no_such(whose, knob, known) if known else f"there is no {whose} to set")
    return having


def _value(setting: str, text: str, knob: inspect.Parameter) -> Any:
    """The value that a text stands for, of the kind that the signature wants."""
    kinds = get_args(knob.annotation) or (knob.annotation,)
    if types.NoneType in kinds and text == "None":
        return None
    if Sequence[str] in (knob.annotation, *kinds):
        return tuple(text.split(","))
    if int not in kinds and float not in kinds:
        return _by_name(setting, text, knob)
    try:
        return int(text) if int in kinds else float(text)
    except ValueError:
        wanted = " or ".join(kind.__name__ for kind in kinds).replace("NoneType", "None")
        such = f"{knob.name}={shown(knob.default)}"
        raise UsageError(f"--set {setting}: wanted {wanted}, such as {such}") from None


def _by_name(setting: str, text: str, knob: inspect.Parameter) -> Any:
    """A type of numbers, or a function of this library."""
    if knob.name == "dtype":
        with one_line(f"--set {setting}: wanted a type of numbers, such as bfloat16"):
            return jnp.dtype(text)
    if text not in jaxcam.__all__ or not inspect.isfunction(getattr(jaxcam, text)):
        raise UsageError(f"--set {setting}: wanted a function of jaxcam, such as closed_form")
    return getattr(jaxcam, text)
