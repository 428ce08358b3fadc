"""What a function's program proves about its derivatives, and what they cost therefore."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from jaxcam._src import shown
from jaxcam._src.cut.programs import place_of
from jaxcam._src.derivatives.structure.fed_back import FedBack
from jaxcam._src.derivatives.structure.plan import (
    Case,
    Dense,
    Gated,
    Linear,
    LinearFirst,
    Local,
    Plan,
    Pooled,
    meeting,
    plan,
)
from jaxcam._src.derivatives.structure.pools import LocalPooled
from jaxcam._src.derivatives.structure.program import Program, depends
from jaxcam._src.names import brief

__all__ = [
    "Dense",
    "FedBack",
    "Gated",
    "Linear",
    "LinearFirst",
    "Local",
    "LocalPooled",
    "Plan",
    "Pooled",
    "Structure",
    "check",
    "depends",
    "plan",
    "structure",
]


@dataclasses.dataclass(frozen=True)
class Structure:
    """What was proved of a function. Prints in one line.

    Attributes:
      kind: "piecewise linear", "pooled first", "local", "local, then pooled",
        "local but for a gate, then pooled", "local but for pools fed back, then pooled",
        "piecewise linear first" or "dense"; see `jaxcam.derivatives`.
      size: of the point, in numbers.
      directions: along which the derivatives are evaluated, beside one gradient.
      position_colours: groups of positions; those of one group share a direction.
      channel_colours: groups of channels; those of one group share a direction.
      forward: JAX can differentiate the function in forward mode (no `custom_vjp`).
      reverse: JAX can differentiate it in reverse mode (no `while_loop`).
      opaque: primitives without a rule, of which the worst was assumed.
      meeting: of a dense function, the equation in which all of its argument meets, and its line.
      then: for "pooled first", the structure of what follows the pool.
    """

    kind: str
    size: int
    directions: int
    position_colours: int = 1
    channel_colours: int = 1
    forward: bool = True
    reverse: bool = True
    opaque: frozenset[str] = frozenset()
    meeting: str = ""
    then: "Structure | None" = None

    def __str__(self) -> str:
        """One line: what was proved, and its price."""
        price = f"{self.directions:,} direction{'s' * (self.directions != 1)}"
        instead = f"{price} instead of {self.size:,}"
        if self.kind == "piecewise linear":
            return "piecewise linear: one gradient"
        if self.then and self.then.kind != "dense":
            return f"pooled first to {self.then.size:,} of {self.size:,} numbers; {self.then}"
        if self.position_colours > 1 or self.kind.startswith("local"):
            colours = (
                "1 colour" if self.position_colours == 1 else f"{self.position_colours} colours"
            )
            return f"{self.kind}, {colours}: {instead}"
        if self.kind == "dense":
            because = f" (no rule for {', '.join(sorted(self.opaque))})" if self.opaque else ""
            meeting = f"; all meet in {self.meeting}" if self.meeting else ""
            return f"dense: {price}{because}{meeting}"
        return f"{self.kind}: {instead}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return shown.title(str(self)) + shown.table(vars(self))


def structure(f: Callable[[Array], Array], x: ArrayLike | jax.ShapeDtypeStruct) -> Structure:
    """Says what the program of `f` proves about its derivatives. Traces; computes nothing.

    The proof is sound: what cannot be proved is not assumed. It reads shapes and primitives, no
    numbers, so it holds for every `x` of this shape, and works under `jit` and `vmap`.

    Args:
      f: a scalar function of `x`.
      x: `[*positions, channels]`, an array or a `jax.ShapeDtypeStruct`.

    Returns:
      The record; `print` shows it in one line.

    Raises:
      ValueError: `x` is no floating-point array, or `f(x)` is no real scalar.

    >>> print(jaxcam.structure(lambda x: jnp.exp(x).sum(), jnp.ones((8, 8, 4))))
    local, 1 colour: 1 direction instead of 256
    >>> tap = jaxcam.tap(apply_fn, "stage3", variables, image)  # of a model, what follows a layer
    >>> print(jaxcam.structure(tap.score_activations, tap.activations))
    piecewise linear: one gradient
    """
    check(f, x)
    found = []

    def look(x):
        found.append(_describe(plan(f, x)))
        return jnp.zeros(())

    jax.eval_shape(look, x)
    return found[0]


def check(f: Callable[[Array], Array], x: ArrayLike | jax.ShapeDtypeStruct) -> None:
    """Refuses what is no scalar function of floating-point numbers."""
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"derivatives at a point of dtype {dtype}; wanted floating-point numbers")
    value = jax.eval_shape(f, x)
    is_scalar = getattr(value, "shape", None) == ()
    if not (is_scalar and jnp.issubdtype(value.dtype, jnp.floating)):
        raise ValueError(
            f"derivatives of a function that returned {brief(value)}; wanted a real scalar, such "
            "as the score that jaxcam.tap(...).score_activations makes of activations"
        )


def _describe(planned: Plan) -> Structure:
    program, case = planned.program, planned.case
    outcome = program.outcome
    size = program.point.aval.size
    then, directions = None, planned.directions
    if isinstance(case, Pooled):
        then = structure(program.after(case.waist), program.values[case.waist])
        directions = then.directions
    return Structure(
        _KINDS[type(planned.case)],
        size,
        directions,
        forward=outcome.forward,
        reverse=outcome.reverse,
        opaque=outcome.opaque,
        meeting=_meeting(program) if isinstance(case, Dense) else "",
        then=then,
        **_colours(case),
    )


def _colours(case: Case) -> dict[str, int]:
    match case:
        case Gated(rest=rest) | FedBack(pools=[*_, rest]):
            return _colours(rest)
        case Local() | LocalPooled():
            counts = case.positions.count, case.channels.count
            return dict(zip(("position_colours", "channel_colours"), counts, strict=True))
        case _:
            return {}


def _meeting(program: Program) -> str:
    eqn = meeting(program)
    place = place_of(eqn) if eqn else ""
    return f"`{eqn.primitive.name}`{f' at {place}' if place else ''}" if eqn else ""


_KINDS: dict[type[Case], str] = {
    Linear: "piecewise linear",
    Pooled: "pooled first",
    Local: "local",
    LocalPooled: "local, then pooled",
    Gated: "local but for a gate, then pooled",
    FedBack: "local but for pools fed back, then pooled",
    LinearFirst: "piecewise linear first",
    Dense: "dense",
}
