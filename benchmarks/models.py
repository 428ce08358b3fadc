"""Which models does the cut take apart, exactly, and what does tracing a map cost over the model?

Networks of Keras, Equinox, Haiku and Hugging Face (which are Flax), with random weights.
For each: its layers, how far the head of the activations is from the model, how long tracing and
compiling Grad-CAM takes over a plain forward pass of the framework itself, what `structure` says of
the head, and one Grad-CAM++ with exact derivatives over one Grad-CAM. Families that are not
installed are left out.

    python benchmarks/models.py [part of a name ...]
"""

import argparse
import functools
import importlib.util
import itertools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import timing
from rich.console import Console
from rich.table import Table

import jaxcam

SIDE, TARGET, REPEATS = 96, 3, 3


class Case(NamedTuple):
    """A model as jaxcam sees it, and as its framework runs it: `forward_fn(variables, image)`."""

    apply_fn: Callable[..., Any]
    variables: Any
    image: jax.Array
    layer: Any
    forward_fn: Callable[..., Any]


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
    split_fn = case.layer if callable(case.layer) else jaxcam.split(case.apply_fn, case.layer)

    def both(variables, image):
        activations, head = split_fn(variables, image)
        return head(activations), case.forward_fn(variables, image)

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
    """Seconds to trace, the median of several, and seconds to compile."""
    traces = []
    for _ in range(REPEATS):
        jax.clear_caches()
        start = time.perf_counter()
        traced = jax.jit(f, compiler_options=jaxcam.compiler_options()).trace(*given)
        traces.append(time.perf_counter() - start)
    start = time.perf_counter()
    traced.lower().compile()
    return {"trace_s": timing.median(traces), "compile_s": time.perf_counter() - start}


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


def _image(side: int = SIDE) -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (side, side, 3))


# The families


def _keras(name: str, layer: str) -> Case:
    import keras

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3))
    apply_fn, variables = jaxcam.from_keras(model, logits=True)

    def forward_fn(variables, image):
        given = variables["trainable"], variables["non_trainable"]
        probabilities, _ = model.stateless_call(*given, image[None], training=False)
        return jnp.log(probabilities[0])  # up to a constant

    def centred_fn(variables, image):
        return jax.nn.log_softmax(apply_fn(variables, image))

    return Case(centred_fn, variables, _image(), layer, forward_fn)


def _haiku(name: str, layer: str) -> Case:
    import haiku as hk

    def network(x, is_training):
        return getattr(hk.nets, name)(num_classes=10)(x, is_training)

    transformed = hk.transform_with_state(network)
    init = jax.jit(functools.partial(transformed.init, is_training=True))
    variables = init(jax.random.key(0), _image()[None])

    def forward_fn(variables, image):
        return transformed.apply(*variables, None, image[None], is_training=False)[0][0]

    apply_fn = jaxcam.from_haiku(transformed, is_training=False)
    return Case(apply_fn, variables, _image(), layer, forward_fn)


def _hugging_face(name: str, layer: str, *, tokens: bool, **settings: Any) -> Case:
    import transformers

    config = getattr(transformers, f"{name}Config")(num_labels=10, **settings)
    maker = getattr(transformers, f"Flax{name}ForImageClassification")
    model = maker(config, (1, SIDE, SIDE, 3), seed=0)
    variables = model.params if "params" in model.params else {"params": model.params}
    apply_fn = jaxcam.from_linen(model.module, output_fn=lambda output: output.logits)
    at = jaxcam.token_grid(apply_fn, layer) if tokens else layer

    def forward_fn(variables, image):
        return model.module.apply(variables, image[None]).logits[0]

    return Case(apply_fn, variables, _image(), at, forward_fn)


def _equinox() -> Case:
    import equinox as eqx

    keys = iter(jax.random.split(jax.random.key(0), 20))

    class Block(eqx.Module):
        convs: list[eqx.nn.Conv2d]
        shortcut: eqx.nn.Conv2d

        def __init__(self, before, after):
            self.convs = [
                eqx.nn.Conv2d(width, after, 3, stride, 1, key=next(keys))
                for width, stride in ((before, 2), (after, 1))
            ]
            self.shortcut = eqx.nn.Conv2d(before, after, 1, 2, key=next(keys))

        def __call__(self, x):
            y = self.convs[1](jax.nn.relu(self.convs[0](x)))
            return jax.nn.relu(y + self.shortcut(x))

    class Net(eqx.Module):
        blocks: list[Block]
        dense: eqx.nn.Linear

        def __init__(self):
            widths = 3, 32, 64, 128, 256
            self.blocks = [Block(*pair) for pair in itertools.pairwise(widths)]
            self.dense = eqx.nn.Linear(256, 10, key=next(keys))

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return self.dense(x.mean((1, 2)))

    model = Net()
    apply_fn, variables = jaxcam.from_equinox(model)
    static = eqx.partition(model, eqx.is_array)[1]

    def forward_fn(variables, image):
        return eqx.combine(variables[0], static)(jnp.moveaxis(image, -1, 0))

    return Case(apply_fn, variables, _image(), "blocks/3", forward_fn)


_VIT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "image_size": SIDE}
MODELS: dict[str, tuple[str, Callable[[], Case]]] = {
    "Keras MobileNetV2": ("keras", lambda: _keras("MobileNetV2", "out_relu")),
    "Keras ResNet50": ("keras", lambda: _keras("ResNet50", "conv5_block3_out")),
    "Keras EfficientNetB0": ("keras", lambda: _keras("EfficientNetB0", "top_activation")),
    "Keras DenseNet121": ("keras", lambda: _keras("DenseNet121", "relu")),
    "Equinox ResNet": ("equinox", _equinox),
    "Haiku ResNet18": ("haiku", lambda: _haiku("ResNet18", "res_net18/block_group_3/block_1")),
    "Haiku MobileNetV1": (
        "haiku",
        lambda: _haiku("MobileNetV1", "mobile_net_v1/mobile_net_v1_block_12"),
    ),
    "Hugging Face ResNet": (
        "transformers",
        lambda: _hugging_face("ResNet", "resnet/encoder/stages/3", tokens=False),
    ),
    "Hugging Face ViT": (
        "transformers",
        lambda: _hugging_face("ViT", "vit/encoder/layer/10", tokens=True, **_VIT),
    ),
}


if __name__ == "__main__":
    main()
