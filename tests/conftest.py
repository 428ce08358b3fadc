"""Strict JAX, and every public signature's shapes checked, for all tests."""

import os
from pathlib import Path

# Most of the time goes into compiling programs that run once. CI also runs with XLA's own level.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it when it is imported

import jax
import pytest
from jaxtyping import install_import_hook

# What one test has compiled, the others and the processes that they start need not. Each worker has
# its own: JAX writes such a file in place, so that another worker may read half of it.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "programs" / WORKER
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
    "audit.report",
    "audit.verdict",
    "checks",
    "chunks",
    "cli",
    "compiling",
    "conventions",
    "cut",
    "demo",
    "derivatives",
    "explain",
    "files",
    "maps",
    "methods",
    "metrics",
    "pipeline",
    "render",
    "scores",
    "sharding",
    "tokens",
    "weights",
]
install_import_hook([f"jaxcam._src.{name}" for name in CHECKED], "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# On a CPU the default generator takes seconds to compile for each shape, this one a fraction.
jax.config.update("jax_default_prng_impl", "rbg")


@pytest.fixture
def x64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield
