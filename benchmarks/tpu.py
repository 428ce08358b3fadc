"""Which methods does the compiler for TPUs take, and what does each device of a mesh do then?

The real compiler, of the package libtpu, runs on a machine without a TPU: nothing is timed. Memory
and FLOPs are of one device; cycles are the compiler's own estimate, no measurement. A loop whose
length depends on the image is counted at its longest.

    python benchmarks/tpu.py                                 what is not in the results yet
    python benchmarks/tpu.py score_cam --model resnet50 --chips 256
"""

import argparse
import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {  # before JAX is imported: libtpu would look for the machine that it is on
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

import hlo
import jax
import jax.numpy as jnp
import numpy as np
import resnet
import timing
import vit
from jax.experimental import topologies

import jaxcam
from jaxcam._src.methods import METHODS, seeded

MESHES = {1: (1, 1), 4: (1, 4), 256: (16, 16)}  # chips: those that share images, and probes
IMAGE = jax.ShapeDtypeStruct((224, 224, 3), jnp.float32)


class Model(NamedTuple):
    """A model by its shapes, its last layer to explain and one before."""

    apply_fn: Callable[..., Any]
    variables: Any
    image: jax.ShapeDtypeStruct
    layer: Any
    before: Any


def resnet50() -> Model:
    """The last two stages of ResNet-50."""
    shapes = jax.eval_shape(partial(resnet.weights, 50))
    return Model(resnet.apply_fn, shapes, IMAGE, "layer4", "layer3")


def vit_b16() -> Model:
    """The first normalisations of the last two blocks of ViT-B/16."""
    images = jax.ShapeDtypeStruct((1, *IMAGE.shape), IMAGE.dtype)
    shapes = jax.eval_shape(vit.ViT().init, jax.random.key(0), images)
    layers = (jaxcam.token_grid(vit.apply_fn, f"block{i}/norm1") for i in (11, 10))
    return Model(vit.apply_fn, shapes, IMAGE, *layers)


def explainer(
    model: Model, of: str, *, before: bool = False, score_fn: Any = jaxcam.logit
) -> Callable[..., Any]:
    """A method at the model's last layer, or at the one before."""
    layer = model.before if before else model.layer
    return jaxcam.explainer(model.apply_fn, layer, seeded(METHODS[of], 0), score_fn=score_fn)


def evaluation(model: Model) -> Callable[..., Any]:
    """A map and its floor, judged by two metrics."""
    methods = {"grad_cam": jaxcam.grad_cam, "floor": jaxcam.uniform}
    metrics = {"drop": jaxcam.metrics.drop, "insertion": jaxcam.metrics.insertion}
    return jaxcam.evaluator(model.apply_fn, model.layer, methods, metrics)


MODELS = {"resnet50": resnet50, "vit_b16": vit_b16}
# With the log-probability no head is piecewise linear, and Grad-CAM++ needs a loop.
_CURVED = partial(explainer, of="grad_cam_plus_plus", score_fn=jaxcam.log_probability)
PROGRAMS: dict[str, Callable[[Model], Callable[..., Any]]] = {
    **{name: partial(explainer, of=name) for name in METHODS},
    "ablation_cam_before": partial(explainer, of="ablation_cam", before=True),
    "grad_cam_plus_plus_curved": _CURVED,
    "grad_cam_plus_plus_before": partial(_CURVED, before=True),
    "evaluator": evaluation,
}


def main() -> None:
    """Compiles what is asked for and not in the results, and prints all that is asked for."""
    parser = argparse.ArgumentParser(description="Compiles for TPUs, without one.")
    parser.add_argument("of", nargs="*", help=", ".join(PROGRAMS))
    parser.add_argument("--model", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--chips", nargs="*", type=int, choices=MESHES, default=MESHES)
    options = parser.parse_args()
    if unknown := {*options.of} - {*PROGRAMS}:
        parser.error(f"no method is called {sorted(unknown)}")
    asked = [(of, chips) for of in options.of or PROGRAMS for chips in options.chips]
    print(HEADING)
    for name in options.model:
        rows = known(name)
        for of, chips in asked:
            if (of, chips) not in rows:
                rows[of, chips] = {"of": of, "chips": chips} | row(MODELS[name](), of, chips)
                save(name, list(rows.values()))
            print(line(name, rows[of, chips], rows), flush=True)


def known(name: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows that a model has already."""
    rows = json.loads(path(name).read_text())["rows"] if path(name).exists() else []
    return {(row["of"], row["chips"]): row for row in rows}


def row(model: Model, of: str, chips: int) -> dict[str, Any]:
    """What the compiler says of one program for a mesh; of an error, its first line."""
    try:
        program = compiled(model, PROGRAMS[of](model), chips)
    except (NotImplementedError, ValueError, jax.errors.JaxRuntimeError) as error:
        return {"error": str(error).splitlines()[0]}
    return facts(program, longest(model, of, chips))


def longest(model: Model, of: str, chips: int) -> int:
    """The rounds of the one kind of loop whose length is unknown: where no channel is flat or 0."""
    name = of.removesuffix("_before")
    knobs = inspect.signature(METHODS[name]).parameters if name in METHODS else {}
    chunk_size = knobs["chunk_size"].default if "chunk_size" in knobs else 1
    layer = model.before if of.endswith("_before") else model.layer
    at: Any = layer if callable(layer) else jaxcam.split(model.apply_fn, layer)
    found = jax.eval_shape(lambda *given: at(*given)[0], model.variables, model.image)
    return -(-found.shape[-1] // MESHES[chips][1] // chunk_size)


def compiled(model: Model, explain: Callable[..., Any], chips: int) -> Any:
    """A program for TPUs: each group of chips that share an image's probes has one image."""
    topology = "v5e:2x2" if chips <= 4 else "v5e:16x16"
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    grid = np.array(devices[:chips]).reshape(MESHES[chips])
    mesh = jax.sharding.Mesh(grid, ("images", "probes"))
    images = jax.ShapeDtypeStruct((len(grid), *model.image.shape), model.image.dtype)
    targets = jax.ShapeDtypeStruct(images.shape[:1], jnp.int32)

    def placed(shapes: Any, spec: jax.P) -> Any:
        place = jax.NamedSharding(mesh, spec)
        struct = partial(jax.ShapeDtypeStruct, sharding=place)
        return jax.tree.map(lambda x: struct(x.shape, x.dtype), shapes)

    arguments = placed(model.variables, jax.P()), *placed((images, targets), jax.P("images"))
    spread = jaxcam.sharded(jax.vmap(explain, in_axes=(None, 0, 0)), mesh)
    return jax.jit(spread).lower(*arguments).compile()


def facts(compiled: Any, rounds: int) -> dict[str, Any]:
    """Memory, work and collectives of one device; loops of unknown length run `rounds` times."""
    text, memory = compiled.as_text(), compiled.memory_analysis()
    parts = hlo.computations(text)
    return {
        "temporary_mb": memory.temp_size_in_bytes / 1e6,
        "argument_mb": memory.argument_size_in_bytes / 1e6,
        "gflops": hlo.flops(parts, rounds) / 1e9,
        "estimated_megacycles": hlo.cycles(parts, rounds) / 1e6,
        "collectives": hlo.collectives(parts),
        "collectives_in_loops": hlo.collectives_in_loops(parts),
        "loops_after_collectives": hlo.loops_after_collectives(parts),
        "float64": "f64[" in text,
    }


def path(name: str) -> Path:
    """Of a model's results."""
    return timing.RESULTS / f"tpu-compiler-{name}.json"


def save(name: str, rows: list[dict[str, Any]]) -> None:
    """Writes the rows of a model, with the versions of the compiler and of JAX."""
    versions = {package: version(package) for package in ("jax", "jaxlib", "libtpu")}
    setting = {"compiled_for": "TPU v5e", "timed": False, "versions": versions}
    path(name).write_text(json.dumps({"environment": setting, "rows": rows}, indent=1) + "\n")


HEADING = (
    f"{'MB, GFLOPs and megacycles of one device':42}{'temp':>7}{'args':>5}{'GFLOPs':>10}"
    f"{'of 1/N':>7}{'loops':>6}{'Mcycles':>9}  collectives"
)


def line(name: str, row: dict[str, Any], rows: dict[tuple[str, int], dict[str, Any]]) -> str:
    """A row of the table; the loops are what is more than the forward pass, which all chips run."""
    title = f"{name:9} {row['of']:28}{row['chips']:4}"
    if "error" in row:
        return f"{title}  {row['error'][:65]}"
    alone, forward = (rows.get((of, 1), {}).get("gflops") for of in (row["of"], "uniform"))
    shares = [shared(row, alone, 0), shared(row, alone, forward)]
    kinds = ", ".join(f"{n} {kind}" for kind, n in row["collectives"].items())
    return (
        f"{title}{row['temporary_mb']:7.0f}{row['argument_mb']:5.0f}{row['gflops']:10.1f}"
        f"{shares[0]:>7}{shares[1]:>6}{row['estimated_megacycles']:9.1f}  {kinds}"
    )


def shared(row: dict[str, Any], alone: float | None, forward: float | None) -> str:
    """Work of a device over its share of one chip's work; without the forward pass of both."""
    if alone is None or forward is None or alone <= 1.01 * forward:
        return ""
    return f"{(row['gflops'] - forward) * MESHES[row['chips']][1] / (alone - forward):.2f}"


if __name__ == "__main__":
    main()
