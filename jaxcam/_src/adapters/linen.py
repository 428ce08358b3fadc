"""Flax linen modules as apply functions."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxtyping import PyTree

from jaxcam._src.adapters.functions import check_call, from_function
from jaxcam._src.adapters.interceptor import interceptor
from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import maker_of
from jaxcam._src.extras import extra
from jaxcam._src.names import brief


def from_linen(
    module: Any,
    *,
    method: Callable[..., Any] | str | None = None,
    rngs: Any = None,
    channels: str = "last",
    inputs_fn: Callable[..., Any] | None = None,
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
      channels: "first" where the module takes `[1, C, *spatial]`, as in `jaxcam.from_function`.
      inputs_fn: what the module takes beside an image, as in `jaxcam.from_function`.
      output_fn: takes the logits `[1, classes]` out of what the module returns; needed where
        that is more than the logits (with `mutable=`, it is `(output, updates)`).
      **apply_kwargs: reach the module, such as `train=False`.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`.

    Raises:
      ValueError: `module` is no linen module; by `apply_fn`, where the variables or the arguments
        do not fit it, or where it is in training mode.

    >>> import flax.linen as nn
    >>> network = nn.Sequential([nn.Conv(8, (3, 3)), lambda x: x.mean((1, 2))])
    >>> variables = network.init(jax.random.key(0), image[None])
    >>> jaxcam.explainer(jaxcam.from_linen(network), "layers_0")(variables, image).heatmap.shape
    (64, 64)
    """
    with extra("flax"):
        import flax.linen as nn

    if not isinstance(module, nn.Module):
        maker = maker_of(module) or "for NNX use jaxcam.from_nnx; a plain function needs jaxcam.tag"
        raise ValueError(
            f"from_linen got {type(module).__name__}; wanted a flax.linen.Module ({maker})"
        )

    of_apply = inspect.signature(nn.Module.apply).parameters

    def run(variables: PyTree, *inputs: Any) -> Any:
        call = method if callable(method) else getattr(type(module), method or "__call__")
        keywords = {name: x for name, x in apply_kwargs.items() if name not in of_apply}
        check_call(call, (module, *inputs), keywords, "from_linen")
        with nn.intercept_methods(interceptor(name_of_linen)), _in_one_line(variables, inputs):
            return module.apply(variables, *inputs, method=method, rngs=rngs, **apply_kwargs)

    return from_function(run, channels=channels, inputs_fn=inputs_fn, output_fn=output_fn)


@contextlib.contextmanager
def _in_one_line(variables: Any, inputs: tuple[Any, ...]) -> Iterator[None]:
    """What Flax says of variables or modes that do not fit, with what to do."""
    from flax import errors

    if not isinstance(variables, Mapping):
        raise ValueError(
            f"variables is a {type(variables).__name__}; wanted what module.init returned, a dict "
            "of collections, such as {'params': state.params} of a TrainState"
        )
    try:
        yield
    except (errors.ModifyScopeVariableError, errors.InvalidRngError) as error:
        raise ValueError(
            f"the module is in training mode ({_first_sentence(error)}); let it evaluate, often "
            "with from_linen(module, train=False), or give mutable= or rngs="
        ) from error
    except errors.ScopeParamShapeError as error:
        raise ValueError(
            f"the module got {brief(inputs)}, of other channels or another size than the variables "
            f"were made for, or these are of another module ({_first_sentence(error)}); give an "
            "image [*spatial, C] as to module.init, without its batch axis"
        ) from error
    except errors.FlaxError as error:
        raise ValueError(
            f"variables has the collections {list(variables)}, which do not fit the module "
            f"({_first_sentence(error)}); wanted what module.init returned, such as "
            "{'params': params, 'batch_stats': batch_stats}"
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).partition(". ")[0].partition(" (http")[0].rstrip(".")


def name_of_linen(module: Any, method: str) -> str | None:
    """The layer's name. None for the model itself, its helpers and a lifted transform's lambda."""
    import flax.linen as nn

    is_helper = method.startswith(("_", "<")) or hasattr(nn.Module, method)  # such as param
    if not module.path or (is_helper and method != "__call__"):
        return None
    return "/".join(module.path) + ("" if method == "__call__" else f":{method}")
