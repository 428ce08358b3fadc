"""Writes the golden file of the metrics of xplique.

In a virtual environment of its own:

    pip install tensorflow==2.20.0 xplique==2.0.2
    python tests/golden/make_metrics_tensorflow.py

It returns means over images, so that it is given one at a time. Noise and subsets are those of
judged.py.
"""

from importlib.metadata import version
from unittest import mock

import judged
import numpy as np
import tensorflow as tf
from make_tensorflow import network
from networks import CLASSES, SEED
from xplique import metrics
from xplique.metrics.randomization import ProgressiveLayerRandomization


def gradients(model: tf.keras.Model, inputs, targets) -> np.ndarray:
    """A map that depends on the image and the class: the sizes of the gradient `[n, H, W]`."""
    x = tf.convert_to_tensor(inputs, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = tf.reduce_sum(model(x) * tf.convert_to_tensor(targets, tf.float32))
    return tf.reduce_sum(abs(tape.gradient(score, x)), -1).numpy()


class Explainer:
    """The gradients, as xplique's explainers are called."""

    def __init__(self, model):
        self.model = model

    def explain(self, inputs, targets):
        return gradients(self.model, inputs, targets)

    __call__ = explain


def each(metric, maps=None, images=None, **knobs) -> np.ndarray:
    """The number of each image; of its gradients where no maps are given."""
    images = judged.images() if images is None else images
    found = []
    for i, target in enumerate(judged.TARGETS):
        targets = np.eye(CLASSES, dtype=np.float32)[[target]]
        made = metric(MODEL, images[i : i + 1], targets, **knobs)
        if isinstance(made, metrics.AverageStability):
            made.noisy_masks = tf.constant(judged.RADIUS * judged.uniform())
        given = Explainer(MODEL) if maps is None else maps[i : i + 1]
        found.append(made.evaluate(given))
    return np.array(found)


def fidelity() -> np.ndarray:
    """Of subsets of cells; one is removed where its random number is not above the share."""
    count = judged.CELLS[0] * judged.CELLS[1]
    drawn = tf.constant((judged.cells().reshape(-1, count) + 0.5) / count, tf.float32)
    knobs = {"grid_size": judged.CELLS[0], "subset_percent": judged.SUBSET / count}
    with mock.patch.object(tf.random, "uniform", return_value=drawn):
        return each(metrics.MuFidelity, judged.heatmaps(), nb_samples=judged.SAMPLES, **knobs)


if __name__ == "__main__":
    logits = network(judged.NETWORK)
    MODEL = tf.keras.Model(logits.inputs, tf.keras.layers.Softmax()(logits.output))
    maps, steps = judged.heatmaps(), {"steps": judged.STEPS}
    tf.random.set_seed(SEED)
    randomised = tf.keras.models.clone_model(MODEL)
    ProgressiveLayerRandomization(1.0).randomize(randomised)
    drawn = np.concatenate([w.ravel() for w in randomised.get_weights()])
    found = {
        "drop": each(metrics.AverageDropMetric, maps),
        "increase": each(metrics.AverageIncreaseMetric, maps),
        "gain": each(metrics.AverageGainMetric, maps),
        "drop_of_signed": each(metrics.AverageDropMetric, 1.5 * maps - 0.5),
        "deletion": each(metrics.Deletion, maps, **steps),
        "insertion": each(metrics.Insertion, maps, **steps),
        "fidelity": fidelity(),
        "entropy": metrics.Complexity().detailed_evaluate(maps),
        "gini": metrics.Sparseness().detailed_evaluate(maps),
        "stability": each(metrics.AverageStability, nb_samples=judged.SAMPLES),
        "randomised": each(metrics.ModelRandomizationMetric),
        "randomised_range": np.array([drawn.min(), drawn.max()]),
    }
    for name, values in found.items():
        print(name, np.asarray(values).ravel()[:6])
    packages = ["xplique", "tensorflow", "keras"]
    named = {f"xplique/{name}": values for name, values in found.items()}
    judged.save("tensorflow", ", ".join(f"{p} {version(p)}" for p in packages), named)
