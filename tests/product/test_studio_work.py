"""The studio over a working day: what is heard first, what stays over a reload, names, states, limits, progress."""

from __future__ import annotations

import gzip
import importlib.resources
import json
import re
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile as sf

from tests.support.browser import Browser
from tests.support.running.quickstart import SAMPLES, Quickstart
from tests.support.running.studio import (
    api,
    choose_files,
    enter,
    kept,
    remember_words,
    studio_browser,
    studio_server,
    words_seen,
)  # fmt: skip
from tests.support.waiting import until
from voiceproject.media import audio

STATIC = Path(__file__).parents[2] / "voiceproject" / "static" / "studio"
PAGE = STATIC.parent.parent / "templates" / "voiceproject" / "studio.html"
MOST_BYTES = 200_000


def test_the_page_is_small() -> None:
    """Compressed, with both languages; the sample voices are fetched one by one when they are heard."""
    files = [PAGE, *(path for path in STATIC.iterdir() if path.is_file())]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < MOST_BYTES


def test_each_sample_voice_can_be_a_reference_and_has_a_licence() -> None:
    voices = json.loads((STATIC / "voices" / "voices.json").read_text(encoding="utf-8"))
    code = (STATIC / "voice.js").read_text(encoding="utf-8")
    listed = re.search(r"SAMPLE_NAMES = \[(.*)\];", code)
    assert listed is not None
    assert re.findall(r"'(\w+)'", listed[1]) == [voice["name"] for voice in voices]
    licences = (STATIC.parents[2] / "docs" / "voices-and-consent.md").read_text(encoding="utf-8")
    for voice in voices:
        warnings: list[str] = []
        path = STATIC / "voices" / f"{voice['name']}.mp3"
        samples, rate = audio.load_reference(path, field="reference_audio", warnings=warnings)
        assert 9 < len(samples) / rate < 15
        assert warnings == []
        assert np.abs(samples).max() > 0.5
        assert f"| `{voice['name']}` |" in licences


# --- In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    limits = {"MAX_UPLOAD_SIZE": "1000000", "COVER_MAX_UPLOAD_SIZE": "2000000", "COVER_MAX_DURATION_SECONDS": "20"}
    with studio_server(tmp_path_factory.mktemp("work"), **limits) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server: Quickstart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with studio_browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def studio(browser: Browser, server: Quickstart) -> Browser:
    return enter(browser, server)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    song, rate = sf.read(SAMPLES / "song.ogg", frames=44_100 * 11)
    sf.write(folder / "Snow in June.flac", song, rate)
    sf.write(folder / "Second song.flac", song[::-1], rate)
    sf.write(folder / "Long.ogg", song[: rate * 10].repeat(3, axis=0), rate)
    (folder / "Large.wav").write_bytes(bytes(2_040_000))
    return folder


def reload(studio: Browser) -> None:
    studio.evaluate("window.old = true; location.reload()")
    studio.wait("!window.old && document.querySelector('#workspace')?.hidden === false")


@pytest.mark.browser
def test_a_new_tenant_hears_a_voice_with_one_press(studio: Browser, server: Quickstart) -> None:
    studio.wait("!document.querySelector('#try').hidden")
    studio.click("#try-voices button")
    studio.wait("document.querySelector('#speak-state').textContent.startsWith('Done')", 120)
    (made,) = api(server, "/voice/syntheses")["results"]
    assert made["status"] == "succeeded" and made["duration_seconds"] > 3
    assert studio.evaluate("document.querySelector('#try').hidden")
    studio.wait("document.querySelector('#spoken .name').textContent.startsWith('Hello! Write whatever')")


@pytest.mark.browser
def test_a_reload_loses_neither_the_voice_nor_the_text_nor_what_was_made(studio: Browser, songs: Path) -> None:
    studio.write("#text", "Not sent yet.")
    studio.click("#tab-cover")
    choose_files(studio, "#song-file", songs / "Snow in June.flac", songs / "Second song.flac")
    studio.wait("document.querySelectorAll('#song .song').length === 2")
    studio.wait(kept("speak", "row.text === 'Not sent yet.'"))
    studio.wait(kept("cover", "row.songs.length === 2"))
    studio.wait(kept("voice", "row.sample"))
    reload(studio)
    studio.wait("document.querySelectorAll('#song .song').length === 2")
    studio.wait("document.querySelector('#current .title')?.textContent === 'Hazel, English'")
    studio.click("#tab-speak")
    assert studio.wait("document.querySelector('#text').value") == "Not sent yet."
    studio.wait("document.querySelectorAll('#spoken .item').length === 1")
    # Its waveform is there before it is played.
    drawn = "document.querySelector('#spoken .player:not(.waiting) .time')?.textContent"
    assert studio.wait(f"{drawn} !== '0:00' && {drawn}")


