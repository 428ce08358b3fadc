"""One batch: maps and numbers, on every device of this process."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxcam._src.base import ApplyFn, Convention, Explanation, FuseFn, ScoreFn, SplitFn, WeightsFn
from jaxcam._src.compiling import compiler_options
from jaxcam._src.conventions.paper import paper
from jaxcam._src.explain import explainer
from jaxcam._src.explanations import of_one_map
from jaxcam._src.pipeline import Given
from jaxcam._src.scores import likeliest, logit
from jaxcam._src.sharding import sharded

Place: TypeAlias = str | SplitFn | Sequence[str | SplitFn]
Step: TypeAlias = Callable[[Given], PyTree]


class Found(NamedTuple):
    """What is kept of each image of a batch, `[n]` but for the maps.

    Attributes:
      cam: `[n, *spatial]`, float32.
      prediction: the class of the largest logit.
      prediction_probability: its softmax probability; NaN of a single logit.
      target: the class that was explained.
      target_probability: its softmax probability.
      target_logit: its logit.
      flat: why the map is flat, as in an `Explanation`; 0 where it is not.
      top: the likeliest classes, `[n, 5]`, or all where there are fewer; none of a single logit.
      top_probability: their softmax probabilities.
    """

    cam: Array
    prediction: Array
    prediction_probability: Array
    target: Array
    target_probability: Array
    target_logit: Array
    flat: Array
    top: Array
    top_probability: Array


_TOP = 5


def stepper(
    apply_fn: ApplyFn,
    variables: PyTree,
    makers: Sequence[tuple[Place, WeightsFn]],
    *,
    score_fn: ScoreFn = logit,
    convention: Convention = paper,
    fuse: FuseFn | None = None,
) -> Step:
    """Makes the compiled step whose batches are `Found`, one for each pair of layer and method.

    Of several layers in place of one the map is what `fuse` makes of theirs.

    Images go through together; but one at a time on each device under a method that has a
    `chunk_size`, since it fills the device by itself. Exact derivatives of Grad-CAM++ are together
    too: where the head is not piecewise linear, a smaller batch bounds their memory.
    """

    how: dict[str, Any] = {"score_fn": score_fn, "convention": convention, "fuse": fuse}

    def finder(at: Place, method: WeightsFn) -> Callable[..., Found]:
        explain = of_one_map(explainer(apply_fn, at, method, **how))

        def one(variables: PyTree, image: Array, target: Any) -> Found:
            return _found(explain(variables, image, target), score_fn)

        fills_device = "chunk_size" in inspect.signature(method).parameters
        return one_by_one(one) if fills_device else jax.vmap(one, in_axes=(None, 0, 0))

    finders = [finder(*maker) for maker in makers]

    def found(variables: PyTree, images: Array, targets: Any) -> list[Found]:
        return [find(variables, images, targets) for find in finders]

    step = on_all_devices(found, variables)
    return lambda given: step(given.images, given.targets)


def one_by_one(of_one: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function of one image as a function of many, which goes through them one at a time."""

    def of_many(variables: PyTree, images: PyTree, targets: Any) -> PyTree:
        return jax.lax.map(lambda pair: of_one(variables, *pair), (images, targets))

    return of_many


def on_all_devices(of_many: Callable[..., PyTree], variables: PyTree) -> Callable[..., PyTree]:
    """Compiles a function of many images, which the devices of this process share."""
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("images",), devices=devices)
    step = jax.jit(sharded(of_many, mesh), compiler_options=compiler_options())
    return functools.partial(step, jax.device_put(variables, jax.NamedSharding(mesh, jax.P())))


def _found(explanation: Explanation, score_fn: ScoreFn) -> Found:
    logits, target = explanation.logits.astype(jnp.float32), explanation.target
    one = len(logits) == 1  # of which a softmax is 1, whatever it is
    probabilities = jnp.full_like(logits, jnp.nan) if one else jax.nn.softmax(logits)
    first, last = likeliest(score_fn, logits), len(logits) - 1
    cam = explanation.cam.astype(jnp.float32)
    of_target = jnp.minimum(target, last)  # of a binary score, 1 is a target of the one logit too
    likely = probabilities[jnp.minimum(first, last)], target, probabilities[of_target]
    top_probability, top = jax.lax.top_k(probabilities, 0 if one else min(_TOP, len(logits)))
    return Found(cam, first, *likely, logits[of_target], explanation.flat, top, top_probability)
