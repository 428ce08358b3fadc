"""What does Score-CAM cost, in time and in memory, against two PyTorch libraries?

Last stage of ResNet-18 or of ResNet-50 at 224 pixels, random weights, one image, the same number
of masked images at once. The rivals run channels first, as PyTorch does by itself; with ResNet-18
channels last too, and then what the knobs of `jaxcam.score_cam` save and change in the heatmap.

    python benchmarks/score_cam.py 18
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import resnet
import rivals
import timing
import torch
from resnet_torch import ResNet
from rich.console import Console
from rich.table import Table

import jaxcam

LAYER, TARGET, CHUNK = "layer4", 7, 16
REPEATS = {18: 3, 50: 2}
RIVALS = {
    "pytorch-grad-cam": ("pytorch_grad_cam", torch.contiguous_format),
    "torchcam": ("torchcam", torch.contiguous_format),
    "pytorch-grad-cam, channels last": ("pytorch_grad_cam", torch.channels_last),
    "torchcam, channels last": ("torchcam", torch.channels_last),
}
KNOBS = {
    "chunk_size=4": {"chunk_size": 4},
    "chunk_size=64": {"chunk_size": 64},
    "top_k=K/2": {"top_k": 1 / 2},
    "top_k=K/4": {"top_k": 1 / 4},
    "top_k=K/8": {"top_k": 1 / 8},
    "dtype=bfloat16": {"dtype": jax.numpy.bfloat16},
}


def main() -> None:
    """Prints the table and writes it to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("depth", type=int, choices=REPEATS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = _against_rivals(options.depth)
    rows += _knobs(options.depth) if options.depth == 18 else []
    _print(options.depth, rows)
    print(timing.save(f"score-cam-resnet{options.depth}", rows, **rivals.versions()))


def image() -> np.ndarray:
    """Noise, `[224, 224, 3]`; how much a pass costs does not depend on it."""
    return np.random.default_rng(0).random((224, 224, 3), np.float32)


def explain(depth: int, **knobs: Any) -> tuple[Callable[[], jaxcam.Explanation], float, float]:
    """The compiled call, the seconds to compile it, and its temporary memory in MB."""
    method = functools.partial(jaxcam.score_cam, **{"chunk_size": CHUNK} | knobs)
    explain = jaxcam.explainer(resnet.apply_fn, LAYER, method)
    weights = jax.device_put(resnet.weights(depth))
    return timing.compiled(explain, weights, jax.device_put(image()), TARGET)


def ours(depth: int) -> Callable[[], jaxcam.Explanation]:
    """The compiled call alone."""
    return explain(depth)[0]


def theirs(depth: int, rival: str, threads: int) -> Callable[[], np.ndarray]:
    """The call of a library."""
    torch.set_num_threads(threads)
    library, memory_format = RIVALS[rival]
    model = ResNet(depth, resnet.weights(depth)).to(memory_format=memory_format)
    images = torch.from_numpy(image()).to(rivals.DEVICE).permute(2, 0, 1)[None]
    images = images.contiguous(memory_format=memory_format)
    return rivals.explainer(library, "ScoreCAM", model, LAYER, images, [TARGET], chunk_size=CHUNK)


def _against_rivals(depth: int) -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    names = [rival for rival in RIVALS if depth == 18 or "last" not in rival]
    run, compile_s, temporary = explain(depth)
    runs = {"jaxcam": run} | {rival: theirs(depth, rival, threads) for rival in names}
    if rivals.DEVICE == "cpu":
        peaks = {"jaxcam": timing.peak_memory(ours, depth)}
        peaks |= {rival: timing.peak_memory(theirs, depth, rival, threads) for rival in names}
    else:
        peaks = {"jaxcam": temporary} | {rival: _added_on_the_gpu(runs[rival]) for rival in names}
    samples = timing.in_turns(runs, repeats=REPEATS[depth], warm_up=False)
    rows = [
        {
            "depth": depth,
            "of": name,
            "seconds": timing.median(taken),
            "maps_per_s": 1 / timing.median(taken),
            "jaxcam_over_it": timing.ratio(samples["jaxcam"], taken),
            "peak_mb": peaks[name],
            "samples_s": taken,
        }
        for name, taken in samples.items()
    ]
    compiled = {"compile_s": compile_s, "temporary_mb": temporary}
    return [rows[0] | _channels(depth) | compiled, *rows[1:]]


def _added_on_the_gpu(run: Callable[[], Any]) -> float:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def _knobs(depth: int) -> list[dict[str, Any]]:
    plain, _, _ = explain(depth)
    wanted = plain()
    rows = []
    for name, knobs in KNOBS.items():
        if "top_k" in knobs:
            knobs = {"top_k": int(wanted.weights.size * knobs["top_k"])}
        run, _, temporary = explain(depth, **knobs)
        error = abs(np.asarray(run().heatmap) - np.asarray(wanted.heatmap))
        samples = timing.in_turns({"plain": plain, "knob": run}, repeats=2, warm_up=False)
        rows.append(
            {
                "depth": depth,
                "of": f"jaxcam, {name}",
                "seconds": timing.median(samples["knob"]),
                "over_plain": timing.ratio(samples["knob"], samples["plain"]),
                "largest_error": float(error.max()),
                "mean_error": float(error.mean()),
                "temporary_mb": temporary,
                "samples_s": samples,
            }
        )
    return rows


def _channels(depth: int) -> dict[str, int]:
    tap = jaxcam.tap(resnet.apply_fn, LAYER, resnet.weights(depth), image(), TARGET)
    values = tap.activations.reshape(-1, tap.activations.shape[-1])
    flat = int((values == values[:1]).all(axis=0).sum())
    return {"channels": values.shape[1], "flat_channels": flat}


def _print(depth: int, rows: list[dict[str, Any]]) -> None:
    title = f"Score-CAM of ResNet-{depth}: {rows[0]['channels']} channels, {{}} of them flat"
    headings = "s", "ratio, in turns", "peak MB", "temporary MB", "largest error", "mean error"
    table = Table("", *headings, title=title.format(rows[0]["flat_channels"]))
    for row in rows:
        ratio = row.get("over_plain") or row["jaxcam_over_it"]
        word = "of plain" if "over_plain" in row else "jaxcam over it"
        spread = "{ratio:.2f} ({lowest:.2f} to {highest:.2f})".format(**ratio)
        keys = {
            "peak_mb": ".0f",
            "temporary_mb": ".0f",
            "largest_error": ".2g",
            "mean_error": ".2g",
        }
        numbers = (format(row[key], form) if key in row else "" for key, form in keys.items())
        table.add_row(row["of"], f"{row['seconds']:.2f}", f"{spread} {word}", *numbers)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