@pytest.mark.browser
def test_a_title_is_changed_where_it_stands_and_is_only_text(studio: Browser, server: Quickstart) -> None:
    title = "<b>Été</b> \u0623\u063a\u0646\u064a\u0629"
    studio.click("#spoken .naming button")
    studio.write("#spoken form.naming input", title)
    studio.press("Escape")
    studio.wait("document.querySelector('#spoken .name')?.textContent.startsWith('Hello!')")
    studio.click("#spoken .naming button")
    studio.write("#spoken form.naming input", title)
    studio.press("Enter")
    studio.wait(f"document.querySelector('#spoken .name')?.textContent === {json.dumps(title)}")
    (made,) = api(server, "/voice/syntheses", q="été")["results"] or api(server, "/voice/syntheses")["results"]
    assert made["title"] == title


@pytest.mark.browser
def test_limits_are_told_before_anything_is_sent(studio: Browser, songs: Path) -> None:
    studio.click("#tab-cover")
    asked = len(studio.requests)
    choose_files(studio, "#song-file", songs / "Large.wav")
    said = "document.querySelector('#cover-form .notices').innerText"
    assert "“Large.wav” has 1.95 MB; the limit is 1.91 MB." in studio.wait(said)
    choose_files(studio, "#song-file", songs / "Long.ogg")
    assert "“Long.ogg” lasts 0:30; the limit is 0:20." in studio.wait(f"{said}.includes('lasts') && {said}")
    studio.click("#song .song:last-child button[aria-label='Take another song']")
    assert [url for url in studio.requests[asked:] if "/cover/jobs" in url] == []


@pytest.mark.browser
def test_several_songs_are_sent_and_tell_what_they_do(studio: Browser, server: Quickstart) -> None:
    remember_words(studio, "#cover-state, .job .split:not(.top) .meta")
    studio.click("#cover-button")
    studio.wait("document.querySelectorAll('.job').length === 2", 60)
    studio.wait("document.querySelectorAll('.job[data-status=succeeded]').length === 2", 180)
    studio.wait("document.querySelector('#cover-state').textContent === ''")  # It is accepted no more, it is done.
    words = words_seen(studio)
    assert any(said.startswith("Accepted") for said in words) and any(" so far" in said for said in words), words
    jobs = api(server, "/cover/jobs")["results"]
    assert sorted(job["title"] for job in jobs) == ["Second song", "Snow in June"]
    names = studio.evaluate("[...document.querySelectorAll('.job .name')].map((name) => name.textContent)")
    assert sorted(names) == ["Second song", "Snow in June"]
    reload(studio)
    studio.wait("document.querySelectorAll('#jobs .job[data-status=succeeded]').length === 2")
    assert studio.evaluate("document.querySelectorAll('#song .song').length") == 0  # They were sent.


@pytest.mark.browser
def test_stems_are_compared_at_one_place_by_one_key(studio: Browser) -> None:
    studio.click("#tab-cover")
    studio.click(".job .track.result .round")
    place = "document.querySelector('.job .track.{} .waveform').getAttribute('aria-valuenow')"
    studio.wait(f"{place.format('result')} > 1")
    studio.evaluate("document.querySelector('.job .track.result .round').focus()")
    studio.call("Input.dispatchKeyEvent", type="keyDown", key="x", code="KeyX", windowsVirtualKeyCode=88)
    studio.call("Input.dispatchKeyEvent", type="keyUp", key="x", code="KeyX", windowsVirtualKeyCode=88)
    studio.wait("document.querySelector('.job .track.vocals .round').getAttribute('aria-pressed') === 'true'")
    assert (
        studio.evaluate("document.querySelector('.job .track.result .round').getAttribute('aria-pressed')") == "false"
    )
    assert float(studio.evaluate(place.format("vocals"))) > 1
    # What is gone back to starts at the very sample at which the other one stops, at its place.
    studio.evaluate("""(() => {
        window.nodes = [];
        for (const name of ['start', 'stop']) {
          const own = AudioBufferSourceNode.prototype[name];
          AudioBufferSourceNode.prototype[name] = function (...times) {
            window.nodes.push([name, ...times]);
            return own.apply(this, times);
          };
        }
    })()""")
    studio.evaluate("document.querySelector('.job .track.vocals .round').focus()")
    for _turn in range(3):
        moves = studio.evaluate("window.nodes.length")
        studio.click(".job [aria-keyshortcuts=X]")
        studio.wait(f"window.nodes.length === {moves + 2}")
    stops, starts = (
        [move[1:] for move in studio.evaluate("window.nodes") if move[0] == name] for name in ("stop", "start")
    )
    assert [when for (when,) in stops] == [when for when, _ in starts]
    for (before, place_before), (after, place_after) in pairwise(starts):
        assert place_after - place_before == pytest.approx(after - before, abs=0.5 / 48_000)
    studio.evaluate("document.querySelector('.job [aria-pressed=true].round').click()")


