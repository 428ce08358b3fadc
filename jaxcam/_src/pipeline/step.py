"""One batch: maps and numbers, on every device of this process."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from jaxcam._src.base import ApplyFn, Explanation, SplitFn, WeightsFn
from jaxcam._src.compiling import compiler_options
from jaxcam._src.explain import explainer
from jaxcam._src.sharding import sharded


class Found(NamedTuple):
    """What is kept of each image of a batch, `[n]` but for the maps.

    Attributes:
      cam: `[n, *spatial]`, float32.
      prediction: the class of the largest logit.
      prediction_probability: its softmax probability.
      target: the class that was explained.
      target_probability: its softmax probability.
      target_logit: its logit.
      flat: why the map is flat, as in an `Explanation`; 0 where it is not.
    """

    cam: Array
    prediction: Array
    prediction_probability: Array
    target: Array
    target_probability: Array
    target_logit: Array
    flat: Array


def stepper(
    apply_fn: ApplyFn, variables: PyTree, layer: str | SplitFn, method: WeightsFn
) -> Callable[[ArrayLike, Any], Found]:
    """Makes the compiled `(images [n, ...], targets [n] or None) -> Found`.

    Images go through together; but one at a time on each device under a method that has a
    `chunk_size`, since it fills the device by itself. Exact derivatives of Grad-CAM++ are together
    too: where the head is not piecewise linear, a smaller batch bounds their memory.
    """
    explain = explainer(apply_fn, layer, method)

    def one(variables: PyTree, image: Array, target: Any) -> Found:
        return _found(explain(variables, image, target))

    def one_by_one(variables: PyTree, images: Array, targets: Any) -> Found:
        return jax.lax.map(lambda pair: one(variables, *pair), (images, targets))

    fills_device = "chunk_size" in inspect.signature(method).parameters
    together = one_by_one if fills_device else jax.vmap(one, in_axes=(None, 0, 0))
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("images",), devices=devices)
    step = jax.jit(sharded(together, mesh), compiler_options=compiler_options())
    return functools.partial(step, jax.device_put(variables, jax.NamedSharding(mesh, jax.P())))


def _found(explanation: Explanation) -> Found:
    logits, target = explanation.logits.astype(jnp.float32), explanation.target
    top, probabilities = jnp.argmax(logits), jax.nn.softmax(logits)
    cam = explanation.cam.astype(jnp.float32)
    scores = probabilities[top], target, probabilities[target], logits[target]
    return Found(cam, top, *scores, explanation.flat)
