"""Naming what a module's methods return, where a framework lets its calls be intercepted."""

from collections.abc import Callable
from typing import Any

from jaxcam._src.cut import tag


def interceptor(name_fn: Callable[[Any, str], str | None]) -> Callable[..., Any]:
    """Makes an interceptor of Flax linen or of Haiku that tags what methods return.

    Args:
      name_fn: `(module, method) -> name` of the layer; None for what is no layer.

    Returns:
      `(next_fn, args, kwargs, context) -> output`, for one run of a model.
    """
    running = []

    def intercept(next_fn, args, kwargs, context):
        name = name_fn(context.module, context.method_name)
        # `super().__call__` is intercepted too, and is the same layer.
        if name is None or name in running:
            return next_fn(*args, **kwargs)
        running.append(name)
        try:
            output = next_fn(*args, **kwargs)
        finally:
            running.pop()
        return tag(output, name)

    return intercept
