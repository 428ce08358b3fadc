"""Models of a framework where an apply function is wanted: the line that makes one of them."""

import inspect
from typing import Any

_MAKERS = {
    "flax.linen": "jaxcam.from_linen(module, train=False)",
    "flax.nnx": "jaxcam.from_nnx(graphdef), after graphdef, variables = flax.nnx.split(model)",
    "keras": "apply_fn, variables = jaxcam.from_keras(model)",
    "equinox": "apply_fn, variables = jaxcam.from_equinox(model), or of (model, state)",
    "haiku": "jaxcam.from_haiku(transformed)",
    "flax.training": "jaxcam.from_linen(module, train=False), and state.params as "
    '{"params": state.params}',
    "transformers": "jaxcam.from_linen(model.module, output_fn=lambda output: output.logits), and "
    "variables {'params': model.params}, or model.params where it holds 'batch_stats' too",
}


def check_apply_fn(apply_fn: Any) -> None:
    """Refuses a model or a method of it: no function of `(variables, image)`, or without layers.

    Raises:
      ValueError: with the adapter of the framework that `apply_fn` comes from.
    """
    unwrapped = inspect.unwrap(apply_fn, stop=lambda f: hasattr(f, "__self__"))
    owner = getattr(unwrapped, "__self__", unwrapped)  # of module.apply, the module
    maker = maker_of(owner)
    if maker or not callable(apply_fn):
        method = "" if owner is unwrapped else f".{unwrapped.__name__}"
        raise ValueError(
            f"apply_fn is {type(owner).__name__}{method}; wanted a function (variables, image) -> "
            f"logits with named layers: {maker or 'with jaxcam.tag, or what an adapter returns'}"
        )


def maker_of(thing: Any) -> str | None:
    """How an apply function is made of a framework's model; None of anything else."""
    if type(thing).__module__.startswith("equinox._"):
        return None  # a transformed function, such as what filter_jit returns
    modules = [f"{cls.__module__}." for cls in type(thing).__mro__]
    for framework, maker in _MAKERS.items():
        if any(module.startswith(f"{framework}.") for module in modules):
            return maker
    return None
