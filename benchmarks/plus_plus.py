"""Where do the forms of Grad-CAM++ differ, and is any of them better, beyond noise?

Exact derivatives of the logit, of the probability and of its logarithm; the closed form; the forms
of five libraries; Grad-CAM, and Grad-CAM with positive gradients alone; and floors. For each of
`trained.py`, at each layer: means with intervals, the paired differences to the exact form, and
how alike the maps are.

    python benchmarks/plus_plus.py [part of a name ...] [--images N] [--layers N]
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import trained
from rich.console import Console
from rich.table import Table

import jaxcam
from jaxcam._src.evaluation.measures import CHEAP, MEASURES, ON_OBJECTS
from jaxcam._src.methods import METHODS, seeded
from jaxcam._src.methods.closed_forms import CLOSED_FORMS

EXACT = "exact"
FLOORS = "uniform", "random_cam"


def main() -> None:
    """Prints a table for each layer and writes those of a network to `results/`."""
    options = trained.parser(__doc__.splitlines()[0], images=100).parse_args()
    for name, case in trained.chosen(options):
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


def _judged(case: trained.Case, layer: str) -> dict[str, Any]:
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
        metric: np.stack([trained.area(numbers[name][metric]) for name in methods], 1)
        for metric in names
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


if __name__ == "__main__":
    main()
