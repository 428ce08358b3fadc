"""XLA's flags for tests: most of their time goes into compiling programs that run once."""

from importlib.metadata import version

FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
# A third of the time to compile; a version that does not know a flag aborts.
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
