"""A headless browser for tests of pages: the system's own Chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass
class Tab:
    """An open page.

    Attributes:
        page: of playwright.
        errors: what the page's scripts complained about, and requests that were not for `file:`, `data:` or localhost.
    """

    page: Any
    errors: list[str] = field(default_factory=list[str])


def executable() -> str | None:
    """The system's browser; None leaves playwright its own (`playwright install chromium`)."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def opened(address: str, *, dark: bool = False, width: int = 1100, height: int = 900) -> Generator[Tab]:
    """The page at `address` ("file:///...", "http://127.0.0.1:..."), loaded, in a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        tab = Tab(page)
        page.on("console", lambda message: tab.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: tab.errors.append(str(error)))
        page.on("request", lambda request: tab.errors.extend(_strange(request.url)))
        page.goto(address)
        try:
            yield tab
        finally:
            browser.close()


def _strange(url: str) -> list[str]:
    own = ("file:", "data:", "blob:", "http://127.0.0.1", "http://localhost")
    return [] if url.startswith(own) else [f"asked for {url}"]
