"""The studio's panels with the keyboard alone: controls are reached, show that they are, and leave the focus near."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.support.browser import Browser
from tests.support.running.quickstart import REFERENCE, SAMPLES, Quickstart
from tests.support.running.studio import api, choose_files, studio_browser, studio_server

pytestmark = pytest.mark.browser
MOST_STOPS = 80
SHIFT = 8
HERE = "document.activeElement"
NAME = f"""({HERE}.id || {HERE}.getAttribute('aria-label') || {HERE}.innerText?.trim() || {HERE}.className)"""
# An outline, or a card's border; a file's input is invisible, and the zone around it shows where one is.
SHOWN = f"""(() => {{
    const seen = {HERE}.closest('.drop') ?? {HERE};
    const look = getComputedStyle(seen);
    return (look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) >= 1) || seen.matches('.item');
}})()"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with studio_server(tmp_path_factory.mktemp("keyboard")) as running:
        consent = "The speaker of this recording is me, or has agreed that their voice is cloned and used here."
        for name in ("First", "Second"):
            response = requests.post(
                f"{running.base}/api/v1/voice/voices", {"name": name, "consent": consent}, timeout=60,
                files={"sample": REFERENCE.read_bytes()}, headers={"X-API-Key": running.key},
            )  # fmt: skip
            assert response.status_code == 201, response.text
        yield running


@pytest.fixture(scope="module")
def studio(server: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Entered without a mouse."""
    with studio_browser(tmp_path_factory.mktemp("profile")) as running:
        running.open(f"{server.base}/")
        running.wait("!document.querySelector('#welcome').hidden")
        to(running, "key")
        running.call("Input.insertText", text=server.key)
        running.press("Enter")
        running.wait("!document.querySelector('#workspace').hidden")
        yield running


def to(studio: Browser, name: str, back: bool = False) -> None:
    """Tab until the control with this id, label or text has the focus; each on the way shows that it had."""
    passed: list[str] = []
    for _ in range(MOST_STOPS):
        studio.press("Tab", modifiers=SHIFT if back else 0)
        found = studio.evaluate(NAME)
        passed.append(found)
        if found == "" or studio.evaluate(f"{HERE} === document.body"):
            continue  # Between the page and the browser's own controls.
        assert studio.evaluate(SHOWN), f"{found} does not show that it has the focus"
        if found == name:
            return
    raise AssertionError(f"{name} is not reached: {passed}")


def write(studio: Browser, text: str) -> None:
    """In place of what stands in the field that has the focus."""
    studio.evaluate(f"{HERE}.select()")
    studio.call("Input.insertText", text=text)


def test_the_four_sources_are_gone_through_with_the_arrows(studio: Browser) -> None:
    to(studio, "tab-record")
    for panel in ("file", "saved", "samples", "record"):
        studio.press("ArrowRight")
        assert studio.evaluate(NAME) == f"tab-{panel}"
        assert studio.evaluate(f"!document.querySelector('#source-{panel}').hidden")
    studio.press("ArrowLeft")
    studio.press("ArrowLeft")
    assert studio.evaluate(NAME) == "tab-saved"


def test_saved_voices_are_searched_named_tagged_taken_and_deleted(studio: Browser, server: Quickstart) -> None:
    studio.wait("document.querySelectorAll('#saved-voices .item').length === 2")
    to(studio, "saved-q")
    write(studio, "first")
    studio.wait("document.querySelectorAll('#saved-voices .item').length === 1")
    to(studio, "saved-sort")
    to(studio, "Rename and tag")
    studio.press("Enter")
    studio.wait(f"{HERE}.value === 'First'")
    write(studio, "First of all")
    studio.press("Tab")
    write(studio, "warm")
    studio.press("Enter")
    # Back where it was opened, for the next one.
    studio.wait(f"{NAME} === 'Rename and tag'")
    assert studio.evaluate("document.querySelector('#saved-voices .title').textContent") == "First of all"
    studio.press("Enter")
    studio.press("Escape")
    studio.wait(f"{NAME} === 'Rename and tag' && !document.querySelector('#saved-voices form')")
    to(studio, "Use")
    studio.press("Enter")
    # The list is gone: one goes on at the voice that was taken, and from it back to where voices come from.
    studio.wait(f"{NAME} === 'Play: Reference voice'")
    to(studio, "Take another voice", back=True)
    studio.press("Enter")
    studio.wait(f"{NAME} === 'tab-saved'")
    to(studio, "saved-q")
    write(studio, " ")
    studio.wait("document.querySelectorAll('#saved-voices .item').length === 2")
    to(studio, "Delete")
    studio.press("Enter")
    studio.wait("document.querySelector('#ask').open")
    to(studio, "Delete")
    studio.press("Enter")
    studio.wait("document.querySelectorAll('#saved-voices .item').length === 1")
    assert studio.evaluate(f"{HERE}.closest('#saved-voices .item') !== null")
    assert len(api(server, "/voice/voices")["results"]) == 1


def test_a_cover_is_sent_compared_renamed_and_deleted(studio: Browser, server: Quickstart) -> None:
    to(studio, "Use")
    studio.press("Enter")
    studio.wait(f"{NAME} === 'Play: Reference voice'")
    to(studio, "tab-speak", back=True)
    studio.press("ArrowRight")
    to(studio, "song-file")
    choose_files(studio, "#song-file", SAMPLES / "song.ogg")  # The browser's own window, which has its own keys.
    to(studio, "cover-button")
    studio.press("Enter")
    studio.wait("document.querySelector('#jobs .job[data-status=succeeded]')", 120)
    to(studio, "A/B")
    for now in ("Cover", "Vocals"):
        studio.press("Enter")
        studio.wait(f"document.querySelector('#announcer').textContent === 'Now playing: {now}'", 60)
    studio.evaluate("document.querySelector('.job [aria-pressed=true].round').click()")
    to(studio, "Share")
    studio.press("Enter")
    studio.wait(f"{NAME} === 'Make a link'")
    studio.press("Enter")
    studio.wait(f"{HERE}.value?.includes('/s/')")
    to(studio, "Take back")
    studio.press("Enter")
    studio.wait(f"{NAME} === 'Share'")
    to(studio, "Delete")
    studio.press("Enter")
    studio.wait("document.querySelector('#ask').open")
    to(studio, "Delete")
    studio.press("Enter")
    studio.wait("!document.querySelector('.job')")
    assert studio.evaluate(NAME) == "tab-cover"
    assert studio.complaints == []
