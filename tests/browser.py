"""A browser for the tests of pages: Chromium by Playwright, where both are installed."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root it has no sandbox; what it would ask of the network by itself is off.
OPTIONS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update""".split()


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """A browser that is started once; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no browser {', '.join(NAMES)}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


class Watched:
    """A page from disk, of which errors and requests are noted.

    Attributes:
      page: of Playwright.
      faults: what it said to the console, threw, or asked of the network.
    """

    def __init__(self, browser: Any, width: int = 1200, **options: Any):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.set_default_timeout(20_000)

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.faults.append(url)

    def open(self, path: Any, chosen: str = "") -> "Watched":
        """Goes to a page, with what is chosen in its address."""
        self.page.goto(f"{path.as_uri()}#{chosen}")
        self.page.reload()  # which a change behind the # alone does not
        return self

    def tell(self, script: str, argument: Any = None) -> Any:
        """What an expression of the page's own names is."""
        return self.page.evaluate(script, argument)

    def wait_until(self, script: str) -> None:
        """Waits until an expression is true: the page's policy forbids Playwright's own way."""
        for _ in range(400):
            if self.tell(script):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"it never came true: {script}; {self.faults}")

    def drawn(self) -> None:
        """Waits until all canvases that are there are drawn."""
        self.wait_until("!document.querySelector('canvas[data-drawn=no]')")

    def pixels(self, selector: str) -> list[int]:
        """Those of a canvas, RGBA."""
        return self.page.evaluate(
            """(selector) => {
              const { width, height } = document.querySelector(selector);
              const context = document.querySelector(selector).getContext("2d");
              return [...context.getImageData(0, 0, width, height).data];
            }""",
            selector,
        )
