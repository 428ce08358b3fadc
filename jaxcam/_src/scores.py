"""Scores: what is explained, a scalar function of the logits and a target."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped


def logit(logits: Float[Array, "*classes"], target: ArrayLike) -> Float[Array, ""]:
    """The logit of the target class, before any softmax: the score of most papers.

    Args:
      logits: one number per class.
      target: index of the class. A score of this module and its gradient are NaN where it lies
        outside `[0, classes)`.

    Returns:
      A scalar. It changes when a constant is added to all logits; the other three do not.

    Raises:
      ValueError: the logits are no vector, or the target is no integer.
    """
    return _pick(logits, target)


def probability(logits: Float[Array, "*classes"], target: ArrayLike) -> Float[Array, ""]:
    """The softmax probability of the target class, in [0, 1]. Arguments as for `logit`."""
    return jnp.exp(log_probability(logits, target))


def log_probability(logits: Float[Array, "*classes"], target: ArrayLike) -> Float[Array, ""]:
    """The logarithm of the softmax probability, at most 0. Arguments as for `logit`.

    It is computed from the differences to the target's logit, so that its derivatives keep their
    precision where the probability is close to 1: those of `jax.nn.log_softmax` are then small
    differences of large numbers, and lose digits.
    """
    others = logits - _pick(logits, target)  # 0 for the target itself
    lead = jax.lax.stop_gradient(jnp.maximum(others.max(), 0))
    is_target = jnp.arange(len(logits)) == target
    odds = jnp.where(is_target, 0, jnp.exp(others - lead)).sum()
    return -(lead + jnp.log1p(odds + jnp.expm1(-lead)))


def margin(logits: Float[Array, "*classes"], target: ArrayLike) -> Float[Array, ""]:
    """The lead of the target's logit over the best other one, negative when it does not lead.

    Arguments as for `logit`; two classes at least.
    """
    score = _pick(logits, target)
    if len(logits) < 2:
        raise ValueError("margin compares classes, and there is one logit; use jaxcam.logit")
    others = jnp.where(jnp.arange(len(logits)) == target, -jnp.inf, logits)
    # The maximum of many logits can lose a NaN on CPU.
    return jnp.where(jnp.isnan(logits).any(), jnp.nan, score - others.max())


def _pick(values: Shaped[Array, "..."], target: ArrayLike) -> Float[Array, ""]:
    if values.ndim != 1:
        raise ValueError(
            f"the model returned logits of shape {values.shape}; wanted [classes] for one image. "
            "For a batch use jax.vmap; else let apply_fn return that (adapters: output_fn=), or "
            "pass a score_fn of your own"
        )
    if not jnp.issubdtype(getattr(target, "dtype", type(target)), jnp.integer):
        raise ValueError(f"target is {target!r}; wanted the index of a class, an integer")
    index = jnp.asarray(target)
    # A factor, so that the gradient is NaN where the score is: a wrong target shows in the map.
    known = jnp.where((index >= 0) & (index < len(values)), 1, jnp.nan).astype(values.dtype)
    return known * values[index]
