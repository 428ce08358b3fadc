"""Keras 3 models as apply functions."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxcam._src.adapters.functions import check_call, from_function
from jaxcam._src.base import ApplyFn
from jaxcam._src.cut import maker_of, tag, to_logits
from jaxcam._src.extras import extra

# Names of the layers that run, from the model on; None outside of our traces. Each thread has its
# own, and JAX's tracing caches know it, so that a function that is jitted in two layers gets two.
_running = jax.make_user_context(default_value=None)

# What the call of operations was, once per trace in progress, of all threads.
_originals: list[Callable[..., Any]] = []
_lock = threading.Lock()


def from_keras(
    model: Any,
    *,
    logits: bool = False,
    training: bool = False,
    channels: str | None = None,
    inputs_fn: Callable[..., Any] | None = None,
    output_fn: Callable[[Any], Any] | None = None,
    **call_kwargs: Any,
) -> tuple[ApplyFn, PyTree]:
    """Makes an apply function of a Keras 3 model on the JAX backend, which stays as it is.

        apply_fn, variables = jaxcam.from_keras(model)
        apply_fn, variables = jaxcam.from_keras(model, logits=True)  # without its softmax

    Layers are named by path, "backbone/conv1", and so are the bare operations of a functional
    model, "add_3"; runs of a shared layer are told apart by `occurrence`. The model sees a batch of
    one image.

    Args:
      model: a `keras.Model` or another `keras.Layer`, built.
      logits: whether to leave out the softmax or the sigmoid that the model ends in, as
        `jaxcam.to_logits` does.
      training: whether layers are in training mode, such as dropout for Monte Carlo. New
        statistics and seeds are dropped.
      channels: "first" where the model takes `[1, C, *spatial]`, as in `jaxcam.from_function`;
        by default, where the layers' `data_format` says so.
      inputs_fn: what the model takes beside an image, as in `jaxcam.from_function`; a functional
        model of several inputs takes one list or dict of them.
      output_fn: takes the logits `[1, classes]` out of what the model returns.
      **call_kwargs: reach the model.

    Returns:
      `apply_fn(variables, image [*spatial, C]) -> logits [classes]`, and the values that the
      variables of the model have now, in the order of Keras:
      `{"trainable": [...], "non_trainable": [...]}`, with statistics and seeds in the latter.

    Raises:
      ValueError: `model` is no Keras model, is not built, has layers of both `data_format`s, or
        Keras runs on another backend; by `apply_fn`, where the variables or the arguments do not
        fit the model.

    >>> import keras  # with KERAS_BACKEND=jax
    >>> conv = keras.layers.Conv2D(8, 3, name="conv")
    >>> layers = [keras.Input((64, 64, 1)), conv, keras.layers.GlobalAveragePooling2D()]
    >>> apply_fn, variables = jaxcam.from_keras(keras.Sequential(layers))
    >>> jaxcam.explainer(apply_fn, "conv")(variables, image).heatmap.shape
    (64, 64)
    """
    with extra("keras"):
        import keras

    _check_model(model)
    references = {
        "trainable": model.trainable_variables,
        "non_trainable": model.non_trainable_variables,
    }

    def run(variables: PyTree, *inputs: Any) -> Any:
        check_call(model.call, inputs, call_kwargs, "from_keras")
        scope = keras.StatelessScope(state_mapping=_mapping(references, variables))
        with scope, _tagging_operations(), _running(()):
            return model(*inputs, training=training, **call_kwargs)

    channels = channels or _channels(model)
    apply_fn = from_function(run, channels=channels, inputs_fn=inputs_fn, output_fn=output_fn)
    apply_fn = to_logits(apply_fn) if logits else apply_fn
    return apply_fn, jax.tree.map(lambda variable: variable.value, references)


def _check_model(model: Any) -> None:
    import keras

    if (backend := keras.config.backend()) != "jax":
        raise ValueError(
            f"Keras runs on {backend}; set the environment variable KERAS_BACKEND=jax before "
            "importing keras, and make or load the model anew"
        )
    if not isinstance(model, keras.Layer):
        maker = maker_of(model)
        raise ValueError(
            f"from_keras got {type(model).__name__}; wanted a keras.Model or another keras.Layer"
            + (f" (here: {maker})" if maker else "")
        )
    # A `build` of one's own may leave layers unbuilt, and an unused layer is unbuilt for good.
    built = model.built and (model._called or all(x.built for x in model._flatten_layers()))
    if not built:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} is not built, so it has no variables yet; call "
            "it on one batch first: model(keras.ops.zeros((1, 224, 224, 3)))"
        )


def _channels(model: Any) -> str:
    """The order of axes that the layers say they take."""
    formats = {getattr(layer, "data_format", None) for layer in model._flatten_layers()}
    formats &= {"channels_first", "channels_last"}
    if len(formats) > 1:
        raise ValueError(
            'the model has layers of data_format="channels_first" and of "channels_last"; say '
            'which one the image has: from_keras(model, channels="first") or "last"'
        )
    return "first" if "channels_first" in formats else "last"


def _mapping(references: PyTree, variables: PyTree) -> list[tuple[Any, Any]]:
    """Each variable of the model with its value."""
    if jax.tree.structure(variables) != jax.tree.structure(references):
        counts = " and ".join(f"{len(kept)} {kind}" for kind, kept in references.items())
        raise ValueError(
            f"variables is a {type(variables).__name__} of {len(jax.tree.leaves(variables))} "
            f"arrays; wanted what from_keras returned beside apply_fn, a dict of lists, {counts} "
            "(after a change of the model, call from_keras anew)"
        )
    mapping = list(zip(jax.tree.leaves(references), jax.tree.leaves(variables), strict=True))
    for variable, value in mapping:
        if jnp.shape(value) != tuple(variable.shape):
            raise ValueError(
                f"variables has an array {list(jnp.shape(value))} for {variable.path!r}; wanted "
                f"{list(variable.shape)}, as in what from_keras returned beside apply_fn"
            )
    return mapping


@contextlib.contextmanager
def _tagging_operations() -> Iterator[None]:
    """Lets operations tag what they return where `_running` says so, for the length of a trace.

    All calls of Keras end in this one: those of layers, of models and of bare operations.
    """
    import keras

    with _lock:
        original = _originals[0] if _originals else keras.Operation.__call__
        _originals.append(original)
        keras.Operation.__call__ = _tagging(original)
    try:
        yield
    finally:
        with _lock:
            _originals.pop()
            if not _originals:
                keras.Operation.__call__ = original


def _tagging(original: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    @functools.wraps(original)
    def call(operation, *args, **kwargs):
        # What is in no graph is made anew by each call of a layer, with a new name.
        lasts = isinstance(operation, keras.Layer) or operation._inbound_nodes
        if _running.value is None or not lasts:
            return original(operation, *args, **kwargs)
        path = *_running.value, operation.name
        # Others have no layers to name; JAX need not trace anew in each what all of them do alike.
        has_layers = not _running.value or getattr(operation, "_layers", None)
        with _running(path) if has_layers else contextlib.nullcontext():
            output = original(operation, *args, **kwargs)
        name = "/".join(path[1:])  # without the model
        return _masked_as(output, tag(output, name)) if name else output

    return call


def _masked_as(output: PyTree, tagged: PyTree) -> PyTree:
    """With the masks that Keras hangs on arrays: which steps of a sequence count."""
    from keras.src.backend import get_keras_mask, set_keras_mask

    for array, same in zip(jax.tree.leaves(output), jax.tree.leaves(tagged), strict=True):
        if (mask := get_keras_mask(array)) is not None:
            set_keras_mask(same, mask)
    return tagged
