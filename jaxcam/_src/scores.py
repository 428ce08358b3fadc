"""Scores: what is explained, a scalar function of the logits and a target.

A score knows what its target is, and refuses another one: with an error where the target is known,
and with NaN, for the score and its gradient, inside a trace. All are in float32 at least.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam._src.arithmetic import accumulated
from jaxcam._src.logits import check_several, pick, shapes_of


def logit(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The logit of the target class, before any softmax: the score of most papers.

    Args:
      logits: one number per class.
      target: index of the class, in `[0, classes)`.

    Returns:
      A scalar. It changes when a constant is added to all logits; probabilities and margins do not.

    Raises:
      ValueError: the logits are no vector, or the target is no class.

    >>> float(jaxcam.logit(jnp.array([1.0, 3.0]), 1))
    3.0
    """
    return pick(logits, target)


def probability(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The softmax probability of the target class, in [0, 1].

    Arguments and errors as for `logit`; two classes at least.

    >>> round(float(jaxcam.probability(jnp.array([1.0, 3.0]), 1)), 3)
    0.881
    """
    return jnp.exp(log_probability(logits, target))


def log_probability(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The logarithm of the softmax probability, at most 0.

    Arguments and errors as for `logit`; two classes at least.

    It is computed from the differences to the target's logit, so that its derivatives keep their
    precision where the probability is close to 1: those of `jax.nn.log_softmax` are then small
    differences of large numbers, and lose digits.

    >>> round(float(jaxcam.log_probability(jnp.array([1.0, 3.0]), 1)), 3)
    -0.127
    """
    score = pick(logits, target)
    check_several(logits, "a softmax")
    others = accumulated(logits) - score  # 0 for the target itself
    lead = jax.lax.stop_gradient(jnp.maximum(others.max(), 0))
    is_target = jnp.arange(len(logits)) == target
    odds = jnp.where(is_target, 0, jnp.exp(others - lead)).sum()
    return -(lead + jnp.log1p(odds + jnp.expm1(-lead)))


def log_odds(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The logarithm of the odds of the target class, `log(p / (1 - p))` of its probability `p`.

    `y_c - log sum_{d != c} exp(y_d)`, the logit against all others together: the contrast of
    DiffGradCAM (Piland et al. 2025, https://arxiv.org/abs/2506.08514). It is `margin`, made smooth,
    and of two classes the difference of their logits. Unlike the probability and its logarithm it
    does not saturate where the model is sure.

    Arguments and errors as for `logit`; two classes at least.

    >>> round(float(jaxcam.log_odds(jnp.array([1.0, 3.0]), 1)), 3)
    2.0
    """
    score = pick(logits, target)
    check_several(logits, "log_odds")
    is_target = jnp.arange(len(logits)) == target
    # Differences first, so that a constant added to all logits takes no digits.
    others = jnp.where(is_target, -jnp.inf, accumulated(logits) - score)
    lead = jax.lax.stop_gradient(others.max())
    return -(lead + jnp.log(jnp.exp(others - lead).sum()))


def margin(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """The lead of the target's logit over the best other one, negative when it does not lead.

    Arguments as for `logit`; two classes at least.

    >>> float(jaxcam.margin(jnp.array([1.0, 3.0, 2.5]), 1))
    0.5
    """
    score = pick(logits, target)
    check_several(logits, "margin")
    others = jnp.where(jnp.arange(len(logits)) == target, -jnp.inf, accumulated(logits))
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

    >>> score_fn = functools.partial(jaxcam.finer, gamma=0.6, references=3)
    >>> explain = jaxcam.explainer(apply_fn, "stage3", score_fn=score_fn)
    >>> explain(variables, image).heatmap.shape
    (64, 64)
    """
    score = pick(logits, target)
    check_several(logits, "finer")
    if references < 1:
        raise ValueError(f"references is {references}; it counts classes, so choose 1 or more")
    logits = accumulated(logits)
    distance = jnp.where(jnp.arange(len(logits)) == target, jnp.inf, abs(logits - score))
    nearest = jax.lax.top_k(-distance, min(references, len(logits) - 1))[1]
    return score - gamma * logits[nearest].mean()


def rest(logits: Float[Array, "*classes"], target: Any) -> Float[Array, ""]:
    """ReST, the score of ShapleyCAM: `logit + log_probability` (Cai 2025).

    It is smooth where the logit is piecewise linear, and moves with it where the probability is
    saturated (https://arxiv.org/abs/2501.06261). Arguments and errors as for `logit`.

    >>> explain = jaxcam.explainer(apply_fn, "stage3", jaxcam.shapley_cam, score_fn=jaxcam.rest)
    >>> explain(variables, image).heatmap.shape
    (64, 64)
    """
    return logit(logits, target) + log_probability(logits, target)


def binary_logit(logits: Float[Array, "*outputs"], target: Any) -> Float[Array, ""]:
    """The logit of a network with one output behind a sigmoid: `z` for target 1, `-z` for 0.

    Args:
      logits: one number, before the sigmoid.
      target: 1 for what the output stands for, 0 for its absence.

    Raises:
      ValueError: there is not one logit, or the target is neither 0 nor 1.

    >>> float(jaxcam.binary_logit(jnp.array([2.0]), 0))
    -2.0
    """
    if getattr(logits, "shape", None) != (1,):
        raise ValueError(
            f"a binary score got {shapes_of(logits)}; wanted the one logit [1] of a sigmoid. For "
            "several labels use jaxcam.label_probability; for classes jaxcam.logit"
        )
    z = accumulated(logits)
    return pick(jnp.concatenate([-z, z]), target)


def binary_probability(logits: Float[Array, "*outputs"], target: Any) -> Float[Array, ""]:
    """The probability of target 1 or 0 under a sigmoid; arguments as for `binary_logit`.

    >>> round(float(jaxcam.binary_probability(jnp.array([2.0]), 1)), 3)
    0.881
    """
    return jax.nn.sigmoid(binary_logit(logits, target))


def binary_log_probability(logits: Float[Array, "*outputs"], target: Any) -> Float[Array, ""]:
    """The logarithm of `binary_probability`, exact where that is close to 0 or 1.

    >>> round(float(jaxcam.binary_log_probability(jnp.array([2.0]), 1)), 3)
    -0.127
    """
    return jax.nn.log_sigmoid(binary_logit(logits, target))


def label_probability(logits: Float[Array, "*labels"], target: Any) -> Float[Array, ""]:
    """The probability of one of several labels, each behind a sigmoid of its own.

    Args:
      logits: one number per label, before the sigmoid. The logit of a label is `jaxcam.logit`.
      target: index of the label, in `[0, labels)`.

    Raises:
      ValueError: the logits are no vector, or the target is no label.

    >>> round(float(jaxcam.label_probability(jnp.array([2.0, 0.0]), 0)), 3)
    0.881
    """
    return jax.nn.sigmoid(pick(logits, target))


def label_log_probability(logits: Float[Array, "*labels"], target: Any) -> Float[Array, ""]:
    """The logarithm of `label_probability`, exact where that is close to 0 or 1.

    >>> round(float(jaxcam.label_log_probability(jnp.array([2.0, 0.0]), 0)), 3)
    -0.127
    """
    return jax.nn.log_sigmoid(pick(logits, target))


def likeliest(score_fn: Callable[..., Any], logits: Float[Array, "*classes"]) -> Array:
    """The target of a score where none is given: the class of the largest logit.

    Of a binary score it is 1 where the logit is positive, else 0.
    """
    score_fn = score_fn.func if isinstance(score_fn, functools.partial) else score_fn
    if any(score_fn is each for each in _BINARY):  # by identity: a score need not be hashable
        return (logits[0] > 0).astype(jnp.int32)
    return jnp.argmax(logits)


def wants_logits(score_fn: Callable[..., Any]) -> bool:
    """Whether this is a score of this module, whose formula is one of logits."""
    score_fn = score_fn.func if isinstance(score_fn, functools.partial) else score_fn
    return getattr(score_fn, "__module__", None) == __name__


_BINARY = (binary_logit, binary_probability, binary_log_probability)
