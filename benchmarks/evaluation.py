"""What does judging maps cost over the forward passes that it needs?

MobileNetV1 0.25 at its last layer on photographs, as tests/mobilenet.py knows them: ten methods by
the cheap metrics of `jaxcam evaluate`, one photograph at a time, beside nothing but the forward
passes: one for the photograph, and for each method those of drop, of coherency, and of the curves
of deletion and insertion. The maps themselves, blurring and sorting are the overhead.
"""

import functools
import sys
from pathlib import Path

import jax
import numpy as np
import timing

import jaxcam
from jaxcam._src.evaluation.measures import CHEAP, MEASURES
from jaxcam._src.methods import METHODS, seeded

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import mobilenet

NAMES = (
    "grad_cam layer_cam hires_cam xgrad_cam elementwise_grad_cam grad_cam_plus_plus eigen_cam fem "
    "uniform random_cam"
).split()
STEPS = 20  # of both curves


def main() -> None:
    """Prints the ratio and writes it to `results/`."""
    if not mobilenet.FOLDER.is_dir():
        sys.exit(f"the weights and photographs are not at {mobilenet.FOLDER}")
    model, count = mobilenet.model(), int(sys.argv[1]) if len(sys.argv) > 1 else 50
    images = mobilenet.photographs(model, count)
    judge, compiling, _ = timing.compiled(functools.partial(_judged, model), images)
    passes, *_ = timing.compiled(functools.partial(_passed, model), images)
    samples = timing.in_turns({"evaluate": judge, "forward passes": passes})
    over = timing.ratio(samples["evaluate"], samples["forward passes"])
    row = {"photographs": len(images), "methods": NAMES, "metrics": CHEAP, "seconds": samples}
    row |= {"over_forward_passes": over, "seconds_to_compile": compiling}
    print(f"{len(images)} photographs, {len(NAMES)} methods, {len(CHEAP)} metrics:")
    print(
        f"{over['ratio']:.2f} of the forward passes ({over['lowest']:.2f} to {over['highest']:.2f})"
    )
    if count == 50:
        print(timing.save("evaluation", [row]))


def _judged(model: jaxcam.Model, images: jax.Array):
    methods = {name: seeded(METHODS[name], 0) for name in NAMES}
    metrics = {name: MEASURES[name].metric for name in CHEAP}
    evaluate = jaxcam.evaluator(model.apply_fn, mobilenet.LAYER, methods, metrics)
    return jax.lax.map(functools.partial(evaluate, model.variables), images)


def _passed(model: jaxcam.Model, images: jax.Array):
    forward = functools.partial(model.apply_fn, model.variables)

    def of_one(image: jax.Array):
        shades = np.linspace(0.5, 1, STEPS + 1, dtype=np.float32)[:, None, None, None]

        def of_method(scale: jax.Array):
            curve = jax.vmap(forward)(image[None] * shades * scale)
            other = jax.vmap(forward)(image[None] * shades * -scale)
            masked, again = forward(image * scale / 2), forward(image * scale / 3)
            return curve.sum() + other.sum() + masked.sum() + again.sum()

        scales = np.linspace(0.5, 1, len(NAMES), dtype=np.float32)
        return forward(image), jax.lax.map(of_method, scales)

    return jax.lax.map(of_one, images)


if __name__ == "__main__":
    main()
