"""How programs are compiled: an option for convolutions on CPUs, and where programs are kept."""

import contextlib
import functools
import os
from pathlib import Path

import jax

CPU_COMPILER_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}
"""For `jax.jit(explain, compiler_options=...)` on a CPU: convolutions on all of its cores.

By default XLA gives convolutions to a library that seems to use one thread where they have few
output channels. `compiler_options()` is the same, and empty where it does not apply.
"""


@functools.cache
def compiler_options() -> dict[str, str]:
    """What to give `jax.jit` as `compiler_options`, so that convolutions on a CPU use all cores.

    Returns:
      `CPU_COMPILER_OPTIONS`, or no option where JAX's default backend is no CPU, or where this
      version of XLA does not know the option.

    >>> explain = jaxcam.explainer(apply_fn, "stage3")
    >>> explain = jax.jit(explain, compiler_options=jaxcam.compiler_options())
    """
    if jax.default_backend() != "cpu":
        return {}
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # of XLA, for an option it lacks
        jax.jit(lambda x: x, compiler_options=CPU_COMPILER_OPTIONS).lower(0.0).compile()
        return CPU_COMPILER_OPTIONS
    return {}


def keep_programs() -> str | None:
    """Keeps compiled programs on disk, for the next process that compiles the same.

    In the folder that the user gave JAX, as `JAX_COMPILATION_CACHE_DIR`; else in `jaxcam` below
    `$XDG_CACHE_HOME` or `~/.cache`. What lies there is run as it is, so that folder must be the
    user's own, and nobody else may write to it.

    Returns:
      Why no programs are kept; None where they are.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
            folder = folder / "jaxcam"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner, rights = folder.stat().st_uid, folder.stat().st_mode
        except (OSError, RuntimeError, ValueError) as error:  # no home, or none to write to
            return f"compiled programs are not kept: {error}"
        if hasattr(os, "getuid") and (owner != os.getuid() or rights & 0o022):
            return (
                f"compiled programs are not kept: {folder} is not yours alone to write to; "
                f"chmod 700 {folder}, or set JAX_COMPILATION_CACHE_DIR to a folder that is"
            )
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return None
