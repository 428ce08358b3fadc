"""The pages that people read: the README and the notebooks, by their blocks and cells."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    """The cells of a notebook, "code" or "markdown"."""
    found = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def text(path: Path) -> str:
    """What is written on a page, without the code of a notebook."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n\n".join(cells(path, "markdown"))


def blocks(path: Path, language: str | None = None) -> list[str]:
    """The fenced blocks of a page, of one language or all."""
    return [
        block
        for name, block in re.findall(r"^```(\w+)\n(.*?)^```", text(path), re.M | re.S)
        if language in (None, name)
    ]


def languages(path: Path) -> set[str]:
    """Of which languages a page has blocks."""
    return set(re.findall(r"^```(\w+)\n", text(path), re.M))
