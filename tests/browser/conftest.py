"""A browser on the dashboard. Where no chromium is, these tests skip and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

CHROMIUM = os.environ.get("CHROMIUM") or next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

PATIENCE_MS = 120_000
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]  # in a container it may be root, with little shared memory


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by Playwright; no longer than the module, as its loop would be in the way of async tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, as in serveconf[dev]")
    if CHROMIUM is None:
        pytest.skip("needs chromium: 'apt install chromium', or its path in CHROMIUM")
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A control API with nothing applied yet."""
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def page(browser: Any, stage: Stage) -> Iterator[Any]:
    """A page that is signed in, and stays without an error in its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if is_fault(message) else None)
    sign_in(page, stage)
    yield page
    context.close()
    assert not wrong


def is_fault(message: Any) -> bool:
    """What a page's code or its policy complains of; an answer that refuses something is none."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def sign_in(page: Any, stage: Stage) -> None:
    """Open a one-time address, as ``serveconf dashboard`` prints it."""
    answer = page.request.post(f"{stage.url}/api/v1/sign-in", headers={"authorization": "Bearer secret"})
    page.goto(answer.json()["address"])
    page.wait_for_selector("h1")
