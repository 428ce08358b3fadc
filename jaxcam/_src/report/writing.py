"""The page: one file that opens from disk, or beyond so many images one with a folder beside it.

Its policy lets it run its own script, known by a hash, and nothing else. Data are inert JSON in
the document; where they are too many, scripts that the page's own script loads, since a page from
disk may not fetch.
"""

import base64
import contextlib
import hashlib
import html
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from jaxcam import __version__
from jaxcam._src.files import UsageError, writable_folder
from jaxcam._src.render import colours_of

MOST_INSIDE = 2000  # images of a page without a folder beside it
COLOURS = ("viridis", "cividis", "turbo", "magma", "gray")
SIGNED_COLOURS = "RdBu_r"
_LOADS = " 'strict-dynamic'"  # the page's own script may load others
_NO_SINKS = "; require-trusted-types-for 'script'"  # nor make any of text, nor markup
_PAGE = Path(__file__).parent / "page"
_SCRIPTS = (
    "data maps photographs state selection painting controls cards grid classes large summary main"
).split()


def check_out(out: Path) -> None:
    """Refuses a place where no page can be written.

    Raises:
      UsageError: it is a folder, cannot be written to, or has a folder of something else beside it.
    """
    if out.is_dir():
        raise UsageError(f"{out} is a folder; give --out the name of a file, such as report.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out is {out}; wanted a name that ends in .html")
    writable_folder(out.parent)
    beside = _beside(out)
    if beside.exists() and not all(path.suffix == ".js" for path in beside.iterdir()):
        raise UsageError(f"{beside} holds other files than those of a report; choose another --out")


def write(
    out: Path, head_of: Callable[[], Mapping[str, Any]], shards: Iterable[Mapping], count: int
) -> None:
    """Writes the page of so many images, which appears when it is whole, or not at all.

    Args:
      out: the file.
      head_of: makes what is written last, when all shards have been made.
      shards: photographs and maps of a part of the images each.
      count: how many images there are.
    """
    inside = count <= MOST_INSIDE
    with _in_place(out) as part:
        (part / "shards").mkdir()
        for number, shard in enumerate(shards):
            content = _inert(shard)
            if not inside:
                content = f"jaxcamShard({number}, {content});\n"
            (part / "shards" / f"{number}.js").write_text(content)
        folder = None if inside else _beside(out).name
        head = head_of()
        title = f"Class activation maps of {head['model']}"
        blocks = {"report": _inert({**head, "folder": folder, "colours": _colours()})}
        if inside:
            found = sorted((part / "shards").iterdir(), key=lambda path: int(path.stem))
            blocks |= {f"shard-{path.stem}": path.read_text() for path in found}
            shutil.rmtree(part / "shards")
        (part / "page").write_text(document(blocks, title, inside), encoding="utf-8")


def document(blocks: Mapping[str, str], title: str, inside: bool) -> str:
    """The page with these blocks of JSON; `inside` tells that no shard is beside it."""
    style = (_PAGE / "style.css").read_text()
    script = '"use strict";\n' + "\n".join((_PAGE / f"{n}.js").read_text() for n in _SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'{_NO_SINKS if inside else _LOADS}; "
        f"style-src '{_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    data = "\n".join(
        f'<script type="application/json" id="{html.escape(name)}">{content}</script>'
        for name, content in blocks.items()
    )
    return Template((_PAGE / "page.html").read_text()).substitute(
        policy=html.escape(policy, quote=False),
        title=html.escape(title),
        version=__version__,
        style=style,
        data=data,
        script=script,
    )


def _inert(content: Mapping[str, Any]) -> str:
    """JSON in which nothing can end the element that holds it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _colours() -> dict[str, str]:
    """Each colour map as 256 colours of three bytes."""
    tables = {name: colours_of(name) for name in (*COLOURS, SIGNED_COLOURS)}
    return {name: base64.b64encode(table.tobytes()).decode() for name, table in tables.items()}


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}_shards")


@contextlib.contextmanager
def _in_place(out: Path) -> Iterator[Path]:
    """A folder for `page` and, if wanted, `shards`, which take their places at the end."""
    with tempfile.TemporaryDirectory(prefix=".jaxcam-", dir=out.parent) as name:
        part = Path(name)
        yield part
        if _beside(out).exists():  # of the page that is replaced
            _beside(out).replace(part / "before")
        if (part / "shards").exists():
            (part / "shards").replace(_beside(out))
        (part / "page").replace(out)
