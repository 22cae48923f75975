"""The studio with a product behind it, as tests of several files open it."""

from __future__ import annotations

import json
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
    browser.choose_file(selector, *paths)


def remember_words(browser: Browser, selector: str) -> None:
    """From now on the page remembers what stands in the elements that match, however short: see `words_seen`."""
    browser.evaluate(f"""(() => {{
        window.wordsSeen = new Set();
        const look = () => {{
            for (const one of document.querySelectorAll({json.dumps(selector)})) wordsSeen.add(one.textContent);
        }};
        new MutationObserver(look).observe(document.body, {{subtree: true, childList: true, characterData: true}});
        look();
    }})()""")


def words_seen(browser: Browser) -> list[str]:
    words: list[str] = browser.evaluate("[...wordsSeen]")
    return words


def kept(name: str, condition: str) -> str:
    """An expression that is true once the browser has kept such a draft (`row`), so that a reload finds it."""
    return f"""new Promise((resolve) => {{
        indexedDB.open('studio').onsuccess = ({{target}}) => {{
            const rows = target.result.transaction('kept').objectStore('kept');
            const found = [rows.getAllKeys(), rows.getAll()];
            found[1].onsuccess = () => resolve(found[0].result.some((key, index) => {{
                const row = found[1].result[index].value;
                return key.endsWith(' {name}') && row && ({condition});
            }}));
        }};
    }})"""


def api(server: Quickstart, path: str, **query: str) -> Any:
    response = requests.get(f"{server.base}/api/v1{path}", query, headers={"X-API-Key": server.key}, timeout=60)
    response.raise_for_status()
    return response.json()
