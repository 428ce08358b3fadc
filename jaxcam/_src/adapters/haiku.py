"""Haiku functions as apply functions."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PyTree

from jaxcam._src.adapters.functions import check_call, from_function
from jaxcam._src.adapters.interceptor import interceptor
from jaxcam._src.base import ApplyFn
from jaxcam._src.extras import extra


def from_haiku(
    transformed: Any,
    *,
    rng: Any = None,
    channels: str = "last",
    inputs_fn: Callable[..., Any] | None = None,
    output_fn: Callable[[Any], Any] | None = None,
    **call_kwargs: Any,
) -> ApplyFn:
    """Makes an apply function of a transformed Haiku function, which stays as it is.

    Layers are named by the path of their module, without the `~` that marks what `__init__` has
    made, "res_net50/block_group_3/block_2"; what another method than `__call__` returns is
    "encoder:embed". Inside of `hk.lift` and `hk.experimental.layer_stack` paths begin anew. The
    function sees a batch of one image.

    Args:
      transformed: what `hk.transform` or `hk.transform_with_state` returns, with or without
        `hk.without_apply_rng`. Of `hk.multi_transform`, one function:
        `hk.Transformed(multi.init, multi.apply.classify)`.
      rng: a PRNG key, for a function that draws random numbers; one in evaluation needs none.
      channels: "first" where the function takes `[1, C, *spatial]`, as in `jaxcam.from_function`.
      inputs_fn: what the function takes beside an image, as in `jaxcam.from_function`.
      output_fn: takes the logits `[1, classes]` out of what the function returns.
      **call_kwargs: reach the function, such as `is_training=False`.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`, with the params that
      `transformed.init` returns as `variables`, or the pair `(params, state)` of
      `hk.transform_with_state`. A new state is left out.

    Raises:
      ValueError: `transformed` is something else, or takes no `rng`; by `apply_fn`, where the
        variables or the arguments do not fit it, or where a module is in training mode without
        `rng`.

    >>> import haiku as hk
    >>> network = hk.transform(lambda x: hk.Conv2D(8, 3)(x).mean((1, 2)))
    >>> params = network.init(jax.random.key(0), image[None])
    >>> jaxcam.explainer(jaxcam.from_haiku(network), "conv2_d")(params, image).heatmap.shape
    (64, 64)
    """
    with extra("haiku"):
        import haiku as hk

    if not isinstance(transformed, hk.Transformed | hk.TransformedWithState):
        raise ValueError(
            f"from_haiku got {type(transformed).__name__}; wanted what hk.transform or "
            "hk.transform_with_state returns, or of hk.multi_transform one function: "
            "hk.Transformed(multi.init, multi.apply.classify)"
        )
    has_state = isinstance(transformed, hk.TransformedWithState)
    keys = (rng,) if _takes_rng(transformed, after=1 + has_state) else ()
    if rng is not None and not keys:
        raise ValueError(
            "from_haiku got rng= for a function without one; leave it out, or leave out "
            "hk.without_apply_rng"
        )

    def run(variables: PyTree, *inputs: Any) -> Any:
        _check_variables(variables, has_state)
        given = variables if has_state else (variables,)
        function = _of_inputs(transformed, *given, *keys)
        check_call(function, inputs, call_kwargs, "from_haiku")
        modes = hk.intercept_methods(_evaluating) if rng is None else contextlib.nullcontext()
        with modes, hk.intercept_methods(interceptor(_name)), _in_one_line():
            output = function(*inputs, **call_kwargs)
        return output[0] if has_state else output

    return from_function(run, channels=channels, inputs_fn=inputs_fn, output_fn=output_fn)


def _takes_rng(transformed: Any, *, after: int) -> bool:
    """Whether a key follows as many variables; after `hk.without_apply_rng` none does."""
    return list(inspect.signature(transformed.apply).parameters)[after : after + 1] == ["rng"]


def _of_inputs(transformed: Any, *given: Any) -> Callable[..., Any]:
    """The function of its inputs alone, with their signature as its users know it."""
    function: Any = functools.partial(transformed.apply, *given)
    signature = inspect.signature(function)
    function.__signature__ = signature.replace(return_annotation=inspect.Signature.empty)
    function.__qualname__ = "the function"
    return function


def _check_variables(variables: Any, has_state: bool) -> None:
    parts = variables if has_state and isinstance(variables, tuple) else (variables,)
    if len(parts) != 1 + has_state or not all(isinstance(part, Mapping) for part in parts):
        pair = "pair (params, state) of hk.transform_with_state"
        raise ValueError(
            f"variables is a {type(variables).__name__}; wanted what transformed.init returned, "
            f"the {pair if has_state else 'params of hk.transform'}"
        )


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """What Haiku says of variables and keys that do not fit, with what to do."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        if "non-None PRNGKey" in said:
            raise ValueError(
                "the function draws random numbers; let it evaluate, often with "
                "from_haiku(transformed, is_training=False), or give rng="
            ) from error
        if said.startswith(("Unable to retrieve", "No value for")) or "retrieved shape" in said:
            raise ValueError(
                f"variables do not fit the function or the image ({said.rstrip('.?')}); wanted "
                "what transformed.init returned for such an image"
            ) from error
        raise


def _evaluating(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Refuses training mode where a module is told of it."""
    if not any(x is True for x in (*args, *kwargs.values())):  # most calls, without a signature
        return next_fn(*args, **kwargs)
    names = inspect.signature(context.orig_method).parameters
    if (dict(zip(names, args, strict=False)) | kwargs).get("is_training") is True:
        raise ValueError(
            f"{context.module.module_name} is in training mode (is_training=True); let it "
            "evaluate, often with from_haiku(transformed, is_training=False), or give rng= where "
            "it must train"
        )
    return next_fn(*args, **kwargs)


def _name(module: Any, method: str) -> str | None:
    """The layer's name. None for what Haiku itself calls, and for helpers."""
    import haiku as hk

    is_helper = method.startswith("_") or hasattr(hk.Module, method)  # such as params_dict
    if is_helper and method != "__call__":
        return None
    path = module.module_name.replace("/~/", "/")
    return path + ("" if method == "__call__" else f":{method}")
