"""The one timer of the benchmarks: compile apart, warm up, wait for the device, take the median."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

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


def compiled(f: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], float, float]:
    """Compiles a function for its arguments.

    Returns:
      The call, the seconds that compilation took, and the temporary memory of a call in MB.
    """
    start = time.perf_counter()
    program = jax.jit(f).lower(*arguments).compile()
    took = time.perf_counter() - start
    memory = program.memory_analysis()
    used = memory.temp_size_in_bytes / 1e6 if memory else float("nan")
    return lambda: program(*arguments), took, used


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
    """Writes `results/<question>-<device>.json`."""
    setting = environment(**versions)
    path = RESULTS / f"{question}-{setting['platform']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"environment": setting, "rows": rows}, indent=1) + "\n")
    return path
