"""A real Chromium that opens the page from its file, and fails a test for whatever it puts on its console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished_run

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def finished(pico_model: Path) -> Path:
    """Folder of a finished run; read only."""
    return finished_run(pico_model)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a file as a browser's user would: ``opened(file, width=390, scheme="dark")``.

    What the console says is in ``opened.said``; at the end it must be empty.
    """
    said: list[str] = []
    asked: list[str] = []
    pages = []

    def open_page(file: Path, *, width: int = 1100, scheme: str = "light") -> Any:
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.absolute().as_uri())
        pages.append(page)
        return page

    open_page.said = said  # type: ignore[attr-defined]
    yield open_page
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("file:")] == []
