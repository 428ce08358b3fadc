"""Reading the equations of a program: what their parameters are called, in every version of JAX."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.core
from jax.extend import core as jex

INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr"}
NOT_THE_USER = (
    contextlib.__file__,  # around functions of JAX
    *(f"{where}{os.sep}" for where in (Path(jax.__file__).parent, Path(__file__).parents[2])),
)
CALLS = INLINED | {"remat": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr"}
# As tuples, since a cut asks thousands of times, and `|` makes a new type each time.
_SEQUENCES, _PROGRAMS = (list, tuple), (jex.Jaxpr, jex.ClosedJaxpr)


class UnknownLayoutError(ValueError):
    """An equation of a known primitive has not the parameters that it is known to have."""


def param(eqn: Any, name: str) -> Any:
    """A parameter of an equation.

    Raises:
      UnknownLayoutError: there is none of this name.
    """
    if name not in eqn.params:
        raise UnknownLayoutError(
            f"jaxcam cannot read `{eqn.primitive.name}` of jax {jax.__version__}: it has no "
            f"parameter {name!r}, only {sorted(eqn.params)}; choose a layer outside of it, or a "
            "version of jax that this jaxcam was tested with"
        )
    return eqn.params[name]


class Scan(NamedTuple):
    """A loop: its arguments are `consts, carry, xs` in this order, its results `carry, ys`.

    Attributes:
      body: closed; `consts, carry, x -> carry, y`.
      consts: how many arguments are the same in every step.
      carry: how many are passed from step to step.
      length: number of steps.
      reverse: whether the last of `xs` comes first.
    """

    body: Any
    consts: int
    carry: int
    length: int
    reverse: bool


def scan_of(eqn: Any) -> Scan:
    """Reads the equation of a scan.

    Raises:
      UnknownLayoutError: in a layout that is not known.
    """
    if "ft_in" in eqn.params:  # from jax 0.12 on: consts, carry and xs as trees
        consts, carry, _ = map(len, eqn.params["ft_in"].unpack())
    else:
        consts, carry = param(eqn, "num_consts"), param(eqn, "num_carry")
    return Scan(param(eqn, "jaxpr"), consts, carry, param(eqn, "length"), param(eqn, "reverse"))


def body_of(eqn: Any) -> Any:
    """The program that a call runs, closed."""
    body = param(eqn, CALLS[eqn.primitive.name])
    return body if isinstance(body, jex.ClosedJaxpr) else jex.ClosedJaxpr(body, ())


def programs_in(eqn: Any) -> Iterator[Any]:
    """Every program inside an equation: bodies of calls and loops, branches, custom functions."""
    for value in eqn.params.values():
        for body in value if isinstance(value, _SEQUENCES) else (value,):
            if isinstance(body, _PROGRAMS):
                yield body.jaxpr if isinstance(body, jex.ClosedJaxpr) else body


def has_refs(jaxpr: Any) -> bool:
    """Whether values are kept in mutable refs anywhere in a program."""
    variables = (v for eqn in jaxpr.eqns for v in (*eqn.invars, *eqn.outvars))
    return any(type(v.aval).__name__ == "AbstractRef" for v in variables) or any(
        has_refs(body) for eqn in jaxpr.eqns for body in programs_in(eqn)
    )


def is_permuting(eqn: Any) -> bool:
    """Whether a reshape puts the axes in another order first, as `jax.lax.reshape` can."""
    return eqn.params.get("dimensions") is not None and eqn.primitive.name == "reshape"


def name_of(eqn: Any) -> str | None:
    """The name of the function that a call is one of; None of another equation."""
    if eqn.primitive.name == "custom_jvp_call":  # around a call that has the name
        inner = [inner for body in programs_in(eqn) for inner in body.eqns]
        return name_of(inner[0]) if len(inner) == 1 else None
    return param(eqn, "name") if eqn.primitive.name in ("jit", "pjit") else None


def place_of(eqn: Any) -> str:
    """The line that made an equation, "model.py:31 (attend)"; "" where JAX knows of none."""
    frames = getattr(eqn.source_info.traceback, "frames", ())
    own = (f for f in frames if not f.file_name.startswith(NOT_THE_USER))
    return next((f"{Path(f.file_name).name}:{f.line_num} ({f.function_name})" for f in own), "")


def is_variable(v: Any) -> bool:
    """Tells a variable of a program from a literal."""
    return not isinstance(v, jex.Literal)


def is_dropped(v: Any) -> bool:
    """Tells a result that nobody uses; its type is public in some versions only."""
    return type(v).__name__ == "DropVar"


def alone(eqn: Any) -> Any:
    """An equation as a program of its own, whose arguments are its variables, each once."""
    return _nothing().replace(
        invars=list(dict.fromkeys(v for v in eqn.invars if is_variable(v))),
        outvars=eqn.outvars,
        eqns=[eqn],
        effects=eqn.effects,
    )


def made_by(eqn: Any, values: dict[Any, Any]) -> dict[Any, Any]:
    """The results of an equation, from the values of variables."""
    program = alone(eqn)
    outputs = jax.core.eval_jaxpr(program, (), *(values[v] for v in program.invars))
    return dict(zip(eqn.outvars, outputs, strict=True))


def apart(eqn: Any, avals: Sequence[Any]) -> Any:
    """The same for operands of its own, which may have other shapes."""
    operands = [jex.Var(aval) for aval in avals]
    return alone(eqn.replace(invars=operands))


@functools.cache
def _nothing() -> Any:
    """The empty program, since what a program is made of differs between versions."""
    return jax.make_jaxpr(lambda: ())().jaxpr
