"""What do exact second and third derivatives cost, against direct evaluation in JAX and PyTorch?

For the tops of known networks at full size: jaxcam; three nested forward derivatives along every
coordinate, some at a time, in JAX; and the same in PyTorch (`torch.func`, left out where torch is
not installed). The rivals are given the faster of two ways each. Where they would take long they
are timed on a sample of the directions, which are all alike, and the time is scaled to all;
`jaxcam` is timed whole, but for the dense case, where both run the same sample, and for tops of
which some channels stand for all.

    python benchmarks/derivatives.py [part of a top's name ...]
"""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
from gated_tops import GATED_TOPS
from rich.console import Console
from rich.table import Table
from tops import TOPS, Top

import jaxcam

CHUNK = 64  # directions at once, for the rivals
# How many directions are timed of the slowest; elsewhere 512.
SAMPLES = {"VGG-16": 64, "ViT-B": 8, "its last block": 64}
TARGET = 7
SCORES = {"logit": jaxcam.logit, "log-probability": jaxcam.log_probability}


def main() -> None:
    """Prints the table and writes it to `results/`, or puts the rows that are asked for into it.

    Raises:
      ValueError: rows are asked for, and those in `results/` are of another environment.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tops", nargs="*", help="parts of names; default: all")
    asked = parser.parse_args().tops
    # The weights of PyTorch's functions lie on the CPU.
    has_torch = importlib.util.find_spec("torch") is not None and jax.default_backend() == "cpu"
    known, rows = timing.saved("derivatives") if asked else [], []
    for name, make in (TOPS | GATED_TOPS).items():
        if asked and not any(part in name for part in asked):
            rows += [row for row in known if row["top"] == name]
        else:
            top = make()
            for score in SCORES:
                rows.append(_row(name, top, score, has_torch))
                _print(rows[-1:])
    _print(rows)
    print(timing.save("derivatives", rows))


def _row(name: str, top: Top, score: str, has_torch: bool) -> dict[str, Any]:
    x = jnp.asarray(top.activations)
    sample = next((n for part, n in SAMPLES.items() if part in name), 512)

    def f(a):
        return SCORES[score](top.in_jax(a), TARGET)

    start = time.perf_counter()
    found = jaxcam.structure(f, x)
    analysis = time.perf_counter() - start
    row = {"top": name, "score": score, "numbers": x.size, "structure": str(found)}
    row |= {"directions": found.directions, "analysis_s": analysis}
    if found.kind == "dense":
        point, g = _restricted(f, x, sample)
        run, row["compile_s"], row["memory_mb"] = timing.compiled(
            functools.partial(jaxcam.derivatives, g, chunk_size=CHUNK), point
        )
        row["jaxcam_samples_s"] = [s * x.size / sample for s in timing.seconds(run)]
    else:
        point, g = _of_channels(f, x, top.timed_channels) if top.timed_channels else (x, f)
        exact = functools.partial(jaxcam.derivatives, g)
        run, row["compile_s"], row["memory_mb"] = timing.compiled(exact, point)
        scale = x.size / point.size
        row["jaxcam_samples_s"] = [scale * s for s in timing.seconds(run, repeats=3)]
    row["jaxcam_s"] = timing.median(row["jaxcam_samples_s"])
    row |= _best("jax", _jax_rivals(f, x, sample), x.size / sample)
    if has_torch:
        row |= _best("torch", _torch_rivals(top, score, sample), x.size / sample)
        row["torch_version"] = version("torch")
    rivals = [row[f"{r}_s"] for r in ("jax", "torch") if f"{r}_s" in row]
    row["ratio"] = min(rivals) / row["jaxcam_s"]
    if found.kind == "piecewise linear":
        row |= _price_of_grad_cam(top)
    return row


def _restricted(f: Callable, x: jax.Array, count: int) -> tuple[jax.Array, Callable]:
    """The same function of some of its coordinates alone."""
    chosen = jnp.asarray(np.random.default_rng(1).choice(x.size, count, replace=False))
    flat = x.reshape(-1)
    return flat[chosen], lambda y: f(flat.at[chosen].set(y).reshape(x.shape))


def _of_channels(f: Callable, x: jax.Array, count: int) -> tuple[jax.Array, Callable]:
    """The same function of the first channels alone."""
    rest = x.at[..., :count].set(0)
    put = jnp.eye(count, x.shape[-1])
    return x[..., :count], lambda y: f(y @ put + rest)


def _best(
    rival: str, ways: Iterator[tuple[str, Callable[[], Any], float]], scale: float
) -> dict[str, Any]:
    """The fastest of a rival's ways, scaled from the sample to all directions."""
    timed = [(timing.seconds(run), way, memory) for way, run, memory in ways]
    samples, way, memory = min(timed, key=lambda t: timing.median(t[0]))
    samples = [s * scale for s in samples]
    return {
        f"{rival}_s": timing.median(samples),
        f"{rival}_samples_s": samples,
        f"{rival}_way": way,
        f"{rival}_memory_mb": memory,
        f"{rival}_ways_s": {w: timing.median(s) * scale for s, w, _ in timed},
    }


