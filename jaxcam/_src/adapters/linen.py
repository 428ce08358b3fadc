"""Flax linen modules as apply functions."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import batch_of_one, tag, without_batch
from jaxcam._src.extras import extra


def from_linen(
    module: Any,
    *,
    method: Callable[..., Any] | str | None = None,
    rngs: Any = None,
    output_fn: Callable[[Any], Any] | None = None,
    **apply_kwargs: Any,
) -> ApplyFn:
    """Makes an apply function of a Flax linen module, which stays as it is.

    Layers are named by path, "stage4/block2/conv1"; what another method than `__call__` returns
    is "encoder:embed". The module sees a batch of one image.

    Args:
      module: a `flax.linen.Module`.
      method: what to call instead of `__call__`, as in `module.apply`.
      rngs: PRNG keys, as in `module.apply`; a model in evaluation needs none.
      output_fn: takes the logits `[1, classes]` out of what the module returns; needed where
        that is more than the logits (with `mutable=`, it is `(output, updates)`).
      **apply_kwargs: reach the module, such as `train=False`.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`.

    Raises:
      ValueError: `module` is no linen module.
    """
    with extra("flax"):
        import flax.linen as nn

    if not isinstance(module, nn.Module):
        raise ValueError(
            f"from_linen got {type(module).__name__}; wanted a flax.linen.Module (for NNX use "
            "jaxcam.from_nnx; a plain function needs no adapter, only jaxcam.tag)"
        )

    def apply_fn(variables: PyTree, image: Array) -> PyTree:
        with batch_of_one(), nn.intercept_methods(_interceptor()):
            output = module.apply(variables, image[None], method=method, rngs=rngs, **apply_kwargs)
        return jax.tree.map(without_batch, output_fn(output) if output_fn else output)

    return apply_fn


def _interceptor() -> Callable[..., Any]:
    running = []

    def intercept(next_fn, args, kwargs, context):
        name = _name(context.module.path, context.method_name)
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


def _name(path: tuple[str, ...], method: str) -> str | None:
    """The layer's name. None for the model itself, its helpers and a lifted transform's lambda."""
    if not path or (method.startswith(("_", "<")) and method != "__call__"):
        return None
    return "/".join(path) + ("" if method == "__call__" else f":{method}")
