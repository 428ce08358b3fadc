"""Imports go strictly down, siblings do not import each other, and importing is light."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1] / "jaxcam"
FLOORS = [
    {"shown"},
    {"arithmetic", "base", "compiling", "extras", "frames", "names"},
    {"blurring", "cut", "fusions", "logits", "maps", "render"},
    {"scores"},
    {"chunks"},
    {"derivatives", "sharding"},
    {"adapters", "methods", "metrics"},
    {"checks", "conventions", "files"},
    {"taps", "tokens"},
    {"explain", "explanations", "suggest"},
    {"evaluation"},
    {"audit", "pipeline"},
    {"demo", "report"},
    {"cli"},
]
READERS_OF_JAXPRS = {"cut", "derivatives/structure"}


def _imports(path: Path) -> list[tuple[str, ast.stmt]]:
    """The modules that a file imports, with the statement."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from jaxcam._src import files` imports jaxcam._src.files.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                (name, node) for name in (names if node.module == "jaxcam._src" else [node.module])
            ]
    return found


def _part(path: Path) -> str:
    return path.relative_to(ROOT / "_src").parts[0].removesuffix(".py")


def test_every_module_has_a_floor():
    parts = {_part(path) for path in (ROOT / "_src").rglob("*.py")} - {"__init__"}
    assert parts == set().union(*FLOORS)


def test_imports_go_strictly_down():
    floor_of = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
    for path in (ROOT / "_src").rglob("*.py"):
        for name, _ in _imports(path):
            if name.startswith("jaxcam._src.") and _part(path) != "__init__":
                imported = name.split(".")[2]
                assert imported == _part(path) or floor_of[imported] < floor_of[_part(path)], (
                    f"{path} imports {name}"
                )


def test_only_the_cut_and_the_structure_read_jaxprs():
    for path in (ROOT / "_src").rglob("*.py"):
        inner = path.relative_to(ROOT / "_src").as_posix()
        if not inner.startswith(tuple(READERS_OF_JAXPRS)):
            for name, _ in _imports(path):
                assert not name.startswith(("jax.extend", "jax.interpreters", "jax.core")), path


def test_only_adapters_and_the_demo_know_a_framework():
    for path in (ROOT / "_src").rglob("*.py"):
        if _part(path) not in {"adapters", "demo"}:
            packages = {name.split(".")[0] for name, _ in _imports(path)}
            assert not packages & {"equinox", "flax", "haiku", "keras"}, path


def test_importing_jaxcam_loads_none_of_the_frameworks():
    heavy = ["equinox", "flax", "haiku", "keras", "optax", "matplotlib", "PIL", "rich", "sklearn"]
    code = f"import sys, jaxcam; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_public_names_are_listed_and_documented():
    import jaxcam

    public = {name for name in vars(jaxcam) if not name.startswith("_")}
    assert public == set(jaxcam.__all__)
    for name in public:
        assert getattr(jaxcam, name).__doc__, name
