"""In which order a program uses what it is given."""

from typing import Any

import jax
from jaxtyping import PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.opened import opened
from jaxcam._src.cut.programs import is_variable


def first_uses(apply_fn: ApplyFn, variables: PyTree, image: Any) -> dict[int, int]:
    """For each leaf of the variables that is used, where in the program it first meets the image.

    What is made of variables alone, such as a cast, does not count as their use.
    """
    program, constants = opened(jax.make_jaxpr(apply_fn)(variables, image))
    given, count = program.invars[len(constants) :], len(jax.tree.leaves(variables))
    made_of = {v: {place} for place, v in enumerate(given[:count])}
    seeing, used = {*given[count:]}, {}
    for number, eqn in enumerate(program.eqns):
        inputs = [v for v in eqn.invars if is_variable(v)]
        places = set().union(*(made_of.get(v, ()) for v in inputs))
        if seeing.isdisjoint(inputs):
            made_of |= dict.fromkeys(eqn.outvars, places)
        else:
            seeing.update(eqn.outvars)
            used = dict.fromkeys(places, number) | used
    return used
