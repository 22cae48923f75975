"""The studio over a long life: thousands of voices and results, odd names, broken networks, a server that restarts."""

from __future__ import annotations

import importlib.resources
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile as sf

from tests.support.browser import Browser
from tests.support.running.breaking import BreakingNetwork
from tests.support.running.quickstart import REFERENCE, Quickstart
from tests.support.running.studio import api, choose_files, enter, studio_browser, studio_server

VOICES, RESULTS = 10_000, 100_000
ODD_NAMES = (
    "\u05e7\u05d5\u05dc \u202e\u05e9\u05dc \u05de\u05e8\u05d9\u05dd",
    "\U0001f3a4" * 50,
    "<img src=x onerror=\"document.title='bad'\">",
    "W" * 100,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with studio_server(tmp_path_factory.mktemp("lasting")) as running:
        yield running


@pytest.fixture(scope="module")
def studio(server: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with studio_browser(tmp_path_factory.mktemp("profile"), refused=True) as running:
        yield enter(running, server)


def database(server: Quickstart) -> sqlite3.Connection:
    return sqlite3.connect(server.log.parent / "data" / "db.sqlite3", timeout=60)


def multiply(base: sqlite3.Connection, table: str, count: int, **own: str) -> None:
    """Copies the newest row of a table; own: columns of each copy as SQL, in which `i` is its number."""
    names = [row[1] for row in base.execute(f"PRAGMA table_info({table})") if row[1] not in own]
    same = ", ".join(f'"{name}"' for name in names)
    base.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
        f"INSERT INTO {table} ({', '.join(own)}, {same}) SELECT {', '.join(own.values())}, {same} FROM n, "
        f"(SELECT {same} FROM {table} ORDER BY created_at DESC LIMIT 1)"
    )


def no_violations(studio: Browser, where: Any) -> None:
    studio.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => null)))")
    found = studio.evaluate(
        """axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
            violations.map(({id, nodes}) => [id, nodes.map(({html}) => html.slice(0, 200))]))"""
    )
    assert found == [], where


def sources(studio: Browser, panel: str) -> None:
    """Opens one of the panels that voices are taken from, which a voice that is chosen hides."""
    if studio.evaluate("!document.querySelector('#current').hidden"):
        studio.click("#current .icon-cross")
    studio.click(f"#tab-{panel}")


@pytest.mark.browser
def test_a_refused_microphone_is_told_with_what_to_do(studio: Browser) -> None:
    studio.click("#tab-record")
    studio.click("#record")
    told = studio.wait("document.querySelector('#voice .notice')?.innerText")
    assert "microphone" in told and "browser" in told
    assert studio.evaluate("document.querySelector('#record').getAttribute('aria-pressed')") == "false"


@pytest.mark.browser
def test_a_voice_is_saved_with_tags_and_odd_names_break_nothing(studio: Browser, server: Quickstart) -> None:
    for name in ODD_NAMES:
        sources(studio, "file")
        choose_files(studio, "#reference-drop input", REFERENCE)
        studio.click("#current button.block")
        studio.write("#save-name", name)
        studio.write("#save-tags", "night、warm")
        studio.click("#save-consent")
        studio.click("#save-form .primary")
        studio.wait("!document.querySelector('#save-dialog').open && document.querySelector('#saved-voices .item')", 60)
    voices = api(server, "/voice/voices")["results"]
    assert [voice["name"] for voice in reversed(voices)] == list(ODD_NAMES)
    assert {tuple(voice["tags"]) for voice in voices} == {("night", "warm")}
    studio.size(360, 740)
    sources(studio, "saved")
    shown = "[...document.querySelectorAll('#saved-voices .item .title')].map((title) => title.textContent)"
    studio.wait(f"{shown}.length === 4")
    assert sorted(studio.evaluate(shown)) == sorted(ODD_NAMES)
    assert studio.evaluate("document.documentElement.scrollWidth") <= 360
    assert studio.evaluate("document.title") != "bad"
    studio.size(1280, 900)


@pytest.mark.browser
def test_axe_finds_nothing_in_panels_and_dialogs_in_any_colours_and_language(studio: Browser) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    studio.evaluate(f"{axe}; true")
    for language in ("zh-Hans", "en"):
        studio.click("#language")
        studio.wait(f"document.documentElement.lang === {language!r}")
        for dark in (False, True):
            studio.size(1280, 900, dark=dark)
            for panel in ("record", "file", "saved", "samples"):
                sources(studio, panel)
                studio.wait(f"!document.querySelector('#source-{panel}').hidden")
                no_violations(studio, (language, dark, panel))
            studio.click("#tab-saved")
            studio.click("#saved-voices .item .icon-pencil")
            studio.evaluate("document.querySelector('#speak-form details').open = true")
            no_violations(studio, (language, dark, "tags"))
    studio.size(1280, 900)


