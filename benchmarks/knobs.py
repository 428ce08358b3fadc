"""What do the knobs of Score-CAM save on real photographs, and what do they change in the heatmap?

MobileNetV1 0.25 at its last layer (256 channels), as tests/mobilenet.py knows it, on photographs of
its classes, each explained for its top class with the logit and with the probability as the score.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
from rich.console import Console
from rich.table import Table

import jaxcam

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet

PHOTOGRAPHS = 10
KNOBS = {
    "top_k=128": {"top_k": 128},
    "top_k=64": {"top_k": 64},
    "top_k=32": {"top_k": 32},
    "dtype=bfloat16": {"dtype": jnp.bfloat16},
}
SCORES = {"logit": jaxcam.logit, "probability": jaxcam.probability}


def main() -> None:
    """Prints the table and writes it to `results/`."""
    if not mobilenet.FOLDER.is_dir():
        sys.exit(f"the weights and photographs are not at {mobilenet.FOLDER}")
    model = mobilenet.model()
    images = mobilenet.photographs(model, PHOTOGRAPHS)
    rows = [row for score in SCORES for row in _rows(model, jnp.asarray(images), score)]
    _print(rows)
    print(timing.save("knobs", rows))


def _rows(model: jaxcam.Model, images: jax.Array, score: str) -> list[dict[str, Any]]:
    plain = _explained(model, images, score)
    wanted = np.asarray(plain())
    rows = []
    for name, knobs in KNOBS.items():
        run = _explained(model, images, score, **knobs)
        error = abs(np.asarray(run()) - wanted).reshape(len(images), -1)
        samples = timing.in_turns({"plain": plain, "knob": run}, repeats=1, warm_up=False)
        rows.append(
            {
                "score": score,
                "knob": name,
                "photographs": len(images),
                "over_plain": timing.ratio(samples["knob"], samples["plain"]),
                "largest_error": float(error.max()),
                "median_largest_error": float(np.median(error.max(axis=1))),
                "mean_error": float(error.mean()),
                "samples_s": samples,
            }
        )
    return rows


def _explained(model: jaxcam.Model, images: jax.Array, score: str, **knobs: Any) -> Any:
    """The compiled call that returns the heatmaps of all images."""
    method = functools.partial(jaxcam.score_cam, **knobs)
    explain = jaxcam.explainer(model.apply_fn, mobilenet.LAYER, method, score_fn=SCORES[score])

    def heatmaps(variables: Any, images: jax.Array) -> jax.Array:
        return jax.lax.map(lambda image: explain(variables, image).heatmap, images)

    return timing.compiled(heatmaps, model.variables, images)[0]


def _print(rows: list[dict[str, Any]]) -> None:
    headings = "score", "knob", "time over plain", "largest error", "its median", "mean error"
    table = Table(*headings, title=f"Heatmaps in [0, 1] of {rows[0]['photographs']} photographs")
    for row in rows:
        numbers = (
            f"{row[key]:.2g}" for key in ("largest_error", "median_largest_error", "mean_error")
        )
        table.add_row(row["score"], row["knob"], f"{row['over_plain']['ratio']:.2f}", *numbers)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
