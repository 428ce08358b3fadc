"""Every method by name, and what its docstring says of it: for the command line and a notebook."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxcam._src.base import Key, WeightsFn
from jaxcam._src.methods.ablation import ablation_cam, recipro_cam
from jaxcam._src.methods.activation import eigen_cam, eigen_grad_cam, fem, random_cam, uniform
from jaxcam._src.methods.attention import attention_rollout, generic_attention, legrad_final
from jaxcam._src.methods.curvature import grad_cam_plus_plus
from jaxcam._src.methods.gradient import (
    cam,
    counterfactual_grad_cam,
    elementwise_grad_cam,
    grad_cam,
    hires_cam,
    layer_cam,
    shapley_cam,
    xgrad_cam,
)
from jaxcam._src.methods.grouped import group_cam
from jaxcam._src.methods.optimised import opti_cam
from jaxcam._src.methods.perturbation import is_cam, score_cam, ss_cam
from jaxcam._src.methods.sampled import rise
from jaxcam._src.methods.smoothed import integrated_grad_cam, smooth_grad_cam_plus_plus

_ALL = (
    cam,
    grad_cam,
    grad_cam_plus_plus,
    layer_cam,
    score_cam,
    hires_cam,
    elementwise_grad_cam,
    xgrad_cam,
    counterfactual_grad_cam,
    shapley_cam,
    integrated_grad_cam,
    smooth_grad_cam_plus_plus,
    ablation_cam,
    recipro_cam,
    ss_cam,
    is_cam,
    group_cam,
    rise,
    opti_cam,
    eigen_cam,
    eigen_grad_cam,
    fem,
    random_cam,
    uniform,
)
METHODS: dict[str, Callable[..., jax.Array]] = {method.__name__: method for method in _ALL}
# Of transformers alone, whose attention weights they look at.
OF_ATTENTION: dict[str, Callable[..., jax.Array]] = {
    method.__name__: method for method in (attention_rollout, generic_attention, legrad_final)
}


class Description(NamedTuple):
    """What a method's docstring says of it, one line each."""

    name: str
    title: str
    weights: str
    cost: str
    avoid: str
    link: str


def describe(name: str) -> Description:
    """Reads the docstring of a method."""
    text = inspect.getdoc((METHODS | OF_ATTENTION)[name]) or ""
    title, weights = text.splitlines()[0].removesuffix(".").split(": ", 1)
    cost, avoid = (re.findall(rf"^{part}: (.*)$", text, re.M)[0] for part in ("Cost", "Avoid"))
    link = next(iter(re.findall(r"https://[^\s),]+", text)), "")
    return Description(name, title, weights, cost, avoid, link.rstrip("."))


def markdown() -> str:
    """The table of the notebook 09_methods: of the methods for any network."""
    rows = ["| method | weights | cost | avoid |", "|---|---|---|---|"]
    for d in map(describe, METHODS):
        title = f"[{d.title}]({d.link})" if d.link else d.title
        rows.append(f"| `{d.name}`, {title} | {d.weights} | {d.cost} | {d.avoid} |")
    return "\n".join(rows)


def seeded(method: Callable[..., jax.Array], seed: int | Key) -> WeightsFn:
    """The method itself; with a key, or that of a seed, where it takes one."""
    if "key" not in inspect.signature(method).parameters:
        return method

    return functools.partial(method, key=jax.random.key(seed) if isinstance(seed, int) else seed)
