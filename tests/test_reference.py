"""Every public name is documented and in the reference; each function's example runs."""

import doctest
import functools
import inspect
import os
import re
import shlex
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from cases import jax_defaults
from pages import README

import jaxcam

FUNCTIONS = [
    name
    for name in jaxcam.__all__
    if callable(getattr(jaxcam, name)) and not inspect.isclass(getattr(jaxcam, name))
]
QUICK = ["derivatives", "explainer", "grad_cam", "layers", "margin", "split", "tap", "upsample"]
MODULES = [name for name in jaxcam.__all__ if isinstance(getattr(jaxcam, name), ModuleType)]


def _examples(name: str) -> list[doctest.Example]:
    documented = jaxcam if name == "jaxcam" else getattr(jaxcam, name)
    return doctest.DocTestParser().get_examples(inspect.getdoc(documented) or "")


@functools.cache
def _beginning() -> dict[str, Any]:
    """What the examples begin with, as the package's docstring says it."""
    namespace: dict[str, Any] = {}
    for example in _examples("jaxcam"):
        exec(example.source, namespace)
    return namespace


def test_every_function_has_an_example_of_a_few_lines():
    assert [name for name in FUNCTIONS if not 1 <= len(_examples(name)) <= 5] == []


def test_what_no_function_is_has_a_docstring():
    for name in set(jaxcam.__all__) - set(FUNCTIONS):
        assert inspect.getdoc(getattr(jaxcam, name)), name
    for name in MODULES:
        for inner in _public(getattr(jaxcam, name)):
            assert inspect.getdoc(getattr(getattr(jaxcam, name), inner)), inner


def _public(module: ModuleType) -> set[str]:
    """What a module says is public, or the functions that it defines."""
    functions = inspect.getmembers(module, inspect.isfunction)
    own = {name for name, function in functions if function.__module__ == module.__name__}
    return set(getattr(module, "__all__", {name for name in own if not name.startswith("_")}))


def _run(name: str) -> None:
    examples = _examples(name)
    with jax_defaults():
        test = doctest.DocTest(examples, dict(_beginning()), name, None, None, None)
        runner = doctest.DocTestRunner(verbose=False)
        said: list[str] = []
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", QUICK)
def test_an_example_runs(name):
    _run(name)


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - set(QUICK)))
def test_the_example_runs(name):
    _run(name)


@pytest.mark.thorough
def test_the_reference_holds_every_public_name(tmp_path):
    """The command of the README builds it."""
    pytest.importorskip("pdoc")
    (line,) = re.findall(r"^.venv/bin/(pdoc .*)$", README.read_text(), re.M)
    program, *arguments = shlex.split(line)
    (names,) = (argument for argument in arguments if "{" in argument)
    arguments.remove(names)
    before, listed = names.removesuffix("}").split("{")
    modules = [before + each for each in listed.split(",")]
    arguments[arguments.index("reference")] = str(tmp_path)
    subprocess.run(
        [sys.executable, "-m", program, *arguments, *modules], check=True, env=os.environ
    )
    anchors = set(re.findall(r' id="(\w+)"', (tmp_path / "jaxcam.html").read_text()))
    assert set(jaxcam.__all__) - set(MODULES) <= anchors
    for name in MODULES:
        module = getattr(jaxcam, name)
        page = (tmp_path / module.__name__.replace(".", "/")).with_suffix(".html").read_text()
        assert _public(module) <= set(re.findall(r' id="(\w+)"', page))
