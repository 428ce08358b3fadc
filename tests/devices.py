"""What test_sharding.py runs in processes of its own, which have several devices.

    python devices.py 8             one process with 8 devices
    python devices.py 2 PORT INDEX  process INDEX of two, with 2 devices each

Prints a JSON object.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

import jaxcam
from jaxcam import metrics
from jaxcam._src.chunks import mapped_where

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import hlo

CHANNELS = 128
DEVICES, *REST = map(int, sys.argv[1:])
jax.config.update("jax_num_cpu_devices", DEVICES)
jax.config.update("jax_default_prng_impl", "rbg")  # which compiles quickly


def apply_fn(variables, image):
    """A network whose head couples all positions, so that its derivatives are dense."""
    x = jnp.tanh(image @ variables["stem"])[::2, ::2]
    x = jaxcam.tag(jnp.maximum(x @ variables["wide"], 0.1), "wide")
    x = jaxcam.tag(x.reshape(2, 2, 2, 2, -1).mean((1, 3)) @ variables["few"], "few")
    x = jnp.tanh(jnp.tanh(x.reshape(-1) @ variables["deep"]) @ variables["deeper"])
    return x @ variables["dense"]


def weights():
    shapes = {
        "stem": (3, 64),
        "wide": (64, CHANNELS),
        "few": (CHANNELS, 32),
        "deep": (128, 1024),
        "deeper": (1024, 1024),
        "dense": (1024, 5),
    }
    rng = np.random.default_rng(0)
    return {k: np.float32(rng.standard_normal(s) / s[0] ** 0.5) for k, s in shapes.items()}


def images(n=8):
    return np.random.default_rng(1).random((n, 8, 8, 3), np.float32)


def curvature(tap):
    """A method that shows the numbers of exact derivatives."""
    return sum(jaxcam.derivatives(tap.score_activations, tap.activations, chunk_size=EVERYTHING))


def noisy(tap):
    """SS-CAM, with the key that no module can make before all processes have met."""
    return jaxcam.ss_cam(tap, key=jax.random.key(0), samples=2, chunk_size=9)


EVERYTHING = 4 * CHANNELS  # so that the cost of one run through a loop's body is that of all runs
METHODS = {
    "grad_cam": ("wide", jaxcam.grad_cam),
    "score_cam": ("wide", functools.partial(jaxcam.score_cam, chunk_size=EVERYTHING)),
    "ablation_cam": ("wide", functools.partial(jaxcam.ablation_cam, chunk_size=EVERYTHING)),
    "derivatives": ("few", curvature),
    "score_cam in chunks": ("wide", functools.partial(jaxcam.score_cam, chunk_size=5)),
    "score_cam of 30": ("wide", functools.partial(jaxcam.score_cam, top_k=30, chunk_size=3)),
    "ss_cam": ("wide", noisy),
    "group_cam": (
        "wide",
        functools.partial(jaxcam.group_cam, groups=13, baseline_fn=jnp.negative, chunk_size=5),
    ),
    "recipro_cam": ("few", functools.partial(jaxcam.recipro_cam, chunk_size=3)),
}
ALL = ["2 x 4", "8 x 1", "1 x 8"]
MESHES = {name: ["2 x 4"] for name in METHODS} | {
    "grad_cam": ["8 x 1", "8 images", "sharded arrays"],
    "score_cam": [*ALL, "sharded arrays"],
    "ablation_cam": [*ALL, "8 probes"],
    "derivatives": ALL,
}


def explain_of(name):
    layer, method = METHODS[name]
    return jax.vmap(jaxcam.explainer(apply_fn, layer, method), in_axes=(None, 0, 0))


def judged(variables, image, target):
    """What an evaluation says of an image: by maps, by masked images, and along curves."""
    found = metrics.drop, metrics.coherency, metrics.deletion, metrics.entropy
    judging = {metric.__name__: metric for metric in found}
    methods = {"grad_cam": jaxcam.grad_cam, "layer_cam": jaxcam.layer_cam}
    evaluate = jaxcam.evaluator(apply_fn, "wide", methods, judging)
    return evaluate(variables, image, target).numbers


def compiled(f, *arguments):
    program = jax.jit(f).lower(*arguments).compile()
    return program(*arguments), (program.cost_analysis() or {})["flops"]


def collectives(name, mesh, arguments):
    """How many a program has, how many of them in loops, and how many loops come after one."""
    program = jax.jit(jaxcam.sharded(explain_of(name), mesh)).lower(*arguments).compile()
    parts = hlo.computations(program.as_text() or "")
    counted = sum(hlo.collectives(parts).values())
    return counted, hlo.collectives_in_loops(parts), hlo.loops_after_collectives(parts)


def difference(found, wanted):
    """Of heatmaps, which are in [0, 1], and of weights, as a share of the largest."""
    weights = np.asarray(wanted.weights)
    return max(
        float(abs(np.asarray(found.heatmap) - np.asarray(wanted.heatmap)).max()),
        float(abs(np.asarray(found.weights) - weights).max() / abs(weights).max()),
    )


def runs(n, mesh):
    """How often the devices of a mesh, together, run what `mapped_where` maps over n entries."""
    calls = []

    def counted(x):
        jax.debug.callback(lambda _: calls.append(1), x)
        return x

    def shared(xs):
        return mapped_where(counted, xs, xs >= 0, 0.0, 16)

    spread = jax.shard_map(shared, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False)
    jax.block_until_ready(jax.jit(spread)(jnp.arange(n, dtype=jnp.float32)))
    jax.effects_barrier()
    return len(calls)


def one_process():
    """Difference to one device, and share of its cost, for each method and mesh."""
    arguments = weights(), images(), np.arange(8) % 5
    auto = jax.make_mesh((8,), ("images",), axis_types=(AxisType.Auto,))  # as GSPMD has them
    meshes = {
        "2 x 4": jax.make_mesh((2, 4), ("images", "probes"), axis_types=(AxisType.Auto,) * 2),
        "8 x 1": jax.make_mesh((8, 1), ("images", "probes")),
        "8 images": auto,
        "1 x 8": jax.make_mesh((1, 8), ("images", "probes")),
        "8 probes": jax.make_mesh((8,), ("probes",)),
    }
    found: dict = {"runs": runs(17 * 8, meshes["8 probes"])}
    for name, used in MESHES.items():
        explain = explain_of(name)
        wanted, cost = compiled(explain, *arguments)
        for mesh in used:
            run, given = explain, arguments
            if mesh == "sharded arrays":
                placed = jax.NamedSharding(auto, jax.P("images"))
                given = arguments[0], *jax.device_put(arguments[1:], placed)
            else:
                run = jaxcam.sharded(explain, meshes[mesh])
            result, share = compiled(run, *given)
            found[f"{name}, {mesh}"] = difference(result, wanted), share / cost
    for name in ("score_cam", "ablation_cam", "derivatives"):
        found[f"collectives of {name}"] = collectives(name, meshes["1 x 8"], arguments)
    judge = jax.vmap(judged, in_axes=(None, 0, 0))
    wanted, cost = compiled(judge, *arguments)
    numbers, share = compiled(jaxcam.sharded(judge, meshes["8 x 1"]), *arguments)
    apart = jax.tree.map(lambda x, y: float(abs(x - y).max()), numbers, wanted)
    found["evaluator, 8 x 1"] = max(jax.tree.leaves(apart)), share / cost
    try:
        jaxcam.sharded(explain_of("grad_cam"), auto)(arguments[0], images(3))
    except ValueError as error:
        found["3 images"] = str(error)
    return found


def one_of_two(port, index):
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)
    mesh = jax.make_mesh((2, 2), ("images", "probes"))
    own = slice(4 * index, 4 * index + 4)  # what this process reads
    here = images()[own], np.arange(8)[own] % 5
    placed = jax.NamedSharding(mesh, jax.P("images"))
    global_arrays = [jax.make_array_from_process_local_data(placed, x) for x in here]
    explain = explain_of("score_cam in chunks")
    found = jax.jit(jaxcam.sharded(explain, mesh))(weights(), *global_arrays)
    wanted = jax.jit(explain)(weights(), *here)
    local = jax.tree.map(lambda x: x.addressable_shards[0].data, found)
    return {"shape": found.heatmap.shape, "difference": difference(local, wanted)}


if __name__ == "__main__":
    print(json.dumps(one_of_two(*REST) if REST else one_process()))
