"""Equinox modules as apply functions."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxcam._src.adapters.functions import check_call, from_function
from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import maker_of, tag
from jaxcam._src.extras import extra

_ARRAYS = jax.Array, np.ndarray, jax.ShapeDtypeStruct


def from_equinox(
    model: Any,
    state: Any = None,
    *,
    method: Callable[..., Any] | str | None = None,
    training: bool = False,
    batch: bool = False,
    channels: str = "first",
    inputs_fn: Callable[..., Any] | None = None,
    output_fn: Callable[[Any], Any] | None = None,
    **call_kwargs: Any,
) -> tuple[ApplyFn, PyTree]:
    """Makes an apply function of an Equinox module, which stays as it is, and its variables.

        apply_fn, variables = jaxcam.from_equinox(model)
        apply_fn, variables = jaxcam.from_equinox(model, state)

    Layers are named by path in the pytree, "blocks/0/conv1"; a layer stored within
    `eqx.filter_checkpoint` or `eqx.filter_vmap` is "block/_fun", where "block" is what that
    returns. Functions and static fields are no layers. The module sees one image, in inference
    mode.

    A layer lies as the program shows, also under `jax.vmap`; where it shows nothing, arrays with as
    many axes as the image have their channels first, and mapped axes come before the others. Of
    signals with a class token say so by `jaxcam.token_grid(apply_fn, layer, extra=1)`.

    Args:
      model: an `equinox.Module`. Its arrays may be `jax.ShapeDtypeStruct`s, to list layers.
      state: the `eqx.nn.State` of a model with stateful layers, such as BatchNorm. The model then
        takes it by the name `state`, else after its inputs, and may return it beside the logits.
      method: what to call instead of `__call__`: its name, or the unbound function.
      training: whether layers keep the mode they are in, such as dropout for Monte Carlo.
      batch: whether the module takes and returns a batch, which is one image here.
      channels: "first" where the module takes `[C, *spatial]`, as in `jaxcam.from_function`,
        "last" where it takes `[*spatial, C]`; layers are seen with channels last in both.
      inputs_fn: what the module takes beside an image, as in `jaxcam.from_function`.
      output_fn: takes the logits `[classes]` out of what the module returns, less the state.
      **call_kwargs: reach the module, such as `key=`.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`, and `variables`: the arrays
      `(of the model, of the state)`, the same as `eqx.filter((model, state), eqx.is_array)`. Where
      they have integers, as statistics do, `eqx.filter_grad` takes the place of `jax.grad`.

    Raises:
      ValueError: `model` is no module that can be called, or `state` does not fit it; by
        `apply_fn`, where the variables or the arguments do not fit.

    >>> import equinox as eqx
    >>> conv = eqx.nn.Conv2d(1, 8, 3, key=jax.random.key(0))
    >>> pool = eqx.nn.Lambda(lambda x: x.mean((1, 2)))
    >>> apply_fn, variables = jaxcam.from_equinox(eqx.nn.Sequential([conv, pool]))
    >>> jaxcam.explainer(apply_fn, "layers/0")(variables, image).heatmap.shape
    (64, 64)
    """
    with extra("equinox"):
        import equinox as eqx

    _check_module(model, method)
    _check_state(model, state)
    model = _without_jit(model)
    model = model if training else _evaluating(model)
    variables, static = eqx.partition((model, state), lambda x: isinstance(x, _ARRAYS))
    structure = jax.tree.structure(variables)

    def run(given: PyTree, *inputs: Any) -> Any:
        _check_variables(given, structure)
        module, own_state = eqx.combine(given, static)  # a new State: each is used once
        module = _tagged(module)
        call = method if callable(method) else getattr(type(module), method or "__call__")
        arguments, keywords = _with_state(call, inputs, call_kwargs, own_state)
        check_call(call, (module, *arguments), keywords, "from_equinox")
        return _without_state(call(module, *arguments, **keywords))

    apply_fn = from_function(
        run, batch=batch, channels=channels, inputs_fn=inputs_fn, output_fn=output_fn
    )
    return apply_fn, variables


# What comes in and goes out


def _check_module(model: Any, method: Any) -> None:
    import equinox as eqx

    if not isinstance(model, eqx.Module):
        maker = maker_of(model) or "a plain function needs jaxcam.tag"
        raise ValueError(
            f"from_equinox got {type(model).__name__}; wanted an equinox.Module, and its state "
            f"beside it where it has one ({maker})"
        )
    if method is None and not callable(model):
        raise ValueError(
            f"from_equinox got {type(model).__name__}, which has no __call__; give method="
        )


def _check_state(model: Any, state: Any) -> None:
    import equinox as eqx

    def is_index(x: Any) -> bool:
        return isinstance(x, eqx.nn.StateIndex)

    is_stateful = any(map(is_index, jax.tree.leaves(model, is_leaf=is_index)))
    if not isinstance(state, eqx.nn.State if is_stateful else eqx.nn.State | None):
        came = "no state" if state is None else f"{type(state).__name__} as its state"
        raise ValueError(
            f"from_equinox got {type(model).__name__} with {came}; wanted from_equinox(model, "
            "state) after `model, state = eqx.nn.make_with_state(Model)(...)`"
        )


def _check_variables(variables: PyTree, wanted: Any) -> None:
    if jax.tree.structure(variables) != wanted:
        raise ValueError(
            f"variables is a {type(variables).__name__} that does not fit the model; wanted what "
            "from_equinox returned, or of a model with other weights "
            "eqx.filter((model, state), eqx.is_array)"
        )


def _with_state(
    call: Any, inputs: tuple[Any, ...], keywords: dict[str, Any], state: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if state is None:
        return inputs, keywords
    if "state" in inspect.signature(call).parameters:
        return inputs, {**keywords, "state": state}
    return (*inputs, state), keywords


def _without_state(output: Any) -> Any:
    import equinox as eqx

    if not isinstance(output, tuple):
        return output
    kept = [x for x in output if not isinstance(x, eqx.nn.State)]
    if len(kept) == len(output):
        return output
    return kept[0] if len(kept) == 1 else tuple(kept)


# The layers inside


def _evaluating(model: Any) -> Any:
    import equinox as eqx

    try:
        return eqx.nn.inference_mode(model)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"eqx.nn.inference_mode cannot change {type(model).__name__} ({error}), perhaps as "
            "`inference` is a static field; set it where the model is made, and say "
            "from_equinox(model, training=True)"
        ) from error


def _without_jit(tree: PyTree) -> PyTree:
    """Modules in place of what `eqx.filter_jit` made of them, in which no pytree shows layers."""
    import equinox as eqx

    kind: Any = type(eqx.filter_jit(lambda: None))

    def unwrapped(x: Any) -> Any:
        is_layer = isinstance(x, kind) and isinstance(x.__wrapped__, eqx.Module)
        return _without_jit(x.__wrapped__) if is_layer else x

    return jax.tree.map(unwrapped, tree, is_leaf=lambda x: isinstance(x, kind))


def _tagged(node: Any, path: tuple[Any, ...] = ()) -> Any:
    """A private copy whose layers tag what they return, in a program within the program too."""
    import equinox as eqx

    def is_child(x: Any) -> bool:
        return isinstance(x, eqx.Module) and x is not node

    children, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=is_child)
    copy = structure.unflatten(
        [_tagged(x, (*path, *keys)) if is_child(x) else x for keys, x in children]
    )
    if path and callable(copy):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        tagging = object.__new__(_tagging_class(type(copy), name))
        vars(tagging).update(vars(copy))
        return tagging
    return copy


class _Unlisted:
    """Spares a class its `__init_subclass__`, which might list all models of a program."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        pass


@functools.cache
def _tagging_class(cls: type, name: str) -> type:
    """A subclass that also tags what `__call__` returns. Cached: jit compares classes."""

    def call(self, *args, **kwargs):
        return _tag_arrays(cls.__call__(self, *args, **kwargs), name)

    body = {"__call__": call, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls)(cls.__name__, (_Unlisted, cls), body)


def _tag_arrays(output: PyTree, name: str) -> PyTree:
    """Tags all but a state and layers, which `eqx.nn.Shared` returns."""
    import equinox as eqx

    if isinstance(output, jax.Array):  # the usual case, and a partition is slow
        return tag(output, name)

    def is_other(x: Any) -> bool:
        return isinstance(x, eqx.nn.State) or (isinstance(x, eqx.Module) and callable(x))

    others, arrays = eqx.partition(output, is_other, is_leaf=is_other)
    return eqx.combine(tag(arrays, name), others, is_leaf=is_other)
