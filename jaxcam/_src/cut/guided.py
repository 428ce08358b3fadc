"""Guided backpropagation: a function whose every ReLU passes back positive gradients only."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float

from jaxcam._src.cut.opened import Finish, opened
from jaxcam._src.cut.programs import CALLS, is_variable, programs_in
from jaxcam._src.cut.tag import tag_p


def guided(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The same function, with another gradient.

    At every ReLU and ReLU6 the backward pass drops what is negative (Springenberg et al. 2015,
    section 3, https://arxiv.org/abs/1412.6806).

    Raises:
      ValueError: by the result, where there is no ReLU, or one inside a loop or a branch.
    """

    def with_gates(x: Float[Array, "*shape"]) -> Array:
        closed = jax.make_jaxpr(f)(x)
        gated = 0

        def gate_for(eqn: Any) -> Finish | None:
            nonlocal gated
            gated += _is_relu(eqn)
            return _gate if _is_relu(eqn) else None

        program, constants = opened(closed, CALLS, finish_for=gate_for)
        (result,) = jax.core.eval_jaxpr(program, (), *constants, x)
        found = _count_relus(closed.eqns)
        if not found or gated < found:
            raise ValueError(
                f"guided backpropagation changes ReLUs, and of {found} in the model {gated} can be "
                "reached; it wants jax.nn.relu, jax.nn.relu6 or jax.numpy.maximum(x, 0), outside "
                "of scan, while_loop and cond"
            )
        return result

    return with_gates


@jax.custom_vjp
def _positive_gradient(x: Array) -> Array:
    return x


_positive_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (jax.nn.relu(gradient),))


def _gate(*outputs: Array) -> list[Array]:
    return [_positive_gradient(y) for y in outputs]


def _is_relu(eqn: Any) -> bool:
    """A maximum with 0; or a function with a rule of its own, made of one and of minima."""
    if eqn.primitive.name == "max":
        return any(not is_variable(v) and np.all(v.val == 0) for v in eqn.invars)
    if eqn.primitive.name != "custom_jvp_call":
        return False
    steps = [step for step in _steps(eqn) if step.primitive is not tag_p]
    return {s.primitive.name for s in steps} <= {"max", "min"} and any(map(_is_relu, steps))


def _count_relus(eqns: Iterable[Any]) -> int:
    return sum(1 if _is_relu(eqn) else _count_relus(_inner(eqn)) for eqn in eqns)


def _steps(eqn: Any) -> Iterator[Any]:
    """The equations that it comes down to, once all calls are opened."""
    inner = _inner(eqn)
    yield from itertools.chain(*map(_steps, inner)) if inner else [eqn]


def _inner(eqn: Any) -> list[Any]:
    return [inner for body in programs_in(eqn) for inner in body.eqns]
