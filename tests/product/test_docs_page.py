"""`/docs` as a reader uses it: a key, a text, a file chosen by hand, and what comes back is heard."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser
from tests.support.missing import needs
from tests.support.running.quickstart import SAMPLES, Quickstart

pytestmark = pytest.mark.browser
# With SCREENSHOTS=<folder> it can be looked at.
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    needs("chromium")
    running = Quickstart(tmp_path_factory.mktemp("docs") / "data").ready()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, product: Quickstart) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        opened.size(1100, 1400)
        yield opened


def look(browser: Browser, name: str) -> None:
    if SCREENSHOTS:
        browser.screenshot(Path(SCREENSHOTS, f"{name}.png"))


def opened(browser: Browser, product: Quickstart, page: str, operation: str) -> str:
    """The selector of an operation that is open and may be tried, with the key given."""
    given = "document.querySelector('.auth-wrapper .authorize.locked') && location.pathname"
    if browser.evaluate(given) != page:  # To draw a page with all its operations takes seconds.
        browser.open(f"{product.base}{page}")
        browser.click(".auth-wrapper .authorize")
        browser.write(".modal-ux .auth-container input[type=text]", product.key)
        browser.click(".modal-ux .auth-container .authorize")
        browser.click(".modal-ux .btn-done")
        assert browser.wait(given) == page
    place = f"div[id$='{operation}']"
    browser.click(f"{place} .opblock-summary-control")
    browser.click(f"{place} .try-out__btn")
    return place


def filled(browser: Browser, place: str) -> dict[str, str]:
    """The fields of the form that have a value."""
    return browser.evaluate(
        f"""Object.fromEntries([...document.querySelectorAll({json.dumps(place)} + ' tr[data-property-name]')]
        .map(row => [row.dataset.propertyName, row.querySelector('input[type=text], textarea, select')?.value])
        .filter(([name, value]) => value))"""
    )


def execute(browser: Browser, place: str) -> str:
    browser.click(f"{place} .execute")
    status: str = browser.wait(
        f"document.querySelector({json.dumps(place)} + ' .live-responses-table tbody .response-col_status')?.innerText",
        60,
    )
    return status.split()[0]


def test_speech_is_tried_and_heard(browser: Browser, product: Quickstart) -> None:
    place = opened(browser, product, "/docs", "-voice-synthesize")
    browser.wait(f"!!document.querySelector({json.dumps(place)} + ' input[type=file]')")
    assert filled(browser, place) == {"text": "Hello, this is a test"}
    browser.choose_file(f"{place} input[type=file]", SAMPLES / "reference.flac")
    look(browser, "docs-form")
    assert execute(browser, place) == "200"
    audio = f"document.querySelector({json.dumps(place)} + ' .playable audio')"
    assert 0.3 < browser.wait(f"{audio}?.duration") < 10
    browser.evaluate(f"{audio}.play()")
    assert browser.wait(f"{audio}.currentTime > 0.1")
    browser.evaluate(f"{audio}.scrollIntoView({{block: 'center'}})")
    look(browser, "docs-answer")
    # Swagger UI has no field of its own for some formats, and says so.
    assert [said for said in browser.complaints if not said.startswith("Could not find component")] == []


def test_a_cover_is_asked_for_with_nothing_but_its_files(browser: Browser, product: Quickstart) -> None:
    place = opened(browser, product, "/docs", "-cover-create_cover")
    browser.wait(f"!!document.querySelector({json.dumps(place)} + ' input[type=file]')")
    assert filled(browser, place) == {}
    for name, file in (("song", "song.ogg"), ("reference_voice", "reference.flac")):
        browser.choose_file(f"{place} tr[data-property-name={name}] input[type=file]", SAMPLES / file)
    look(browser, "docs-cover")
    assert execute(browser, place) == "202"


@pytest.mark.parametrize(
    ("page", "operation", "body"),
    [
        ("/openai/docs", "-Speech-post_audio_speech", {"input": "Hello.", "voice": "alloy"}),
        ("/elevenlabs/docs", "-post_text_to_speech_by_voice_id", {"text": "Hello."}),
    ],
)
def test_the_other_services_have_pages_where_speech_is_heard(
    browser: Browser, product: Quickstart, page: str, operation: str, body: dict[str, Any]
) -> None:
    place = opened(browser, product, page, operation)
    if "elevenlabs" in page:
        browser.write(f"{place} tr[data-param-name=voice_id] input", "alloy")
    browser.write(f"{place} textarea.body-param__text", json.dumps(body))
    assert execute(browser, place) == "200"
    assert 0.1 < browser.wait(f"document.querySelector({json.dumps(place)} + ' .playable audio')?.duration") < 10
    look(browser, f"docs-{page.split('/')[1]}")


@pytest.mark.parametrize(
    ("page", "operation"),
    [
        ("/docs", "-voice-synthesize"),
        ("/openai/docs", "-Speech-post_audio_speech"),
        ("/elevenlabs/docs", "-post_text_to_speech_by_voice_id"),
    ],
)
def test_axe_finds_nothing_where_an_operation_is_tried_wide_and_on_a_phone(
    browser: Browser, product: Quickstart, page: str, operation: str
) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    place = opened(browser, product, page, operation)
    browser.wait(f"!!document.querySelector({json.dumps(place)} + ' .execute')")
    browser.evaluate(f"{axe}; true")
    for pixels in (1100, 360):
        browser.size(pixels, 900)
        browser.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        found = browser.evaluate(
            """axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
                violations.map(({id, nodes}) => [id, nodes.slice(0, 5).map(({html}) => html.slice(0, 200))]))"""
        )
        assert found == [], pixels
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), pixels


def test_redoc_asks_no_other_host_and_tells_its_parts_to_everybody(browser: Browser, product: Quickstart) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.size(1440, 900)
    before = len(browser.complaints)
    browser.open(f"{product.base}/redoc")
    browser.wait("document.querySelector('img[alt=\"redocly logo\"]')?.hidden && !!document.querySelector('h5')", 60)
    browser.evaluate(f"{axe}; true")
    # Its colours take axe twenty seconds; they were looked at once.
    found = browser.evaluate(
        """axe.run(document, {resultTypes: ['violations'], rules: {'color-contrast': {enabled: false}}})
            .then(({violations}) => violations.map(({id, nodes}) => [id, nodes[0].html.slice(0, 200)]))"""
    )
    assert found == []
    assert browser.complaints[before:] == []
