"""Which methods are better than maps that know nothing of the model, by which metrics?

All methods by all metrics, for each of `trained.py`, at each layer: means with intervals, and the
paired difference of each method to the best of the floors by that metric, with its interval. By
metrics that ask for the map again and again, only methods of one backward pass are judged.

    python benchmarks/all_methods.py [part of a name ...] [--images N] [--layers N]
        [--without name ...]
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import timing
import trained
from rich.console import Console
from rich.table import Table

import jaxcam
from jaxcam._src.cli.evaluate import FLOORS
from jaxcam._src.evaluation.measures import MEASURES
from jaxcam._src.methods import METHODS, seeded

AGAIN = "max_sensitivity average_sensitivity random_logit".split()
QUICK = (
    "grad_cam layer_cam hires_cam elementwise_grad_cam xgrad_cam shapley_cam eigen_cam fem".split()
)
KNOWN = {name: seeded(method, 0) for name, method in (METHODS | FLOORS).items()}


def main() -> None:
    """Prints two tables for each layer and writes those of a network to `results/`."""
    parser = trained.parser(__doc__.splitlines()[0], images=32)
    parser.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="name",
        choices=sorted({*METHODS, *MEASURES} - {*FLOORS}),
        help="methods, but for floors, and metrics to leave out",
    )
    options = parser.parse_args()
    for name, case in trained.chosen(options):
        metrics = [
            metric
            for metric, measure in MEASURES.items()
            if not (measure.wants_object and case.inside is None)
        ]
        once = [metric for metric in metrics if metric not in [*AGAIN, *options.without]]
        again = [metric for metric in AGAIN if metric not in options.without]
        rows = []
        for layer in case.layers:
            methods = [method for method in _taken(case, layer) if method not in options.without]
            quick = [method for method in methods if method in [*QUICK, *FLOORS]]
            for judged, by in ((methods, once), (quick, again)):
                row = {"network": name, "layer": layer, **_judged(case, layer, judged, by)}
                _print(row)
                rows.append(row)
            print(timing.save(f"all-methods-{name}", rows))


def _judged(
    case: trained.Case, layer: str, methods: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
    start = time.perf_counter()
    evaluate = jaxcam.evaluator(
        case.model.apply_fn,
        layer,
        {name: KNOWN[name] for name in methods},
        {name: MEASURES[name].metric for name in metrics},
    )

    def of_one(given):
        image, target, inside, number = given
        key = jax.random.key(number)
        return evaluate(case.model.variables, image, target, inside=inside, key=key)

    given = case.images, case.targets, case.inside, np.arange(len(case.images))
    run = jax.jit(
        lambda given: jax.lax.map(of_one, given), compiler_options=jaxcam.compiler_options()
    )
    found = jax.tree.map(np.asarray, run(given))
    return {
        "images": len(case.images),
        "methods": methods,
        "flat": [float((found.flat[name] != 0).mean()) for name in methods],
        "metrics": {name: _compared(found.numbers, name, methods) for name in metrics},
        "seconds_with_compilation": time.perf_counter() - start,
    }


def _taken(case: trained.Case, layer: str) -> list[str]:
    """All methods but those that refuse this network, saying why."""
    taken = []
    for name, method in KNOWN.items():
        explain = jaxcam.explainer(case.model.apply_fn, layer, method)
        try:
            jax.eval_shape(explain, case.model.variables, case.images[0])
        except ValueError as error:
            print(f"left out: {error}")
        else:
            taken.append(name)
    return taken


def _compared(
    numbers: Mapping[str, Mapping[str, np.ndarray]], metric: str, methods: Sequence[str]
) -> dict[str, Any]:
    """Means with intervals, and how far each method is from the best floor."""
    values = np.stack([trained.area(numbers[name][metric]) for name in methods], 1)
    mean, apart = jaxcam.statistics.interval(values), jaxcam.statistics.differences(values)
    better = MEASURES[metric].higher_is_better
    found = {key: np.asarray(v).tolist() for key, v in mean._asdict().items()}
    if better is None:
        return found
    floors = [methods.index(name) for name in FLOORS]
    best = max(floors, key=lambda i: mean.mean[i] if better else -mean.mean[i])
    return found | {
        "higher_is_better": better,
        "best_floor": methods[best],
        "above_it": {key: np.asarray(v)[:, best].tolist() for key, v in apart._asdict().items()},
    }


def _print(row: dict[str, Any]) -> None:
    shown = [name for name in row["metrics"] if "above_it" in row["metrics"][name]]
    title = f"{row['network']} at {row['layer']}, {row['images']} images"
    table = Table("method", *shown, title=title)
    for i, name in enumerate(row["methods"]):
        cells = []
        for metric in shown:
            found = row["metrics"][metric]
            apart = found["above_it"]
            ahead = apart["low"][i] > 0 if found["higher_is_better"] else apart["high"][i] < 0
            cells.append(f"{found['mean'][i]:.3f}{' *' if ahead else '  '}")
        table.add_row(name, *cells)
    Console(width=260).print(table)
    print("* better than the best of", ", ".join(FLOORS), "beyond noise")


if __name__ == "__main__":
    main()
