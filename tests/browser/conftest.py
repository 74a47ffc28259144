"""Fixtures: one JupyterLab and one Chromium for all browser tests, one notebook page for each."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parent))

from lab_driver import LabServer, NotebookPage, chromium, find_chromium

MISSING = "there is no Chromium here (Debian and Ubuntu: sudo apt-get install chromium)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them with one line where there is no browser."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.browser)
        if find_chromium() is None and os.environ.get("COMPRESSKIT_REQUIRE_BROWSER") != "1":
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> Iterator[LabServer]:
    """A JupyterLab that ends with the tests, also when they are terminated."""
    if find_chromium() is None:
        pytest.fail(MISSING)
    server = LabServer(tmp_path_factory.mktemp("lab"))
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield server
        server.shut_down_kernels()
    finally:
        signal.signal(signal.SIGTERM, previous)
        server.stop()


@pytest.fixture(scope="session")
def browser():
    """One Chromium."""
    with chromium() as started:
        yield started


def new_page(browser: Browser) -> Page:
    """A page with everything that the tests need."""
    context = browser.new_context(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"])
    return context.new_page()


@contextmanager
def opener(lab: LabServer, browser: Browser, prefix: str, kept: list[Page]) -> Iterator[Callable[..., NotebookPage]]:
    """Open notebooks; at the end close them and fail on what their consoles complained of.

    Starting JupyterLab in a page costs more than most tests: `kept` holds a page where it runs already, or nothing.
    """
    pages: list[NotebookPage] = []

    def open_page(cells: Sequence[str], *, width: int = 1280, height: int = 1400, fresh: bool = False) -> NotebookPage:
        name = f"{prefix}-{len(pages)}.ipynb"
        lab.write(name, cells)
        loaded = bool(kept) and not fresh
        page = kept.pop() if loaded else new_page(browser)
        page.set_viewport_size({"width": width, "height": height})
        pages.append(NotebookPage(page, lab, name, loaded=loaded))
        return pages[-1]

    failed = True
    try:
        yield open_page
        failed = False
    finally:
        for page in pages:
            if failed or kept or page.errors or page.page.is_closed():
                page.page.context.close()
            else:
                page.leave()
                kept.append(page.page)
        lab.shut_down_kernels([page.name for page in pages])
    heard = [error for page in pages for error in page.errors]
    assert heard == [], heard


@pytest.fixture(scope="session")
def kept() -> list[Page]:
    """A page that shows a lab without a notebook, once a test has left one."""
    return []


@pytest.fixture
def open_notebook(lab, browser, kept, request) -> Iterator[Callable[..., NotebookPage]]:
    """``open_notebook([cell, ...], width=1280)`` gives a page; errors in its console fail the test at the end.

    With ``fresh=True`` the page is new, and can be loaded again.
    """
    with opener(lab, browser, request.node.name.replace("[", "-").strip("]"), kept) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def open_shared(lab, browser, request) -> Iterator[Callable[..., NotebookPage]]:
    """Like `open_notebook`, for a page that the tests of a module share, with a lab of its own."""
    with opener(lab, browser, Path(request.node.name).stem, []) as open_page:
        yield open_page
