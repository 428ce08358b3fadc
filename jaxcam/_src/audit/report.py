"""The audit on the command line: a table, numbers and a figure, over images and layers."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from jaxcam._src.audit import CLOSED, EXACT, MEASURES, Audit, audit
from jaxcam._src.audit.verdict import summary, verdict
from jaxcam._src.base import Model, ScoreFn, SplitFn
from jaxcam._src.compiling import compiler_options
from jaxcam._src.files import whole_file
from jaxcam._src.render import save_audit
from jaxcam._src.scores import logit

_ROWS = 6  # of the figure
_ERRORS = {
    "second_error": "error of Y''",
    "third_error": "error of Y'''",
    "alpha_error": "error of alpha",
}


def auditor(
    model: Model, layer: str | SplitFn, samples: int | None, score_fn: ScoreFn = logit
) -> Callable[..., Audit]:
    """A compiled audit at a layer, `(variables, image, target) -> Audit`, always of one sample."""
    key = None if samples is None else jax.random.key(0)
    how = {"score_fn": score_fn, "samples": samples, "key": key}
    audited = functools.partial(audit, model.apply_fn, layer, **how)
    return jax.jit(audited, compiler_options=compiler_options())


def write(
    found: Mapping[str, Sequence[Audit]],
    names: Sequence[str],
    pictures: Sequence[np.ndarray],
    settings: dict[str, Any],
    folder: Path,
) -> None:
    """Writes `audit.json` and `audit.png`.

    Args:
      found: for each layer the audits of all images.
      names: of the images.
      pictures: the images to show, `[H, W, 3]` or `[H, W, 1]` in [0, 1].
      settings: what the user asked for, to stand in the numbers.
      folder: to write to.
    """
    layers = {
        layer: {
            "verdict": verdict(stacked(audits)),
            "mean": summary(stacked(audits)),
            "images": {n: summary(each) for n, each in zip(names, audits, strict=True)},
        }
        for layer, audits in found.items()
    }
    with whole_file(folder / "audit.json") as file:
        file.write(json.dumps({**settings, "layers": layers}, indent=1).encode())
    rows = [
        (f"{layer}, {name}", picture, each)
        for layer, audits in found.items()
        for name, picture, each in zip(names, pictures, audits, strict=True)
    ]
    with whole_file(folder / "audit.png") as file:
        save_audit(
            [
                (label, picture, {name: each.maps[name] for name in each.names})
                for label, picture, each in rows[:_ROWS]
            ],
            [_alphas(each) for *_, each in rows[:_ROWS]],
            file,
        )


def tables(layer: str, audits: Sequence[Audit]) -> list[Table]:
    """The numbers of one layer, means over its images, and what the maps have in common."""
    numbers = summary(stacked(audits))
    ends = [numbers["sample"][end] for end in ("low", "high")] if audits[0].sample else []
    first = Table(layer, "closed form", "exact")
    for name, words in _ERRORS.items():
        if name in numbers:
            values = _with_ends("{:.2e}", numbers[name], [end[name] for end in ends])
            first.add_row(words, values, "")
    off = _with_ends("{:.2%}", numbers["alpha_off"], [end["alpha_off"] for end in ends])
    first.add_row("alpha off by a tenth", off, "")
    for share, closed in numbers["closed"].items():
        exact = [each["exact"].get(share) for each in (numbers, *ends)]
        shown = "not known" if exact[0] is None else _with_ends("{:.2%}", exact[0], exact[1:])
        first.add_row(f"alpha {share.replace('_', ' ')}", f"{closed:.2%}", shown)
    for quantile, value in numbers["sum_gradient"].items():
        first.add_row(f"|Sigma g|, quantile {quantile}", f"{value:.3g}", "")
    return [first, _alike(audits[0].names, numbers["agreement"])]


def _with_ends(form: str, value: float, ends: Sequence[float]) -> str:
    """A number, with the interval that a sample gives it."""
    interval = f" ({' to '.join(map(form.format, ends))})" if ends else ""
    return form.format(value) + interval


def _alike(names: Sequence[str], agreement: Mapping[str, Any]) -> Table:
    """How far every map agrees with the exact one, or of a sample with the closed form's."""
    to = EXACT if EXACT in names else CLOSED
    table = Table(f"against {to}", *(measure.replace("_", " ") for measure in MEASURES))
    for name in names:
        table.add_row(name, *(f"{agreement[measure][to][name]:.3f}" for measure in MEASURES))
    return table


def _alphas(found: Audit) -> tuple[np.ndarray, np.ndarray]:
    """By the closed form and exact, of the same activations."""
    closed, exact = map(np.asarray, (found.alpha_closed, found.alpha_exact))
    return (closed.ravel()[found.sample.indices] if found.sample else closed), exact


def stacked(audits: Sequence[Audit]) -> Audit:
    """Several audits of one layer as one, with a first axis for the images."""
    return jax.tree.map(lambda *values: np.stack(values), *audits)
