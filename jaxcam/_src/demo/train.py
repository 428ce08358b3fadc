"""Trains the bundled networks and writes what the package ships: weights and canvases.

    python -m jaxcam._src.demo.train

writes into the package itself. The run is deterministic and takes minutes on two cores.
"""

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxcam._src.demo import bundle, canvases
from jaxcam._src.demo.network import DigitNet

STEPS = 1000
BATCH = 64
ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu}
SHOWN = 24  # canvases shipped as pictures
TEST_SEED, SHOWN_SEED = 1_000_003, 2_000_003  # far from the seeds that training counts through


def train(activation: Callable, digits: canvases.Digits, steps: int, seed: int = 0) -> dict:
    """Trains a `DigitNet` on fresh canvases and returns its variables.

    Args:
      activation: what follows each normalisation, `nn.relu` or `nn.silu`.
      digits: the digits to draw canvases from.
      steps: optimiser steps of 64 canvases.
      seed: of the initial weights and the canvases.
    """
    module = DigitNet(activation)
    init = jax.jit(functools.partial(module.init, train=False))
    variables = init(jax.random.key(seed), jnp.zeros((1, 64, 64, 1)))
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(steps, 4e-3), weight_decay=1e-3)
    params, statistics = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)
    step = jax.jit(_step(module, optimizer))
    for batch in itertools.islice(canvases.batches(digits, BATCH, seed), steps):
        params, statistics, state = step(params, statistics, state, batch.images, batch.labels)
    return {"params": params, "batch_stats": statistics}


def accuracy(activation: Callable, variables: dict, drawn: canvases.Canvases) -> float:
    """Returns the share of canvases whose digit has the largest logit."""
    apply = jax.jit(lambda images: DigitNet(activation).apply(variables, images, train=False))
    correct = apply(drawn.images).argmax(-1) == drawn.labels
    return float(correct.mean())


def main() -> None:
    """Trains both networks, prints their accuracy and writes weights and canvases."""
    parser = argparse.ArgumentParser(description="Trains the bundled networks.")
    parser.add_argument("--out", type=Path, default=bundle.FOLDER, help="folder to write to")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    known, unseen = canvases.load_digits()
    test = canvases.draw(unseen, 2000, TEST_SEED)
    for name, activation in ACTIVATIONS.items():
        variables = train(activation, known, options.steps)
        bundle.save_variables(options.out, name, variables)
        print(f"{name}: accuracy {accuracy(activation, variables, test):.4f} on fresh canvases")
    bundle.save_canvases(options.out, canvases.draw(unseen, SHOWN, SHOWN_SEED))


def _step(module: nn.Module, optimizer: optax.GradientTransformation) -> Callable:
    def loss_fn(params, statistics, images, labels):
        logits, updates = module.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, updates["batch_stats"]

    def step(params, statistics, state, images, labels):
        gradients, statistics = jax.grad(loss_fn, has_aux=True)(params, statistics, images, labels)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), statistics, state

    return step


if __name__ == "__main__":
    main()
