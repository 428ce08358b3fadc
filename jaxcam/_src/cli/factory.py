"""The user's model: called into being, and checked at the door."""

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam._src.base import Model
from jaxcam._src.cut import depthwise_on_cpu
from jaxcam._src.cut.traced import is_of_numbers
from jaxcam._src.files import UsageError, one_line
from jaxcam._src.names import brief, no_such


def load_model(spec: str) -> Model:
    """Calls the factory `package.module:factory`, found from the working directory first.

    The working directory is left out for the models of this package, so that what lies in a
    stranger's folder of images is never imported.

    Raises:
      UsageError: there is no such factory, it fails, it returns no `Model`, a field of it is not
        what it should be, or the variables are not finite.
    """
    factory = _factory(spec)
    with one_line(f"model {spec!r} did not load"):
        model = factory()
    if not isinstance(model, Model):
        raise UsageError(
            f"model {spec!r} returned {type(model).__name__}; wanted a jaxcam.Model(apply_fn, "
            "variables, preprocess, class_names)"
        )
    _check_functions(spec, model)
    _check_variables(spec, model.variables)
    with one_line(f"model {spec!r}"):
        apply_fn = depthwise_on_cpu(model.apply_fn)
    names = _names(spec, model.class_names)
    return dataclasses.replace(model, apply_fn=apply_fn, class_names=names)


def _factory(spec: str) -> Callable[[], Any]:
    """The function that a spec names, not yet called."""
    name, _, attribute = spec.partition(":")
    if not (name and attribute):
        raise UsageError(f"model {spec!r}: wanted package.module:factory, such as mynet:load")
    if name.endswith(".py"):
        raise UsageError(
            f"model {spec!r} names a file; wanted package.module:factory, such as --model "
            f"{Path(name).stem}:{attribute}, run in the folder of that file"
        )
    if name.partition(".")[0] != "jaxcam" and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with one_line(f"model {spec!r} did not load"):
        module = importlib.import_module(name)
        if not hasattr(module, attribute):
            known = [each for each in dir(module) if _can_be_called(getattr(module, each))]
            raise UsageError(f"in {name} {no_such('factory', attribute, known)}")
        factory = getattr(module, attribute)
    if not _can_be_called(factory):
        came = "takes arguments" if callable(factory) else f"is {brief(factory)}"
        raise UsageError(
            f"model {spec!r}: {attribute} {came}; wanted a function without arguments that returns "
            "a jaxcam.Model"
        )
    return factory


def _can_be_called(factory: Any) -> bool:
    """Whether something is called without arguments, as far as Python can tell."""
    if not callable(factory):
        return False
    try:
        inspect.signature(factory).bind()
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def _check_functions(spec: str, model: Model) -> None:
    for field in ("apply_fn", "preprocess", "display"):
        value = getattr(model, field)
        if not (callable(value) or (field == "display" and value is None)):
            raise UsageError(f"model {spec!r}: {field} is {brief(value)}; wanted a function")


def _names(spec: str, names: Any) -> tuple[str, ...]:
    known = hasattr(names, "__len__") and hasattr(names, "__getitem__")
    if not known or isinstance(names, str | bytes | dict):
        raise UsageError(
            f"model {spec!r}: class_names is {brief(names)}; wanted a list of strings, one per "
            "logit"
        )
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise UsageError(
            f"model {spec!r}: class_names holds {brief(wrong[0])}; class_names must be strings, "
            "one per logit"
        )
    return tuple(str(name) for name in names)


def _check_variables(spec: str, variables: Any) -> None:
    for path, leaf in jax.tree.leaves_with_path(variables):
        place = f"model {spec!r}: {jax.tree_util.keystr(path) or 'variables'}"
        if not is_of_numbers(leaf):
            raise UsageError(
                f"{place} is {brief(leaf)}, a {type(leaf).__name__}; wanted arrays alone in "
                "variables; what else the model needs belongs into its apply_fn"
            )
        is_inexact = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        if is_inexact and not np.isfinite(np.asarray(leaf)).all():  # which compiles nothing
            raise UsageError(f"{place} holds NaN or infinity; load other weights")
