"""Layers that nobody named: what functions such as `jax.nn.relu` return inside a model."""

import functools
from collections.abc import Callable
from typing import Any

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut.opened import Finish, opened
from jaxcam._src.cut.programs import name_of
from jaxcam._src.cut.rewritten import rewritten
from jaxcam._src.cut.tag import Layout, laid_out, tag, tag_p
from jaxcam._src.names import brief


def name_calls(apply_fn: ApplyFn, *functions: Callable[..., Any]) -> ApplyFn:
    """The same model, in which what some functions return are layers too.

    A call is named after the layer that ended last before it: with `jax.nn.relu`, "conv1:relu" is
    the activation after the layer "conv1". Calls before any layer are "relu".

    Args:
      apply_fn: `(variables, image) -> logits`, with or without tagged layers.
      *functions: functions of JAX that show in a program by their name: `jax.nn.relu`,
        `jax.nn.silu`, `jax.nn.leaky_relu`, or your own under `jax.jit`. Calls inside of a loop or
        of `jax.checkpoint` are not named.

    Returns:
      `(variables, image) -> logits`.

    Raises:
      ValueError: no function was given, or one without a name; by the result, where no call of any
        of them shows.

    >>> named = jaxcam.name_calls(apply_fn, jax.nn.relu)
    >>> [layer.name for layer in jaxcam.layers(named, variables, image)][:3]
    ['stem', 'stem_norm', 'stem_norm:relu']
    """
    names = [*map(_name, functions)]
    if not names:
        raise ValueError("name_calls got no function; wanted some, such as jax.nn.relu")

    def with_names(closed: Any, image: Any) -> tuple[Any, list[Any]]:
        before, layout, shows = "", Layout(), False

        def tag_for(eqn: Any) -> Finish | None:
            nonlocal before, layout, shows
            if eqn.primitive is tag_p:
                layer, layout = eqn.params["name"], eqn.params["lies"].layout
                before = before if layer is None else f"{layer}:"
            if name_of(eqn) not in names:
                return None
            shows = True
            is_plain = not any(layout)  # no adapter said how arrays lie
            lies = Layout(eqn.outvars[0].aval.ndim > image.ndim) if is_plain else layout
            return functools.partial(_tagged, f"{before}{name_of(eqn)}", lies)

        program = opened(closed, keep_tags=True, finish_for=tag_for)
        if not shows:
            raise ValueError(
                f"no call of {' or '.join(names)} shows in the model, outside of loops; of some "
                "functions, such as jax.nn.gelu, JAX keeps no name: call one of your own under "
                "jax.jit, or name its value by jaxcam.tag"
            )
        return program

    return rewritten(apply_fn, with_names)


def _name(function: Any) -> str:
    name = getattr(getattr(function, "func", function), "__name__", None)
    if name is None:
        raise ValueError(f"name_calls got {brief(function)}; wanted functions, such as jax.nn.relu")
    return name


def _tagged(name: str, layout: Layout, *outputs: Any) -> list[Any]:
    with laid_out(layout):
        return tag([*outputs], name)
