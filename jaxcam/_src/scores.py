"""Scores: what is explained, a scalar function of the logits and a target."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def logit(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
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


def probability(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The softmax probability of the target class, in [0, 1]. Arguments as for `logit`."""
    return jnp.exp(log_probability(logits, target))


def log_probability(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
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


def margin(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The lead of the target's logit over the best other one, negative when it does not lead.

    Arguments as for `logit`; two classes at least.
    """
    score = _pick(logits, target)
    _check_several(logits, "margin")
    others = jnp.where(jnp.arange(len(logits)) == target, -jnp.inf, logits)
    # The maximum of many logits can lose a NaN on CPU.
    return jnp.where(jnp.isnan(logits).any(), jnp.nan, score - others.max())


def finer(
    logits: Float[Array, "*classes"], target: Any, *, gamma: float = 0.6, references: int = 3
) -> Float[Array, ""]:
    """Finer-CAM: the target's logit less those of the classes that the model confuses it with.

    `y_c - gamma mean(y_d)` over the classes `d` whose logits are nearest to the target's (Zhang
    et al. 2025, https://arxiv.org/abs/2501.11309). Under a gradient method the map shows
    what tells the target from its lookalikes.

    Args:
      logits: one number per class, two at least.
      target: index of the class.
      gamma: strength of the comparison; 0 is `logit`.
      references: how many classes are compared; all others where there are fewer.

    Raises:
      ValueError: there is one logit, `references` is below 1, or as for `logit`.
    """
    score = _pick(logits, target)
    _check_several(logits, "finer")
    if references < 1:
        raise ValueError(f"references is {references}; it counts classes, so choose 1 or more")
    distance = jnp.where(jnp.arange(len(logits)) == target, jnp.inf, abs(logits - score))
    nearest = jax.lax.top_k(-distance, min(references, len(logits) - 1))[1]
    return score - gamma * logits[nearest].mean()


def rest(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """ReST, the score of ShapleyCAM: `logit + log_probability` (Cai 2025).

    It is smooth where the logit is piecewise linear, and moves with it where the probability is
    saturated (https://arxiv.org/abs/2501.06261). Arguments and errors as for `logit`.
    """
    return logit(logits, target) + log_probability(logits, target)


def _check_several(logits: Array, name: str) -> None:
    if len(logits) < 2:
        raise ValueError(f"{name} compares classes, and there is one logit; use jaxcam.logit")


def _pick(values: Any, target: Any) -> Float[Array, ""]:
    if getattr(values, "ndim", None) != 1:
        raise ValueError(
            f"the model returned {jax.tree.map(jnp.shape, values)}; wanted logits [classes] for "
            "one image. For a batch of images use jax.vmap(explain, in_axes=(None, 0)); else let "
            "apply_fn return the logits (adapters: output_fn=), or pass a score_fn of your own"
        )
    if not jnp.issubdtype(getattr(target, "dtype", type(target)), jnp.integer):
        raise ValueError(f"target is {target!r}; wanted the index of a class, an integer")
    index = jnp.asarray(target)
    # A factor, so that the gradient is NaN where the score is: a wrong target shows in the map.
    known = jnp.where((index >= 0) & (index < len(values)), 1, jnp.nan).astype(values.dtype)
    return known * values[index]
