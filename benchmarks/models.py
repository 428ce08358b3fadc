"""Which models does the cut take apart, exactly, and what does tracing a map cost over the model?

For each network of `families.py`: its layers, how far the head of the activations is from the
model, how long tracing and compiling Grad-CAM takes over a plain forward pass of the framework
itself (both where Python has room for the frames of all calls), what `structure` says of the head,
and one Grad-CAM++ with exact derivatives over one Grad-CAM. Families that are not installed are
left out.

    python benchmarks/models.py [part of a name ...]
"""

import argparse
import gc
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import timing
from families import MODELS, Case
from rich.console import Console
from rich.table import Table

import jaxcam
from jaxcam._src.frames import with_room

TARGET, REPEATS = 3, 5


def main() -> None:
    """Prints the table and writes it to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; default: all")
    asked = parser.parse_args().names
    rows = []
    for name, (package, make) in MODELS.items():
        if importlib.util.find_spec(package) and any(part in name for part in asked or [""]):
            rows.append(_row(name, make()))
            _print(rows[-1:])
    _print(rows)
    if not asked:
        print(timing.save("models", rows))


def _row(name: str, case: Case) -> dict[str, Any]:
    given = case.variables, case.image
    at = case.layer
    split_fn = jaxcam.split(case.apply_fn, at) if isinstance(at, str) else at

    def both(variables, image):
        activations, head = split_fn(variables, image)
        return case.ending_fn(head(activations)), case.forward_fn(variables, image)

    through_head, logits = jax.jit(both)(*given)
    grad_cam = jaxcam.explainer(case.apply_fn, split_fn)
    exact = jaxcam.explainer(case.apply_fn, split_fn, jaxcam.grad_cam_plus_plus)
    forward, map_of = _made(case.forward_fn, given), _made(_at_target(grad_cam), given)
    tap = jaxcam.tap(case.apply_fn, split_fn, *given, TARGET)
    runs = {"grad_cam": _call(grad_cam, given), "exact": _call(exact, given)}
    samples = timing.in_turns(runs, repeats=REPEATS)
    return {
        "model": name,
        "layers": len(jaxcam.layers(case.apply_fn, *given)),
        "head_error": float(abs(through_head - logits).max() / abs(logits).max()),
        "trace_s": forward["trace_s"],
        "trace_ratio": map_of["trace_s"] / forward["trace_s"],
        "compile_ratio": map_of["compile_s"] / forward["compile_s"],
        "structure": str(jaxcam.structure(tap.score_activations, tap.activations)),
        "exact_over_grad_cam": timing.ratio(samples["exact"], samples["grad_cam"]),
        "samples_s": samples,
    }


def _at_target(explain: Callable[..., Any]) -> Callable[..., Any]:
    return lambda variables, image: explain(variables, image, TARGET).heatmap


def _made(f: Callable[..., Any], given: tuple) -> dict[str, float]:
    """Processor seconds to trace, the median of several, and to compile."""
    gc.collect()
    gc.freeze()  # else what is traced pays for looking through all that a framework loaded
    traced = with_room(_traced)  # the forward pass too, as an explainer by itself
    traces = [traced(f, given) for _ in range(REPEATS)]
    start = time.process_time()
    traces[-1][0].lower().compile()
    compiling = time.process_time() - start
    return {"trace_s": timing.median([taken for _, taken in traces]), "compile_s": compiling}


def _traced(f: Callable[..., Any], given: tuple) -> tuple[Any, float]:
    jax.clear_caches()
    start = time.process_time()
    traced = jax.jit(f, compiler_options=jaxcam.compiler_options()).trace(*given)
    return traced, time.process_time() - start


def _call(explain: Callable[..., Any], given: tuple) -> Callable[[], Any]:
    run, _, _ = timing.compiled(_at_target(explain), *given)
    return run


def _print(rows: list[dict[str, Any]]) -> None:
    headings = (
        "layers",
        "head error",
        "trace s",
        "trace",
        "compile",
        "exact / Grad-CAM",
        "structure",
    )
    table = Table("model", *headings, title="trace and compile: Grad-CAM over the forward pass")
    for row in rows:
        numbers = (f"{row[key]:.2g}" for key in ("head_error", "trace_s"))
        ratios = (f"{row[key]:.2f}" for key in ("trace_ratio", "compile_ratio"))
        exact = f"{row['exact_over_grad_cam']['ratio']:.2f}"
        table.add_row(row["model"], str(row["layers"]), *numbers, *ratios, exact, row["structure"])
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
