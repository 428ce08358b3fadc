"""Strict JAX, and every public signature's shapes checked, for all tests."""

import os
from pathlib import Path

from flags import FLAGS

os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))  # CI also runs with XLA's own

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it when it is imported

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

# What one test has compiled, the others and the processes that they start need not. A program that
# another worker is just writing cannot be read, of which JAX warns, and is compiled again.
PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "programs"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(PROGRAMS)  # for processes
jax.config.update("jax_compilation_cache_dir", str(PROGRAMS))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# All but `base` and `audit.record`: their records are pytrees, whose leaves a transformation may
# replace by anything.
CHECKED = [
    "adapters",
    "arithmetic",
    "audit.attack",
    "audit.compare",
    "audit.figures",
    "audit.price",
    "audit.report",
    "audit.sample",
    "audit.verdict",
    "checks",
    "chunks",
    "cli",
    "compiling",
    "conventions",
    "cut",
    "demo",
    "derivatives",
    "evaluation",
    "explain",
    "files",
    "fusions",
    "logits",
    "maps",
    "methods",
    "metrics",
    "pipeline",
    "render",
    "report",
    "scores",
    "sharding",
    "taps",
    "tokens",
]
install_import_hook([f"jaxcam._src.{name}" for name in CHECKED], "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# On a CPU the default generator takes seconds to compile for each shape, this one a fraction.
jax.config.update("jax_default_prng_impl", "rbg")


@pytest.fixture
def rng():
    """Draws the same numbers in whatever order the tests run."""
    return np.random.default_rng(0)


@pytest.fixture
def optimised(monkeypatch):
    """Optimises programs that ask for `compiler_options()`: for code that runs long."""
    import jaxcam  # not above: the hook has to be there first

    options = {"xla_backend_optimization_level": "3", "xla_llvm_disable_expensive_passes": "False"}
    for name, value in options.items():
        monkeypatch.setitem(jaxcam.CPU_COMPILER_OPTIONS, name, value)


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