@pytest.mark.browser
def test_ten_thousand_voices_are_found_sorted_and_paged_by_the_server(studio: Browser, server: Quickstart) -> None:
    with database(server) as base:
        multiply(
            base, "voices_voice", VOICES, id="lower(hex(randomblob(16)))", name="'Voice ' || printf('%05d', i)",
            created_at="strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || i || ' minutes')",
        )  # fmt: skip
        names = [row[1] for row in base.execute("PRAGMA table_info(voices_voicesample)")]
        same = [f'"{name}"' for name in names if name not in ("id", "voice_id")]
        base.execute(
            f"INSERT INTO voices_voicesample (id, voice_id, {', '.join(same)}) "
            f"SELECT lower(hex(randomblob(16))), voice.id, one.{', one.'.join(same)} FROM voices_voice voice, "
            f"(SELECT * FROM voices_voicesample LIMIT 1) one WHERE voice.name LIKE 'Voice %'"
        )
    items = "document.querySelectorAll('#saved-voices .item').length"
    first = "document.querySelector('#saved-voices .title')?.textContent"
    sources(studio, "samples")
    studio.click("#tab-saved")
    studio.wait(f"{items} === 20")
    sort = "document.querySelector('#saved-sort')"
    studio.evaluate(f"{sort}.value = 'name'; {sort}.dispatchEvent(new Event('change'))")
    studio.wait(f"{first} === {ODD_NAMES[2]!r}")
    search = "document.querySelector('#saved-q')"
    studio.evaluate(f"{search}.value = 'voice 09999'; {search}.dispatchEvent(new Event('input'))")
    studio.wait(f"{items} === 1 && {first} === 'Voice 09999'")
    studio.evaluate(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")
    studio.wait(f"{items} === 20")
    studio.click("#saved-voices .more")
    studio.wait(f"{items} === 40")
    studio.evaluate(f"{sort}.value = 'newest'; {sort}.dispatchEvent(new Event('change'))")


@pytest.mark.browser
def test_a_history_of_100000_is_paged_and_searched_by_the_server(studio: Browser, server: Quickstart) -> None:
    made = requests.post(
        f"{server.base}/api/v1/voice/synthesize", data={"text": "The first of many."},
        files={"reference_audio": REFERENCE.read_bytes()}, headers={"X-API-Key": server.key},
        timeout=120,
    )  # fmt: skip
    assert made.status_code == 200, made.text
    with database(server) as base:
        moment = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || i || ' minutes')"
        own = {"id": "lower(hex(randomblob(16)))", "title": "'Take ' || i", "created_at": moment}
        multiply(base, "voices_synthesis", RESULTS, **own)
    items = "document.querySelectorAll('#history-syntheses .item').length"
    studio.click("#tab-history")
    studio.wait(f"{items} === 20")
    studio.click("#history-syntheses .more")
    studio.wait(f"{items} === 40")
    search = "document.querySelector('#history-q')"
    studio.evaluate(f"{search}.value = 'take 99999'; {search}.dispatchEvent(new Event('input'))")
    studio.wait(f"{items} === 1")
    studio.evaluate(f"{search}.value = ''; {search}.dispatchEvent(new Event('input'))")


@pytest.mark.browser
def test_an_upload_that_breaks_is_sent_again_and_made_once(studio: Browser, server: Quickstart, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sf.write(tmp_path / "Storm.wav", 0.1 * rng.standard_normal((44_100 * 12, 2)), 44_100)
    with BreakingNetwork(server.port) as network:
        studio.open(f"{network.base}/")
        studio.write("#key", server.key)
        studio.click("#key-form button.primary")
        studio.wait("!document.querySelector('#workspace').hidden")
        sources(studio, "samples")
        studio.click("#sample-voices .item .buttons button")
        studio.wait("!document.querySelector('#current').hidden")
        studio.click("#tab-cover")
        choose_files(studio, "#song-file", tmp_path / "Storm.wav")
        before = len(api(server, "/cover/jobs")["results"])
        studio.evaluate(
            """(window.said = [], new MutationObserver(() =>
                window.said.push(document.querySelector('#cover-state').textContent)
            ).observe(document.querySelector('#cover-state'), {childList: true, characterData: true, subtree: true}))
            && true"""
        )
        # A browser sends again by itself what breaks on a connection that it had used before.
        network.break_after(1_000_000, times=20)
        studio.click("#cover-button")
        studio.wait("window.said.some((words) => words.startsWith('The connection broke. Sending again in 2'))", 60)
        network.break_after(0, times=0)
        studio.wait("document.querySelectorAll('#jobs .job').length === 1", 60)
        assert network.broken >= 1
        assert len(api(server, "/cover/jobs")["results"]) == before + 1
        assert studio.evaluate("document.querySelector('#cover .notice.bad')?.innerText ?? ''") == ""
    # What this connection's end leaves in the log, and the way back to the page of the other tests.
    studio.open(f"{server.base}/")
    studio.wait("!document.querySelector('#workspace').hidden")
    studio.complaints[:] = [line for line in studio.complaints if "ERR_" not in line]


@pytest.mark.browser
def test_a_page_left_open_over_a_restart_goes_on(studio: Browser, server: Quickstart) -> None:
    studio.size(1280, 900)
    studio.click("#tab-speak")
    sources(studio, "samples")
    studio.click("#sample-voices .item .buttons button")
    studio.wait("!document.querySelector('#current').hidden")
    studio.write("#text", "Still here after the restart.")
    key = server.key
    server.stop()
    studio.click("#speak-button")
    studio.wait("document.querySelector('#speak-form .notice.bad')?.innerText.includes('could not be reached')")
    assert studio.evaluate("document.querySelector('#text').value") == "Still here after the restart."
    back = Quickstart(server.log.parent / "data", again=server).ready()
    try:
        studio.click("#speak-button")
        studio.wait("document.querySelector('#speak-state').textContent.startsWith('Done')", 120)
        path = f"{back.base}/api/v1/voice/syntheses?q=restart"
        (made,) = requests.get(path, headers={"X-API-Key": key}, timeout=60).json()["results"]
        assert made["status"] == "succeeded"
    finally:
        back.stop()
    studio.complaints[:] = [line for line in studio.complaints if "ERR_CONNECTION_REFUSED" not in line]
