"""The studio in two tabs of one browser, with one account: what one changes, deletes or leaves is seen in the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.browser import Browser
from tests.support.running.quickstart import REFERENCE, SAMPLES, Quickstart
from tests.support.running.studio import api, choose_files, kept, paste_key, studio_browser, studio_server
from tests.support.waiting import until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with studio_server(tmp_path_factory.mktemp("tabs")) as running:
        yield running


@pytest.fixture(scope="module")
def one(server: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A tab in which the key was remembered."""
    with studio_browser(tmp_path_factory.mktemp("profile")) as running:
        running.open(f"{server.base}/")
        running.click("#remember")
        yield paste_key(running, server.key)


@pytest.fixture(scope="module")
def two(one: Browser, server: Quickstart) -> Browser:
    other = one.tab()
    other.size(1280, 900)
    other.open(f"{server.base}/")
    other.wait("!document.querySelector('#workspace').hidden")
    return other


def front(tab: Browser) -> Browser:
    """The tab that the person looks at now: only its dialogs open and close."""
    tab.call("Page.bringToFront")
    return tab


def change(server: Quickstart, method: str, path: str, **more: Any) -> requests.Response:
    """By a program, or on another device."""
    url = f"{server.base}/api/v1{path}"
    response = requests.request(method, url, headers={"X-API-Key": server.key}, timeout=120, **more)
    response.raise_for_status()
    return response


def saved(server: Quickstart, name: str) -> str:
    consent = "The speaker of this recording is me, or has agreed that their voice is cloned and used here."
    form = {"name": name, "consent": consent}
    files = {"sample": ("r.flac", REFERENCE.read_bytes())}
    return change(server, "POST", "/voice/voices", data=form, files=files).json()["voice_id"]


def panel(tab: Browser, name: str) -> None:
    if tab.evaluate("!document.querySelector('#current').hidden"):
        tab.click("#current .icon-cross")
    tab.click(f"#tab-{name}")


def test_what_is_made_named_and_deleted_in_one_tab_is_so_in_the_other(
    one: Browser, two: Browser, server: Quickstart
) -> None:
    front(one)
    one.click("#try-voices button")
    one.wait("document.querySelector('#speak-state').textContent.startsWith('Done')", 120)
    two.wait("document.querySelectorAll('#spoken .item').length === 1")
    name = "<i>\u0645\u0631\u062d\u0628\u0627</i>"
    one.click("#spoken .naming button")
    one.write("#spoken form.naming input", name)
    one.press("Enter")
    two.wait(f"document.querySelector('#spoken .name').textContent === {json.dumps(name)}")
    one.click("#spoken .icon-trash")
    one.click("#ask .danger")
    two.wait("!document.querySelector('#spoken .item')")
    assert api(server, "/voice/syntheses")["results"] == []


def test_a_cover_that_one_tab_deletes_leaves_the_other(one: Browser, two: Browser, server: Quickstart) -> None:
    front(one)
    one.click("#tab-cover")
    front(two)
    two.click("#tab-history")
    two.click("#tab-covers")
    choose_files(one, "#song-file", SAMPLES / "song.ogg")
    front(one)
    one.click("#cover-button")
    one.wait("document.querySelector('#jobs .job')", 60)
    two.wait("document.querySelectorAll('#jobs .job').length === 1")  # Behind the history.
    one.wait("document.querySelector('#jobs .job[data-status=succeeded]')", 120)
    front(two)
    two.click("#history-refresh")
    two.wait("document.querySelector('#history-covers .job[data-status=succeeded]')")
    two.click("#history-covers .icon-trash")
    two.click("#ask .danger")
    for tab in (one, two):
        tab.wait("!document.querySelector('.job')")
    assert api(server, "/cover/jobs")["results"] == []


def test_a_voice_that_is_chosen_follows_its_name_and_goes_with_it(
    one: Browser, two: Browser, server: Quickstart
) -> None:
    voice = saved(server, "Grandmother")
    for tab in (one, two):
        tab.click("#tab-speak")
        panel(tab, "saved")
        tab.wait("document.querySelectorAll('#saved-voices .item').length === 1")
    front(two)
    two.click("#saved-voices .player .icon-check")
    two.wait("document.querySelector('#current .title')?.textContent === 'Grandmother'")
    front(one)
    one.click("#saved-voices .icon-pencil")
    one.write("#saved-voices form .field input", " ")
    one.press("Enter")
    one.wait("document.querySelector('#saved-voices form .notice')?.innerText === 'Give the voice a name.'")
    one.write("#saved-voices form .field input", "Oma \U0001f475")
    one.write("#saved-voices form .field:nth-of-type(2) input", "warm, family")
    one.press("Enter")
    one.wait("document.querySelector('#saved-voices .title')?.textContent === 'Oma \U0001f475'")
    two.wait("document.querySelector('#current .title')?.textContent === 'Oma \U0001f475'")
    assert api(server, f"/voice/voices/{voice}")["tags"] == ["warm", "family"]
    one.click("#saved-voices .icon-trash")
    one.click("#ask .danger")
    gone = "document.querySelector('#voice > .notices').innerText"
    assert two.wait(f"{gone}.includes('deleted') && {gone}").startswith("The voice “Oma \U0001f475” was deleted.")
    assert two.evaluate("document.querySelector('#current').hidden")


