"""Trains the bundled networks and writes what the package ships: weights and canvases.

    python -m jaxcam._src.demo.train

writes into the package itself. The run is deterministic and takes minutes on two cores.
"""

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxcam._src.demo import bundle, canvases
from jaxcam._src.demo.network import MODULES

SHOWN = 24  # canvases shipped as pictures
TEST_SEED, SHOWN_SEED = 1_000_003, 2_000_003  # far from the seeds that training counts through


class Recipe(NamedTuple):
    """How a network is trained.

    Attributes:
      module: takes images `[n, 64, 64, 1]` and `train=`, and returns logits `[n, 10]`.
      steps: of the optimiser.
      batch: fresh canvases a step.
      peak: the largest learning rate.
    """

    module: nn.Module
    steps: int
    batch: int
    peak: float


RECIPES = {
    "relu": Recipe(MODULES["relu"], steps=1000, batch=64, peak=4e-3),
    "silu": Recipe(MODULES["silu"], steps=1000, batch=64, peak=4e-3),
    "vit": Recipe(MODULES["vit"], steps=5000, batch=32, peak=2e-3),
}


def train(recipe: Recipe, digits: canvases.Digits, seed: int = 0) -> dict:
    """Trains a network on fresh canvases and returns its variables.

    Args:
      recipe: the network, and how long and how fast it is trained.
      digits: the digits to draw canvases from.
      seed: of the initial weights and the canvases.
    """
    init = jax.jit(functools.partial(recipe.module.init, train=False))
    statistics = dict(init(jax.random.key(seed), jnp.zeros((1, 64, 64, 1))))
    params = statistics.pop("params")
    schedule = optax.cosine_onecycle_schedule(recipe.steps, recipe.peak)
    optimizer = optax.adamw(schedule, weight_decay=1e-3)
    state = optimizer.init(params)
    step = jax.jit(_step(recipe.module, optimizer))
    for batch in itertools.islice(canvases.batches(digits, recipe.batch, seed), recipe.steps):
        params, statistics, state = step(params, statistics, state, batch.images, batch.labels)
    return {"params": params, **statistics}


def accuracy(module: nn.Module, variables: dict, drawn: canvases.Canvases) -> float:
    """Returns the share of canvases whose digit has the largest logit."""
    apply = jax.jit(lambda images: module.apply(variables, images, train=False))
    correct = apply(drawn.images).argmax(-1) == drawn.labels
    return float(correct.mean())


def main() -> None:
    """Trains the networks, prints their accuracy and writes weights and canvases."""
    parser = argparse.ArgumentParser(description="Trains the bundled networks.")
    parser.add_argument("--out", type=Path, default=bundle.FOLDER, help="folder to write to")
    parser.add_argument("--steps", type=int, help="optimiser steps of each network")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    known, unseen = canvases.load_digits()
    test = canvases.draw(unseen, 2000, TEST_SEED)
    for name, recipe in RECIPES.items():
        recipe = recipe._replace(steps=options.steps or recipe.steps)
        variables = train(recipe, known)
        bundle.save_variables(options.out, name, variables)
        print(f"{name}: accuracy {accuracy(recipe.module, variables, test):.4f} on fresh canvases")
    bundle.save_canvases(options.out, canvases.draw(unseen, SHOWN, SHOWN_SEED))


def _step(module: nn.Module, optimizer: optax.GradientTransformation) -> Callable:
    def loss_fn(params, statistics, images, labels):
        variables = {"params": params, **statistics}
        logits, statistics = module.apply(variables, images, train=True, mutable=[*statistics])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, statistics

    def step(params, statistics, state, images, labels):
        gradients, statistics = jax.grad(loss_fn, has_aux=True)(params, statistics, images, labels)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), statistics, state

    return step


if __name__ == "__main__":
    main()