@pytest.mark.browser
def test_what_is_gone_is_not_called_done(studio: Browser, server: Quickstart) -> None:
    first, second = api(server, "/cover/jobs")["results"]
    with sqlite3.connect(server.log.parent / "data" / "db.sqlite3", timeout=20) as database:
        files = ", ".join(f"{name} = ''" for name in ("result", "vocals", "instrumental", "converted"))
        changes = {"revoked_at = CURRENT_TIMESTAMP": first, "files_expired = 1": second}
        for change, job in changes.items():
            job_id = job["job_id"].replace("-", "")
            database.execute(f"UPDATE covers_coverjob SET {change}, {files} WHERE id = ?", [job_id])
    reload(studio)
    studio.click("#tab-cover")
    shown = "[...document.querySelectorAll('#jobs .job .state')].map((state) => state.textContent).sort()"
    studio.wait("document.querySelectorAll('#jobs .job').length === 2")
    assert studio.evaluate(shown) == ["Expired: the file was deleted after its time", "Removed by the operator"]


@pytest.mark.browser
def test_the_history_is_searched_and_filtered(studio: Browser) -> None:
    studio.click("#tab-history")
    studio.click("#tab-covers")
    studio.wait("document.querySelectorAll('#history-covers .item').length === 2")
    studio.write("#history-q", "june")
    studio.wait("document.querySelectorAll('#history-covers .item').length === 1")
    assert studio.evaluate("document.querySelector('#history-covers .name').textContent") == "Snow in June"
    studio.evaluate(
        """(() => { const status = document.querySelector('#history-status'); status.value = 'failed';
        status.dispatchEvent(new Event('change')); })()"""
    )
    assert "Nothing was found." in studio.wait("document.querySelector('#history-covers .empty')?.innerText")


@pytest.mark.browser
def test_paragraphs_have_takes_and_become_one_recording_with_subtitles(
    studio: Browser, server: Quickstart, tmp_path: Path
) -> None:
    studio.click("#tab-speak")
    studio.write("#text", "The first paragraph is short.\n\nThe second one is spoken by itself.")
    studio.click("#speak-split")
    studio.wait("document.querySelectorAll('.paragraph').length === 2")
    studio.click("#doc-all")
    studio.wait("document.querySelectorAll('.take').length === 2", 180)
    studio.click(".paragraph button")  # Another take of the first one alone.
    studio.wait("document.querySelectorAll('.paragraph:first-child .take').length === 2", 90)
    studio.click(".paragraph:first-child .icon-down")
    takes = "[...document.querySelectorAll('.paragraph')].map((one) => one.querySelectorAll('.take').length)"
    assert studio.evaluate(takes) == [1, 2]
    reload(studio)
    studio.wait("document.querySelectorAll('.take').length === 3")
    assert studio.evaluate(takes) == [1, 2]
    studio.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for format in ("wav", "srt"):
        studio.evaluate(f"document.querySelector('#doc-format').value = '{format}'")
        studio.click("#doc-export")
        until(lambda format=format: [*tmp_path.glob(f"*.{format}")], 60)
    (recording,), (subtitles,) = tmp_path.glob("*.wav"), tmp_path.glob("*.srt")
    assert recording.stem == subtitles.stem == "The second one is spoken by itself."[:-1]
    lengths = [made["duration_seconds"] for made in api(server, "/voice/syntheses", page_size="3")["results"]]
    another, second, _first = lengths  # The newest take of the first paragraph is the one that was chosen.
    assert sf.info(recording).duration == pytest.approx(another + second + 0.5, abs=0.05)
    cues = subtitles.read_text(encoding="utf-8")
    assert re.findall(r"The \w+", cues) == ["The second", "The first"]
    studio.click("#doc-close")
    studio.click("#ask .danger")


