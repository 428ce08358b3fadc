"""Flax NNX modules as apply functions."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import PyTree

from jaxcam._src.adapters.functions import check_call, from_function
from jaxcam._src.adapters.interceptor import interceptor
from jaxcam._src.adapters.linen import name_of_linen
from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import maker_of, tag
from jaxcam._src.extras import extra


def from_nnx(
    graphdef: Any,
    *,
    method: Callable[..., Any] | str | None = None,
    training: bool = False,
    channels: str = "last",
    inputs_fn: Callable[..., Any] | None = None,
    output_fn: Callable[[Any], Any] | None = None,
    **call_kwargs: Any,
) -> ApplyFn:
    """Makes an apply function of a Flax NNX module, which stays as it is.

        graphdef, variables = nnx.split(model)
        apply_fn = jaxcam.from_nnx(graphdef)

    Layers are named by path, "blocks/0/conv1"; a module that is shared has a name per path. The
    module sees a batch of one image. Put it in evaluation with `model.eval()` before the split.
    Layers of a linen module inside, of `nnx.bridge.ToNNX`, follow the path to that.

    Args:
      graphdef: the first thing that `nnx.split(model)` returns.
      method: what to call instead of `__call__`: its name, or the unbound function.
      training: whether layers may be in training mode, such as dropout for Monte Carlo.
      channels: "first" where the module takes `[1, C, *spatial]`, as in `jaxcam.from_function`.
      inputs_fn: what the module takes beside an image, as in `jaxcam.from_function`.
      output_fn: takes the logits `[1, classes]` out of what the module returns.
      **call_kwargs: reach the module.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`, with the state that
      `nnx.split` returns as `variables`, or the tuple of its states.

    Raises:
      ValueError: `graphdef` is something else, such as the module itself; by `apply_fn`, where the
        arguments do not fit the module, or a layer is in training mode.

    >>> from flax import nnx
    >>> conv = nnx.Conv(1, 8, (3, 3), rngs=nnx.Rngs(0))
    >>> graphdef, state = nnx.split(nnx.Sequential(conv, lambda x: x.mean((1, 2))))
    >>> jaxcam.explainer(jaxcam.from_nnx(graphdef), "layers/0")(state, image).heatmap.shape
    (64, 64)
    """
    with extra("flax"):
        from flax import nnx

    if not isinstance(graphdef, nnx.GraphDef):
        maker = maker_of(graphdef)
        raise ValueError(
            f"from_nnx got {type(graphdef).__name__}; wanted the graphdef of "
            "`graphdef, variables = nnx.split(model)`" + (f" (here: {maker})" if maker else "")
        )

    find = None  # made once: graphdef says where layers are, and a search takes a fifth of a trace

    def run(variables: PyTree, *inputs: Any) -> Any:
        nonlocal find
        # A private copy, so that the caller's module keeps its classes.
        model = nnx.merge(graphdef, *_states(variables))
        find = find or _finder(model)
        for names, layer in find(model):
            tagging = _tagging_class(type(layer), names, training)
            object.__setattr__(layer, "__class__", tagging)  # a module's own checks every value
        call = method if callable(method) else getattr(type(model), method or "__call__")
        check_call(call, (model, *inputs), call_kwargs, "from_nnx")
        with _linen_inside(model):
            return call(model, *inputs, **call_kwargs)

    return from_function(run, channels=channels, inputs_fn=inputs_fn, output_fn=output_fn)


def _states(variables: PyTree) -> tuple[Any, ...]:
    from flax import nnx

    states = variables if isinstance(variables, tuple) else (variables,)
    if any(isinstance(state, nnx.Module) for state in states):
        raise ValueError(
            "variables is the module itself; wanted the state of "
            "`graphdef, variables = nnx.split(model)`"
        )
    return states


def _finder(model: Any) -> Callable[[Any], list[tuple[tuple[str, ...], Any]]]:
    """Makes what finds the layers in copies of a module, with their names: by path, else anew."""
    shared = _shared(model)
    found = [*_named_layers(model, shared)]
    places = [(path, names) for path, names, _ in found]
    if all(_at(model, path) is layer for path, _, layer in found):
        return lambda copy: [(names, _at(copy, path)) for path, names in places]
    return lambda copy: [(names, layer) for _, names, layer in _named_layers(copy, shared)]


def _at(node: Any, path: tuple) -> Any:
    """What lies at the end of a path; None where a step is neither attribute nor entry."""
    for key in path:
        own = getattr(node, "__dict__", {})
        if key in own:
            node = own[key]
        elif isinstance(node, Mapping) or (isinstance(node, Sequence) and isinstance(key, int)):
            node = node[key]
        else:
            return None
    return node


def _shared(model: Any) -> list[list[tuple]]:
    """Of each module that is shared the paths to it."""
    from flax import nnx

    return [_without_cycles(twins) for twins in nnx.find_duplicates(model)]


def _named_layers(
    model: Any, shared: list[list[tuple]]
) -> Iterator[tuple[tuple, tuple[str, ...], Any]]:
    """Every callable layer: its path, its names, one per path where it is shared, and itself."""
    from flax import nnx

    for path, layer in nnx.iter_graph(model):
        if path and isinstance(layer, nnx.Module) and callable(layer):
            names = ("/".join(map(str, alias)) for alias in _aliases(path, shared))
            yield path, tuple(names), layer


def _without_cycles(twins: list[tuple]) -> list[tuple]:
    """The paths to a shared module that do not go through the module itself."""
    return [t for t in twins if not any(t[:n] in twins for n in range(len(t)))]


def _aliases(path: tuple, shared: list[list[tuple]]) -> list[tuple]:
    """All paths to a layer: each module on its way may be shared, and the layer itself."""
    paths = [path]
    for known in paths:  # which grows
        for twins in shared:
            tails = [known[len(twin) :] for twin in twins if known[: len(twin)] == twin]
            found = dict.fromkeys((*twin, *tail) for tail in tails for twin in twins)
            paths += [alias for alias in found if alias not in paths]
    return paths


@functools.cache
def _tagging_class(cls: type, names: tuple[str, ...], training: bool) -> type:
    """A subclass that also tags what `__call__` returns. Cached: jit compares classes."""

    def call(self, *args, **kwargs):
        if not training:
            _check_evaluates(self, kwargs, names[0])
        with _linen_inside(self, f"{names[0]}/"):
            output = cls.__call__(self, *args, **kwargs)
        return functools.reduce(tag, names, output)

    body = {"__call__": call, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls)(cls.__name__, (cls,), body)


def _linen_inside(layer: Any, path: str = "") -> contextlib.AbstractContextManager:
    """Names the layers of a linen module that is wrapped as one of NNX."""
    from flax import linen, nnx

    if not isinstance(layer, nnx.bridge.ToNNX):
        return contextlib.nullcontext()

    def name(module: Any, method: str) -> str | None:
        found = name_of_linen(module, method)
        return found and path + found

    return linen.intercept_methods(interceptor(name))


def _check_evaluates(layer: Any, kwargs: dict, name: str) -> None:
    """Refuses training mode, which is what a new NNX layer is in."""
    for mode in ("use_running_average", "deterministic"):
        chosen = kwargs.get(mode)
        if (getattr(layer, mode, None) if chosen is None else chosen) is False:
            raise ValueError(
                f"layer {name!r} is in training mode ({mode}=False); call model.eval() before "
                "nnx.split(model), or say from_nnx(graphdef, training=True)"
            )
