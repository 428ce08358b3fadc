"""Long loops: in chunks that set their memory, over what is live, shared by a mesh's devices."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from jaxcam._src.cut import hoisted

PROBES = "probes"  # the axis of a mesh whose devices share a loop
_Result = TypeVar("_Result")


def mapped(f: Callable[[Any], _Result], xs: Shaped[Array, "n ..."], chunk_size: int) -> _Result:
    """`f` of each of `xs`, `chunk_size` of them at once on each device; a pytree of `[n, ...]`.

    Raises:
      ValueError: `chunk_size` is below 1.
    """
    check_counts(chunk_size=chunk_size)

    def run(own: Array) -> _Result:
        at_once = min(chunk_size, max(len(own), 1))
        return jax.lax.map(f, own, batch_size=at_once)

    return _dealt(run, xs)


def mapped_where(
    f: Callable[[Array], Array],
    xs: Shaped[Array, "n ..."],
    live: Bool[Array, " n"],
    known: Any,
    chunk_size: int,
) -> Shaped[Array, " n"]:
    """`f` of each of `xs`, a scalar, which is `known` where they are not live.

    What is not live costs nothing: the loop ends after the last live chunk (under `vmap`, of the
    image with most of them). No loop of unknown length has a reverse derivative, so a derivative
    goes through all of `xs`, live or not.

    Raises:
      ValueError: `chunk_size` is below 1.
    """
    check_counts(chunk_size=chunk_size)
    pure, closed_over = hoisted(f, jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype))
    return _live_first(pure, chunk_size, closed_over, xs, live, known)


def check_counts(**counts: int) -> None:
    """Refuses a knob that counts something and is below 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it is a count, so choose 1 or more")


# The arguments are explicit, since a rule of differentiation must close over no traced value.
@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _live_first(
    pure: Callable, chunk_size: int, closed_over: Any, xs: Array, live: Array, known: Any
) -> Array:
    order = jnp.argsort(~live, stable=True)

    def run(own: tuple[Array, Array]) -> Array:
        (own_xs, own_live), size = own, _evenly(len(own[1]), chunk_size)
        count, out = own_live.sum(), jax.eval_shape(pure, closed_over, xs[0])

        def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
            start, found = state  # slices stay inside: the last may overlap the one before
            chunk = jax.lax.dynamic_slice_in_dim(own_xs, start, size)
            new = jax.vmap(functools.partial(pure, closed_over))(chunk)
            return start + size, jax.lax.dynamic_update_slice_in_dim(found, new, start, 0)

        state = jnp.zeros_like(count), jnp.zeros(own_live.shape, out.dtype)
        return jax.lax.while_loop(lambda state: state[0] < count, step, state)[1]

    found = _dealt(run, (xs[order], live[order]))
    found = jnp.zeros_like(found).at[order].set(found)
    return jnp.where(live, found, jnp.asarray(known, found.dtype))


def _evenly(n: int, chunk_size: int) -> int:
    """The size of equal chunks, as few as can be: 17 in chunks of up to 16 are 9 and 9."""
    return -(-n // max(1, -(-n // chunk_size)))


@_live_first.defjvp
def _through_all(pure: Callable, chunk_size: int, primals: tuple, tangents: tuple) -> Any:
    def run(closed_over: Any, xs: Array) -> Array:
        return mapped(functools.partial(pure, closed_over), xs, chunk_size)

    return jax.jvp(run, primals[:2], tangents[:2])


def _dealt(run: Callable[[Any], _Result], xs: PyTree) -> _Result:
    """`run` of all entries, of which each device along the axis of probes takes its share."""
    if PROBES not in jax.sharding.get_abstract_mesh().manual_axes:
        return run(xs)
    devices, n = jax.lax.axis_size(PROBES), len(jax.tree.leaves(xs)[0])
    # Like cards, so that what is sorted is shared evenly. The last round may deal one twice.
    hand = jnp.arange(-(-n // devices)) * devices + jax.lax.axis_index(PROBES)
    found = run(jax.tree.map(lambda x: x[jnp.minimum(hand, n - 1)], xs))
    rounds = jax.lax.all_gather(found, PROBES, axis=1)
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:n], rounds)