def _jax_rivals(f: Callable, x: jax.Array, sample: int) -> Iterator[tuple[str, Callable, float]]:
    """Three nested forward derivatives, with explicit tangents or in one variable t."""

    def basis(i):
        return jnp.zeros(x.size, x.dtype).at[i].set(1).reshape(x.shape)

    def explicit(x, i):
        d1 = lambda a: jax.jvp(f, (a,), (basis(i),))[1]  # noqa: E731
        d2 = lambda a: jax.jvp(d1, (a,), (basis(i),))  # noqa: E731
        return jax.jvp(d2, (x,), (basis(i),))

    def in_t(x, i):
        g = lambda t: f(x + t * basis(i))  # noqa: E731
        d1 = lambda t: jax.jvp(g, (t,), (1.0,))[1]  # noqa: E731
        d2 = lambda t: jax.jvp(d1, (t,), (1.0,))  # noqa: E731
        return jax.jvp(d2, (0.0,), (1.0,))

    chosen = jnp.asarray(np.random.default_rng(1).choice(x.size, sample, replace=False))
    for way, along in {"explicit tangents": explicit, "in t": in_t}.items():

        def all_of(x, chosen, along=along):
            return jax.lax.map(functools.partial(along, x), chosen, batch_size=min(CHUNK, sample))

        run, _, memory = timing.compiled(all_of, x, chosen)
        yield way, run, memory


def _torch_rivals(top: Top, score: str, sample: int) -> Iterator[tuple[str, Callable, float]]:
    """`vmap` of three nested `jvp`, and of two `jvp` of the gradient read at the coordinate."""
    import torch
    from torch.func import grad, jvp, vmap

    x = torch.from_numpy(top.activations)
    chosen = torch.from_numpy(np.random.default_rng(1).choice(x.numel(), sample, replace=False))

    def f(a):
        logits = top.in_torch(a)
        return logits[TARGET] if score == "logit" else torch.log_softmax(logits, 0)[TARGET]

    def nested(v):
        d1 = lambda a: jvp(f, (a,), (v,))[1]  # noqa: E731
        d2 = lambda a: jvp(d1, (a,), (v,))  # noqa: E731
        return jvp(d2, (x,), (v,))

    def of_gradient(v):
        d1 = lambda a: jvp(grad(f), (a,), (v,))[1]  # noqa: E731
        second, third = jvp(d1, (x,), (v,))
        return (second * v).sum(), (third * v).sum()

    for way, along in {"nested jvp": nested, "jvp of jvp of grad": of_gradient}.items():

        def all_of(along=along):
            for indices in chosen.split(CHUNK):
                basis = torch.zeros(len(indices), x.numel())
                basis[torch.arange(len(indices)), indices] = 1
                vmap(along)(basis.reshape(-1, *x.shape))

        yield way, all_of, float("nan")


def _price_of_grad_cam(top: Top) -> dict[str, Any]:
    """A whole explanation by Grad-CAM++ over one by Grad-CAM, of the top alone, in turns."""

    def apply_fn(_, x):
        return top.in_jax(jaxcam.tag(x, "layer"))

    x = jnp.asarray(top.activations)
    methods = {
        "grad_cam": jaxcam.grad_cam,
        "closed": functools.partial(jaxcam.grad_cam_plus_plus, derivatives_fn=jaxcam.closed_form),
        "exact": jaxcam.grad_cam_plus_plus,
    }
    runs, samples = {}, {name: [] for name in methods}
    for name, method in methods.items():
        explain = functools.partial(jaxcam.explainer(apply_fn, "layer", method), None)
        runs[name], _, _ = timing.compiled(explain, x, TARGET)
    for _ in range(10):
        for name, run in runs.items():
            samples[name] += timing.seconds(run, repeats=10)
    medians = {name: timing.median(taken) for name, taken in samples.items()}
    return {
        "explanation_s": medians,
        "over_grad_cam": medians["exact"] / medians["grad_cam"],
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(
        "top", "score", "proved", "analysis s", "jaxcam s", "MB", "JAX s", "torch s", "ratio"
    )
    for row in rows:
        over = f"; {row['over_grad_cam']:.2f} Grad-CAM" if "over_grad_cam" in row else ""
        table.add_row(
            row["top"],
            row["score"],
            row["structure"],
            f"{row['analysis_s']:.3f}",
            f"{row['jaxcam_s']:.4g}",
            f"{row['memory_mb']:.0f}",
            f"{row['jax_s']:.4g}",
            f"{row['torch_s']:.4g}" if "torch_s" in row else "-",
            f"{row['ratio']:.3g}{over}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
