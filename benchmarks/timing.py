"""The one timer of the benchmarks: compile apart, warm up, wait for the device, take the median."""

import ctypes
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcam

RESULTS = Path(__file__).parent / "results"


def seconds(run: Callable[[], Any], *, repeats: int = 3) -> list[float]:
    """Runs once to warm up, then several times, and returns how long each took."""
    samples = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())  # an array of another library is ready, and passes
        if i:
            samples.append(time.perf_counter() - start)
    return samples


def in_turns(
    runs: Mapping[str, Callable[[], Any]], *, repeats: int = 3, warm_up: bool = True
) -> dict[str, list[float]]:
    """Times several programs in turns, since machines drift.

    `warm_up` is for programs that may be slower at first; not for those of many seconds, of which
    the first call's share is small.
    """
    samples = {name: [] for name in runs}
    for i in range(repeats + warm_up):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if i >= warm_up:
                samples[name].append(time.perf_counter() - start)
    return samples


def ratio(samples: list[float], others: list[float]) -> dict[str, float]:
    """How long the one took over the other: of the medians, and the extremes of the turns."""
    each = [one / other for one, other in zip(samples, others, strict=True)]
    return {"ratio": median(samples) / median(others), "lowest": min(each), "highest": max(each)}


def compiled(f: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], float, float]:
    """Compiles a function for its arguments.

    Returns:
      The call, the seconds that compilation took, and the temporary memory of a call in MB.
    """
    start = time.perf_counter()
    options = jaxcam.compiler_options()
    program = jax.jit(f, compiler_options=options).lower(*arguments).compile()
    took = time.perf_counter() - start
    memory = program.memory_analysis()
    used = memory.temp_size_in_bytes / 1e6 if memory else float("nan")
    return lambda: program(*arguments), took, used


def peak_memory(make: Callable[..., Callable[[], Any]], *arguments: Any) -> float:
    """Resident memory in MB that `make(*arguments)()` adds at its peak, in a process of its own.

    What `make` itself takes, such as the model, is not counted. Linux only.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_added_at_peak, make, *arguments).result()


def _added_at_peak(make: Callable[..., Callable[[], Any]], *arguments: Any) -> float:
    run = make(*arguments)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _status("VmRSS")
    jax.block_until_ready(run())
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def median(samples: list[float]) -> float:
    """The median of some samples."""
    return statistics.median(samples)


def environment(**versions: str) -> dict[str, Any]:
    """What a timing depends on beside the code."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"jax": jax.__version__, "numpy": np.__version__} | versions,
    }


def save(question: str, rows: list[dict[str, Any]], **versions: str) -> Path:
    """Writes `results/<question>-<platform>.json`."""
    path, setting = _results_of(question), environment(**versions)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"environment": setting, "rows": rows}, indent=1) + "\n")
    return path


def saved(question: str) -> list[dict[str, Any]]:
    """The rows that `save` wrote, to which others can be added.

    Raises:
      ValueError: they were not taken in this environment.
    """
    path, setting = _results_of(question), environment()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if found.get("environment") != setting:
        was = found.get("environment", "no environment")
        raise ValueError(f"{path} is of {was}, this is {setting}; run all rows")
    return found["rows"]


def _results_of(question: str) -> Path:
    return RESULTS / f"{question}-{jax.devices()[0].platform}.json"
