"""The studio with a product behind it, as tests of several files open it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.support.browser import Browser
from tests.support.covers import INFER, SEPARATE
from tests.support.missing import needs
from tests.support.running.quickstart import Quickstart


@contextmanager
def studio_server(folder: Path, **environment: str) -> Iterator[Quickstart]:
    """Speech is the built-in engine's; a cover's commands are quick and untrue, slow enough to be watched."""
    running = Quickstart(
        folder / "data",
        COVER_SEPARATE_CMD_TEMPLATE=f"{SEPARATE} slow",
        COVER_FIND_VOICE="false",
        COVER_INFER_CMD_TEMPLATE=f"{INFER} slow --reference {{reference_voice}}",
        **environment,
    ).ready()
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def studio_browser(folder: Path, **options: Any) -> Iterator[Browser]:
    """A browser as wide as a small desktop's, with a profile of its own; options: of Browser."""
    needs("chromium")
    with Browser(folder, **options) as browser:
        browser.size(1280, 900)
        yield browser


def enter(browser: Browser, server: Quickstart, before: str = "", base: str = "") -> Browser:
    """Opens the page and pastes the key. before: a script that runs ahead of the page's own; base: where the server is
    reached, if not at its own address."""
    browser.open(f"{base or server.base}/", before=before)
    return paste_key(browser, server.key)


def paste_key(browser: Browser, key: str) -> Browser:
    browser.write("#key", key)
    browser.click("#key-form button.primary")
    browser.wait("!document.querySelector('#workspace').hidden")
    return browser


def choose_files(browser: Browser, selector: str, *paths: Path) -> None:
    """As a person who chooses several files at once."""
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])


def api(server: Quickstart, path: str, **query: str) -> Any:
    response = requests.get(f"{server.base}/api/v1{path}", query, headers={"X-API-Key": server.key}, timeout=60)
    response.raise_for_status()
    return response.json()