@pytest.mark.browser
def test_a_result_is_passed_on_by_a_link_that_is_taken_back(studio: Browser, server: Quickstart) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    studio.click("#spoken .icon-share")
    studio.click("#spoken .inset .primary")
    url = studio.wait("document.querySelector('#spoken .inset input')?.value")
    page = requests.get(url, timeout=60)
    assert page.status_code == 200 and "Made by a machine" in page.text
    assert requests.get(f"{url}/audio", timeout=60).content.startswith(b"RIFF")
    # Nor does a name of 500 letters make it wider than a phone.
    made = api(server, "/voice/syntheses")["results"][0]
    path = f"{server.base}/api/v1/voice/syntheses/{made['synthesis_id']}"
    named = requests.patch(path, json={"title": "<b>\u0645" + "n" * 490}, headers={"X-API-Key": server.key}, timeout=60)
    assert named.status_code == 200, named.text
    phone = studio.tab()
    phone.size(360, 740)
    phone.open(url)
    phone.evaluate(f"{axe}; true")
    assert phone.evaluate("axe.run().then(({violations}) => violations.map(({id}) => id))") == []
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    studio.call("Page.bringToFront")
    studio.click("#spoken .inset .tight button:last-child")
    studio.wait("!document.querySelector('#spoken .inset input')")
    assert requests.get(url, timeout=60).status_code == 404


@pytest.mark.browser
def test_axe_finds_nothing_in_what_is_new(studio: Browser) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    studio.evaluate(f"{axe}; true")
    studio.click("#speak-split")
    for tab in ("speak", "cover", "history"):
        studio.click(f"#tab-{tab}")
        studio.evaluate(
            "Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => null)))"
        )
        found = studio.evaluate(
            """axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
                violations.map(({id, nodes}) => [id, nodes.map(({html}) => html.slice(0, 200))]))"""
        )
        assert found == [], tab
    for language in ("zh-Hans", "en"):
        studio.size(360, 740, dark=language == "en")
        studio.click("#language")
        studio.wait(f"document.documentElement.lang === {language!r}")
        for tab in ("speak", "cover", "history"):
            studio.click(f"#tab-{tab}")
            assert studio.evaluate("document.documentElement.scrollWidth") <= 360, (language, tab)
    studio.size(1280, 900)


@pytest.mark.browser
def test_words_are_said_as_they_were_written_down(studio: Browser, server: Quickstart) -> None:
    studio.click("#tab-speak")
    studio.click("#words summary")
    studio.write("#words-list input", "SQL")
    studio.write("#words-list input:nth-of-type(2)", "sequel")
    studio.click("#words-save")
    studio.wait("document.querySelector('#toast').textContent.includes('pronunciation')")
    (lexicon,) = api(server, "/voice/lexicons")["results"]
    assert (lexicon["is_default"], lexicon["entries_count"]) == (True, 1)
    reload(studio)
    studio.click("#words summary")
    studio.wait("document.querySelector('#words-list input')?.value === 'SQL'")
    studio.click("#words-list [aria-label='Remove this word']")
    studio.click("#words-save")
    until(lambda: api(server, "/voice/lexicons")["results"][0]["entries_count"] == 0, 60)


@pytest.mark.browser
def test_settings_are_kept_under_a_name(studio: Browser) -> None:
    studio.click("#tab-speak")
    studio.click("#speak-form details summary")
    studio.write("#seed", "77")
    studio.write("#speak-preset-name", "Audiobook")
    studio.click("#speak-presets .icon-save")
    studio.write("#seed", "1")
    studio.wait(kept("speak", "row.options.seed === '1'"))
    reload(studio)
    studio.wait("document.querySelector('#seed').value === '1'")  # It was kept, and is put back once it was read.
    studio.evaluate(
        """(() => { const preset = document.querySelector('#speak-preset'); preset.value = 'Audiobook';
        preset.dispatchEvent(new Event('change')); })()"""
    )
    assert studio.evaluate("document.querySelector('#seed').value") == "77"


@pytest.mark.browser
def test_a_key_that_is_forgotten_takes_what_was_kept_along(studio: Browser, server: Quickstart) -> None:
    studio.click("#key-button")
    studio.click("#ask .danger")
    studio.wait("document.querySelector('#workspace').hidden")
    count = """new Promise((resolve) => { const opened = indexedDB.open('studio'); opened.onsuccess = () => {
        const rows = opened.result.transaction('kept').objectStore('kept').count();
        rows.onsuccess = () => resolve(String(rows.result)); }; })"""
    studio.wait(f"{count}.then((rows) => rows === '0')")
    assert studio.other_hosts(server.base) == []
    assert studio.complaints == []