def test_a_voice_that_is_deleted_on_another_device_is_told_when_it_is_to_speak(
    two: Browser, server: Quickstart
) -> None:
    voice = saved(server, "Elsewhere")
    front(two)
    two.click("#tab-samples")
    panel(two, "saved")
    two.wait("document.querySelector('#saved-voices .title')?.textContent === 'Elsewhere'")
    two.click("#saved-voices .player .icon-check")
    two.write("#text", "Nobody is left to say this.")
    change(server, "DELETE", f"/voice/voices/{voice}")
    two.click("#speak-button")
    told = "document.querySelector('#speak-form > .notices').innerText"
    assert two.wait(f"{told} && {told}") == "The voice “Elsewhere” was deleted. Choose another one."
    assert two.evaluate("document.querySelector('#text').value") == "Nobody is left to say this."


def test_each_tab_has_its_own_draft_over_a_reload(one: Browser, two: Browser) -> None:
    one.write("#text", "The draft of the first.")
    two.write("#text", "The draft of the second.")
    one.wait(kept("speak", "row.text === 'The draft of the first.'"))
    two.wait(kept("speak", "row.text === 'The draft of the second.'"))
    for tab, draft in ((one, "The draft of the first."), (two, "The draft of the second.")):
        tab.evaluate("window.old = true; location.reload()")
        tab.wait(f"!window.old && document.querySelector('#text')?.value === {draft!r}")


def test_a_new_tab_begins_with_the_last_draft_stored_once(one: Browser, two: Browser, server: Quickstart) -> None:
    new = one.tab()
    new.size(1280, 900)
    new.open(f"{server.base}/")
    new.wait("document.querySelector('#text')?.value === 'The draft of the second.'")
    found = new.evaluate("""new Promise((resolve) => {
        indexedDB.open('studio').onsuccess = ({target}) => {
            const rows = target.result.transaction('kept').objectStore('kept');
            const [keys, values] = [rows.getAllKeys(), rows.getAll()];
            values.onsuccess = () => resolve(keys.result.map((key, index) => [key, values.result[index].value?.text]));
        };
    })""")
    drafts = [text for key, text in found if key.endswith(" speak")]
    assert drafts.count("The draft of the second.") == 1
    assert ["device speak", None] in [[key, text] for key, text in found]
    new.open("about:blank")


def test_words_that_both_tabs_write_down_are_all_kept(one: Browser, two: Browser, server: Quickstart) -> None:
    for tab in (one, two):
        tab.click("#words summary")
        tab.wait("document.querySelector('#words-list input')")
    for tab, word, say in ((one, "SQL", "sequel"), (two, "GIF", "jif")):
        tab.write("#words-list input", word)
        tab.write("#words-list input:nth-of-type(2)", say)
        tab.click("#words-save")
        tab.wait("document.querySelector('#toast').textContent.includes('pronunciation')")
    two.wait("document.querySelectorAll('#words-list .word').length === 2")
    (lexicon,) = api(server, "/voice/lexicons")["results"]

    def words() -> set[str]:
        return {entry["word"] for entry in api(server, f"/voice/lexicons/{lexicon['lexicon_id']}")["entries"]}

    assert words() == {"SQL", "GIF"}
    front(one)
    one.click("#words-list [aria-label='Remove this word']")  # Which of them knows of SQL alone.
    one.click("#words-save")
    until(lambda: words() == {"GIF"}, 60)


def test_a_key_that_one_tab_forgets_or_that_is_revoked_opens_no_other(
    one: Browser, two: Browser, server: Quickstart
) -> None:
    front(one)
    one.click("#key-button")
    one.click("#ask .danger")
    two.wait("document.querySelector('#workspace').hidden")
    assert two.evaluate("document.querySelector('#key-form .notices').innerText") == (
        "The key was forgotten in another tab."
    )
    assert two.evaluate("localStorage.getItem('studio.key')") is None
    scopes = ["synthesize", "covers", "voices"]
    made = change(server, "POST", "/keys", json={"name": "tabs", "scopes": scopes}).json()
    for tab in (one, two):
        paste_key(front(tab), made["secret"])
    two.write("#text", "Written before the key ended.")
    change(server, "DELETE", f"/keys/{made['id']}")
    front(two)
    # Whatever it asks next; it may still be asking for its lists.
    two.evaluate("document.querySelector('#tab-history').click()")
    two.wait("document.querySelector('#workspace').hidden")
    assert "not valid" in two.evaluate("document.querySelector('#key-form .notices').innerText")
    assert two.evaluate("document.querySelector('#text').value") == "Written before the key ended."
    for tab in (one, two):
        quiet = [line for line in tab.complaints if "status of 401" not in line and "status of 404" not in line]
        assert quiet == []
        assert tab.other_hosts(server.base) == []
