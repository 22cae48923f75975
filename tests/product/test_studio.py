"""The studio at `/`, as a person uses it: in a real browser, with a real microphone's samples, against the product."""

from __future__ import annotations

import importlib.resources
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile as sf
from django.test import Client

from covers.serializers import RESULT_FORMATS
from tests.support.browser import Browser
from tests.support.running.quickstart import SAMPLES, Quickstart
from tests.support.running.studio import api, enter, studio_browser, studio_server
from voiceproject.errors import STATUS_OF_CODE
from voiceproject.jobs.status import ERROR_MESSAGES
from voices.engines.builtin.languages.base import ONLY_MARKUP
from voices.library import consents, quality
from voices.speech import serializers
from voices.text.pronunciation import ALPHABETS

STATIC = Path(__file__).parents[2] / "voiceproject" / "static" / "studio"

# What reaches the loudspeaker through Web Audio: seconds, and the energy of it.
HEARD = """
window.heard = {seconds: 0, energy: 0, pieces: 0, first: 0, pressed: false};
new MutationObserver(() => {
  heard.pressed ||= Boolean(document.querySelector('#spoken .player button[aria-pressed=true]'));
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['aria-pressed']});
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...rest) {
  const samples = this.buffer.getChannelData(0);
  heard.first ||= this.buffer.duration;
  heard.seconds += this.buffer.duration;
  heard.energy += samples.reduce((sum, sample) => sum + sample * sample, 0);
  heard.pieces += 1;
  return start.apply(this, rest);
};
"""


# --- Without a browser -----------------------------------------------------------------------------------------------


def dictionary(name: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads((STATIC / f"{name}.json").read_text(encoding="utf-8"))
    return texts


def test_both_languages_have_the_same_texts_with_the_same_places_to_fill() -> None:
    english, chinese = dictionary("en"), dictionary("zh-hans")
    assert list(english) == list(chinese)
    for key, text in english.items():
        places = r"\{\w+\}"
        assert sorted(re.findall(places, text)) == sorted(re.findall(places, chinese[key])), key
        assert text.strip() and chinese[key].strip(), key


def test_the_page_offers_the_servers_formats_and_knows_its_bounds() -> None:
    def listed(script: str) -> list[str]:
        found = re.search(r"^const FORMATS = \[(.*)\];$", (STATIC / script).read_text(), re.MULTILINE)
        assert found is not None, script
        return re.findall(r"'(\w+)'", found[1])

    assert sorted(listed("speak.js")) == sorted(serializers.FORMATS)
    assert sorted(listed("cover.js")) == sorted(RESULT_FORMATS)
    found = re.search(r"^const ALPHABETS = \[(.*)\];$", (STATIC / "words.js").read_text(), re.MULTILINE)
    assert found is not None and re.findall(r"'([\w-]+)'", found[1]) == list(ALPHABETS)
    assert f"const MAX_CHARACTERS = {serializers.MAX_TEXT_CHARACTERS};" in (STATIC / "speak.js").read_text()


def test_the_consent_that_the_page_sends_is_one_that_the_server_takes() -> None:
    for name in ("en", "zh-hans"):
        assert consents.is_statement(dictionary(name)["save.consent"])


def test_every_text_that_the_page_asks_for_is_there_and_none_is_left_over() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.js"))
    page = (STATIC.parent.parent / "templates" / "voiceproject" / "studio.html").read_text(encoding="utf-8")
    english = dictionary("en")
    named = set(re.findall(r'data-t(?:-[a-z-]+)?="([\w.]+)"', page))
    named |= {key for key in re.findall(r"""['`]([\w.]+)['`]""", code) if key in english}
    rooms = "key|voice|record|speak|cover|history|usage|save|player|samples|preset|compare|share|words|doc"
    asked = named | set(re.findall(rf"'((?:{rooms})\.[a-z_]+)'", code))
    assert asked <= set(english), asked - set(english)
    made = set(re.findall(r"`([\w.]+[._])\$\{", code))
    left = {key for key in english if key not in asked and not any(key.startswith(prefix) for prefix in made)}
    assert left == set()


def test_what_is_wrong_with_a_text_is_told_in_the_servers_own_words() -> None:
    """By them the page knows what it tells in another language."""
    told = serializers.SynthesizeSerializer(data={"text": "?!"})
    assert not told.is_valid() and dictionary("en")["speak.no_letters"] in told.errors["text"]
    assert dictionary("en")["speak.only_markup"] == ONLY_MARKUP


def test_every_error_has_words_in_both_languages() -> None:
    codes = {f"error.{code}" for code in (*STATUS_OF_CODE, *ERROR_MESSAGES)}
    assert codes <= set(dictionary("en"))
    # Where the server says no more than this, it is not said in English too.
    assert {code: dictionary("en")[f"error.{code}"] for code in ERROR_MESSAGES} == ERROR_MESSAGES


def test_the_advice_is_the_servers() -> None:
    """The page words it anew in another language, from the same numbers by the same thresholds, in the same order."""
    code = (STATIC / "voice.js").read_text(encoding="utf-8")
    thresholds = dict(re.findall(r"const ((?:GOOD|BAD|TELEPHONE)_\w+) = ([\de.-]+);", code))
    assert len(thresholds) == 7
    for name, value in thresholds.items():
        assert float(value) == getattr(quality, name), name
    english = {key: text for key, text in dictionary("en").items() if key.startswith("advice.")}
    told = [*quality.advice(2, 0.1, 5, 0.5, 3000), *quality.advice(9, 0.9, 15, 0, 5000)]
    for key, text in english.items():
        pattern = re.sub(r"\\\{\w+\\\}", r"[\\d.]+", re.escape(text))
        assert any(re.fullmatch(pattern, said) for said in told), key
    order = [key for key in re.findall(r"'(advice\.\w+)'", code) if key != "advice.noise"]
    worst = ["advice.short", "advice.pauses", "advice.strong_noise", "advice.clipping", "advice.telephone"]
    assert order[:5] == worst


def test_the_page_may_use_the_microphone_and_nothing_from_elsewhere(db: None) -> None:
    response = Client().get("/")
    assert "microphone=(self)" in response["Permissions-Policy"]
    policy = dict(part.strip().partition(" ")[::2] for part in response["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["media-src"] == "'self' blob:"
    assert "script-src" not in policy  # default-src is what scripts get.
    for path in STATIC.glob("*.js"):
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code), (
            path
        )
        assert not re.search(r"https?://(?!www\.w3\.org)", code), path
        assert "document.cookie" not in code


# --- In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    with studio_server(tmp_path_factory.mktemp("studio")) as running:
        yield running


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person who speaks into it."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    speech, rate = sf.read(SAMPLES / "reference.flac", dtype="float32")
    sf.write(path, speech, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(server: Quickstart, microphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with studio_browser(tmp_path_factory.mktemp("profile"), microphone=microphone) as running:
        yield running


@pytest.fixture(scope="module")
def studio(browser: Browser, server: Quickstart) -> Browser:
    """The page with the key pasted into it."""
    return enter(browser, server, HEARD)


@pytest.mark.browser
def test_a_wrong_key_is_refused_in_the_servers_words(browser: Browser, server: Quickstart) -> None:
    browser.open(f"{server.base}/")
    browser.write("#key", "vck_this-is-no-key")
    browser.press("Enter")
    said = browser.wait("document.querySelector('#key-form .notice.bad')?.innerText")
    assert "This API key is not valid." in said
    assert not re.search(r"\w{32}", said)
    assert re.search(r"Request \w{32}", browser.evaluate("document.querySelector('#key-form .notice.bad').textContent"))
    assert browser.evaluate("document.querySelector('#key').value") == "vck_this-is-no-key"
    browser.click("#language")  # In Chinese by the error's code; the server's words tell no more here.
    browser.wait("document.body.innerText.includes('此 API 密钥无效')")
    said = browser.evaluate("document.querySelector('#key-form .notice.bad').innerText")
    assert "This API key" not in said and "详细信息" in said
    browser.click("#language")
    browser.wait("document.documentElement.lang === 'en'")
    browser.complaints.clear()  # The browser notes the 401 itself.


@pytest.mark.browser
def test_a_voice_is_recorded_and_heard_as_it_speaks(studio: Browser, server: Quickstart, tmp_path: Path) -> None:
    studio.click("#record")
    studio.wait("/^0:(0[4-9]|[1-5]\\d)/.test(document.querySelector('#record-state').textContent)")
    studio.click("#record")
    # The server's own report, with what the browser cannot know.
    assert "Up to" in studio.wait("document.querySelector('.quality .chips')?.innerText.match(/Up to .* kHz/)?.[0]")
    assert "Measured in your browser" not in studio.evaluate("document.querySelector('#voice').innerText")
    studio.wait("/^0:(0[4-9]|[1-5]\\d)$/.test(document.querySelector('#current .time').textContent)")
    studio.write("#text", "Hello there, this is my new voice. It speaks whatever I write, and you hear it at once.")
    studio.click("#speak-button")
    studio.wait("heard.energy > 0", 60)
    studio.wait("document.querySelector('#speak-state').textContent.startsWith('Done')", 60)
    heard = studio.evaluate("heard")
    assert 0 < heard["first"] < heard["seconds"] and heard["pieces"] > 1  # It sounded before it was whole.
    (made,) = api(server, "/voice/syntheses")["results"]
    assert made["status"] == "succeeded"
    assert heard["seconds"] == pytest.approx(made["duration_seconds"], abs=0.02)
    loudness = np.sqrt(heard["energy"] / (heard["seconds"] * made["sample_rate"]))
    assert loudness > 0.01
    assert heard["pressed"]  # It may have been heard to its end by now.

    studio.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    studio.click("#spoken button[aria-label='Download']")
    assert made["title"] == "Hello there, this is my new voice. It speaks whatever I…"
    file = tmp_path / f"{made['title']}.wav"
    studio.wait("true")
    for _ in range(200):
        if file.exists() and file.stat().st_size:
            break
        studio.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")
    speech, rate = sf.read(io.BytesIO(file.read_bytes()))
    assert len(speech) / rate == pytest.approx(made["duration_seconds"], abs=0.01)
    assert np.sqrt(np.mean(speech**2)) == pytest.approx(loudness, rel=0.02)


@pytest.mark.browser
def test_a_voice_is_saved_with_consent_spoken_with_and_deleted(studio: Browser, server: Quickstart) -> None:
    studio.click("#current button.block")
    studio.write("#save-name", "<b>Ada</b>")
    studio.click("#save-form .primary")
    assert "consent" in studio.wait("document.querySelector('#save-form .notice')?.innerText")
    assert api(server, "/voice/voices")["results"] == []
    studio.click("#save-consent")
    studio.click("#save-form .primary")
    studio.wait("!document.querySelector('#save-dialog').open")
    (voice,) = api(server, "/voice/voices")["results"]
    studio.wait("document.querySelector('#current .title').textContent === '<b>Ada</b>'")  # As text.
    studio.write("#text", "With a saved voice.")
    studio.click("#speak-button")
    studio.wait("document.querySelector('#speak-state').textContent.startsWith('Done')", 60)
    made = api(server, "/voice/syntheses")["results"]
    assert (len(made), made[0]["voice_id"]) == (2, voice["voice_id"])
    studio.click("#spoken .item [aria-label='Delete']")
    studio.click("#ask .danger")
    studio.wait("document.querySelectorAll('#spoken .item').length === 1")

    recording = "document.querySelector('#current')"
    studio.click("#current [aria-label='Take another voice']")
    studio.wait(f"{recording}.hidden")
    studio.click("#tab-saved")
    studio.click("#saved-voices .round")
    studio.wait("document.querySelector('#saved-voices .waveform').getAttribute('aria-valuenow') > 0.1")
    studio.click("#saved-voices .player .icon-check")
    studio.wait(f"!{recording}.hidden && {recording}.querySelector('.player:not(.waiting)')")
    studio.click("#current [aria-label='Take another voice']")
    studio.click("#tab-saved")
    studio.click("#saved-voices [aria-label='Delete']")
    studio.click("#ask .danger")
    studio.wait("document.querySelector('#saved-voices .empty')")
    assert api(server, "/voice/voices")["results"] == []
    studio.click("#tab-file")
    studio.choose_file("#reference-file", SAMPLES / "reference.flac")
    studio.wait("document.querySelector('.quality .chips')?.innerText.includes('Up to')")


@pytest.mark.browser
def test_a_song_becomes_a_cover_whose_stages_are_seen(studio: Browser, server: Quickstart, tmp_path: Path) -> None:
    song, rate = sf.read(SAMPLES / "song.ogg", frames=44_100 * 11)
    sf.write(tmp_path / "song.flac", song, rate)
    studio.click("#tab-cover")
    studio.choose_file("#song-file", tmp_path / "song.flac")
    studio.wait("document.querySelector('#song .time').textContent === '0:11'")
    studio.evaluate(
        """(() => {
            window.stages = [];
            new MutationObserver(() => {
                const now = document.querySelector('.job .steps .now')?.dataset.stage;
                if (now && stages.at(-1) !== now) stages.push(now);
            }).observe(document.querySelector('#jobs'), {subtree: true, childList: true, attributes: true});
        })()"""
    )
    studio.click("#cover-button")
    studio.wait("document.querySelector('.job')?.dataset.status === 'succeeded'", 120)
    seen = studio.evaluate("stages")
    order = ["queued", "preprocess", "separate", "infer", "mix", "finalize"]
    assert {"separate", "infer"} & set(seen)  # A slow machine may tell of two at once.
    assert seen == sorted(seen, key=order.index)
    (job,) = api(server, "/cover/jobs")["results"]
    assert job["duration_seconds"] == pytest.approx(11, abs=0.01)
    tracks = "[...document.querySelectorAll('.job .track')].map((track) => track.dataset.kind)"
    assert studio.evaluate(tracks) == ["result", "vocals", "instrumental", "converted"]
    studio.wait("document.querySelector('.job .track.result .player:not(.waiting) .time')?.textContent === '0:11'")
    # It plays: the time goes on.
    studio.click(".job .track.result .round")
    studio.wait("document.querySelector('.job .track.result .waveform').getAttribute('aria-valuenow') > 0.3")
    studio.click(".job .track.result .round")

    studio.click(".job .icon-sliders")
    studio.evaluate(
        """(() => { const input = document.querySelector('.job .inset input');
        input.value = -6; input.dispatchEvent(new Event('input')); })()"""
    )
    studio.click(".job .inset .primary")
    studio.wait("document.querySelectorAll('.job[data-status=succeeded]').length === 2", 60)
    newest = api(server, "/cover/jobs")["results"][0]
    assert (newest["vocal_gain_db"], newest["remix_of"]) == (-6, job["job_id"])


@pytest.mark.browser
def test_what_was_made_is_in_the_history_and_can_be_deleted(studio: Browser, server: Quickstart) -> None:
    studio.click("#tab-history")
    studio.wait("document.querySelectorAll('#history-syntheses .item').length === 1")
    studio.click("#history-syntheses .round")
    studio.wait("document.querySelector('#history-syntheses .waveform').getAttribute('aria-valuenow') > 0.1")
    studio.click("#history-syntheses button[aria-label='Delete']")
    studio.click("#ask .danger")
    studio.wait("document.querySelectorAll('#history-syntheses .item').length === 0")
    assert api(server, "/voice/syntheses")["results"] == []
    studio.click("#tab-covers")
    studio.wait("document.querySelectorAll('#history-covers .item').length === 2")


@pytest.mark.browser
def test_usage_tells_what_was_made_and_what_is_left(studio: Browser, server: Quickstart) -> None:
    studio.click("#tab-usage")
    total = api(server, "/usage")["total"]
    shown = studio.wait("document.querySelector('.sums')?.innerText")
    assert total["requests"] == 4  # Two syntheses, a cover, a remix.
    assert f"{total['requests']}\nRequests" in shown
    assert f"{total['characters']}\nCharacters" in shown
    rows = studio.evaluate("document.querySelector('#usage .limits').innerText")
    assert "Jobs waiting\n100 left of 100" in rows


@pytest.mark.browser
def test_nothing_is_lost_on_an_error(studio: Browser) -> None:
    studio.click("#tab-speak")
    studio.write("#text", "?!?!")
    studio.click("#speak-button")
    said = studio.wait("document.querySelector('#text-problem .notice.bad')?.innerText")
    assert "There is nothing to speak in this text: it has no letters" in said
    assert not re.search(r"\w{32}", said)
    assert studio.evaluate("document.activeElement.id + document.activeElement.ariaInvalid") == "texttrue"
    studio.write("#text", "<img src=x>")
    studio.wait("!document.querySelector('#text-problem .notice')")  # It was about what stood there before.
    studio.click("#speak-button")
    assert "markup such as <b>" in studio.wait("document.querySelector('#text-problem .notice.bad')?.innerText")
    studio.click("#language")
    studio.wait("document.documentElement.lang === 'zh-Hans'")
    said = studio.evaluate("document.querySelector('#text-problem .notice.bad').innerText")
    assert "这样的标记" in said and "There is" not in said
    studio.write("#text", "?!?!")
    studio.click("#language")
    studio.wait("document.documentElement.lang === 'en'")
    assert studio.evaluate("document.querySelector('#text').value") == "?!?!"
    assert not studio.evaluate("document.querySelector('#current').hidden")


@pytest.mark.browser
def test_a_stream_that_breaks_off_loses_neither_the_text_nor_what_was_heard(
    studio: Browser, server: Quickstart
) -> None:
    studio.click("#tab-speak")
    text = "The first sentence is heard. " + "Then many others follow it. " * 100
    studio.write("#text", text)
    already = studio.evaluate("heard.pieces")
    studio.click("#speak-button")
    studio.wait(f"heard.pieces > {already}", 60)
    (made,) = api(server, "/voice/syntheses", status="running")["results"]
    requests.post(made["links"]["cancel"], headers={"X-API-Key": server.key}, timeout=30).raise_for_status()
    assert "The audio broke off" in studio.wait("document.querySelector('#speak-form .notice.bad')?.innerText", 60)
    assert studio.evaluate("document.querySelector('#text').value") == text
    assert studio.evaluate("document.querySelector('#spoken .item .state').innerText") == "Failed"
    assert studio.evaluate("document.querySelector('#spoken .waveform').getAttribute('aria-valuemax') > 0.5")
    studio.complaints[:] = [line for line in studio.complaints if "ERR_INCOMPLETE_CHUNKED_ENCODING" not in line]


@pytest.mark.browser
def test_a_server_that_cannot_be_reached_is_told_and_loses_nothing(studio: Browser) -> None:
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    studio.write("#text", "Nobody hears this.")
    studio.call("Network.emulateNetworkConditions", offline=True, **network)
    try:
        studio.click("#speak-button")
        studio.wait("document.querySelector('#speak-form .notice.bad')?.innerText.includes('could not be reached')")
        assert studio.evaluate("document.querySelector('#text').value") == "Nobody hears this."
    finally:
        studio.call("Network.emulateNetworkConditions", offline=False, **network)
    studio.complaints[:] = [line for line in studio.complaints if "ERR_INTERNET_DISCONNECTED" not in line]


@pytest.mark.browser
def test_a_job_is_followed_by_asking_where_events_do_not_come_through(studio: Browser) -> None:
    studio.call("Network.setBlockedURLs", urls=["*/events"])
    studio.click("#tab-cover")
    before = studio.evaluate("document.querySelectorAll('#jobs .job').length")
    studio.click("#jobs .icon-sliders")
    studio.click("#jobs .inset .primary")
    studio.wait(f"document.querySelectorAll('#jobs .job[data-status=succeeded]').length === {before + 1}", 60)
    assert any(url.endswith("/events") for url in studio.requests)
    studio.call("Network.setBlockedURLs", urls=[])
    studio.complaints[:] = [line for line in studio.complaints if "ERR_BLOCKED_BY_CLIENT" not in line]


@pytest.mark.browser
def test_the_keyboard_is_enough(studio: Browser) -> None:
    focused = "document.activeElement.id || document.activeElement.className"
    studio.click("#tab-speak")
    studio.press("ArrowRight")
    assert studio.evaluate(focused) == "tab-cover"
    assert studio.evaluate("!document.querySelector('#cover').hidden")
    studio.press("ArrowLeft")
    assert studio.evaluate(focused) == "tab-speak"
    seen = []
    for _ in range(20):
        studio.press("Tab")
        seen.append(studio.evaluate(focused))
    assert {"waveform", "text", "speak-language", "speak-format", "speed", "speak-button"} <= set(seen), seen
    # Each shows where it is.
    studio.evaluate("document.querySelector('#speak-button').focus()")
    assert studio.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    studio.write("#text", "?!")
    studio.press("Enter", modifiers=2)
    assert "nothing to speak" in studio.wait("document.querySelector('#text-problem .notice.bad')?.innerText")


@pytest.mark.browser
def test_every_control_has_a_name_and_axe_finds_nothing(studio: Browser) -> None:
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    studio.evaluate(f"{axe}; true")
    for dark in (False, True):
        studio.size(1280, 900, dark=dark)
        for tab in ("speak", "cover", "history", "usage"):
            studio.click(f"#tab-{tab}")
            studio.evaluate(
                "Promise.all(document.getAnimations().map((animation) => animation.finished.catch(() => null)))"
            )
            found = studio.evaluate(
                """axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>
                    violations.map(({id, nodes}) => [id, nodes.map(({html}) => html.slice(0, 200))]))"""
            )
            assert found == [], (dark, tab)
            nameless = studio.evaluate(
                """[...document.querySelectorAll('button, input, select, textarea, [role=slider], canvas, a')]
                    .filter((e) => e.checkVisibility() && !e.closest('[aria-hidden=true]') && !e.ariaLabel
                        && !e.labels?.length && !e.innerText?.trim()).map((e) => e.outerHTML)"""
            )
            assert nameless == [], tab
    studio.size(1280, 900)


@pytest.mark.browser
@pytest.mark.parametrize("language", ["en", "zh-Hans"])
def test_it_fits_a_telephone_in_both_languages(studio: Browser, language: str) -> None:
    studio.size(360, 740)
    if studio.evaluate("document.documentElement.lang") != language:
        studio.click("#language")
        studio.wait(f"document.documentElement.lang === {language!r}")
    for tab in ("speak", "cover", "history", "usage"):
        studio.click(f"#tab-{tab}")
        assert studio.evaluate("document.documentElement.scrollWidth") <= 360, tab
    text = studio.evaluate("document.querySelector('#tabs').innerText")
    assert ("Speak" in text) is (language == "en")
    shown = studio.evaluate("document.body.innerText")
    assert [key for key in dictionary("en") if "." in key and key in shown] == []
    studio.size(1280, 900)
    if language != "en":
        studio.click("#language")
        studio.wait("document.documentElement.lang === 'en'")


@pytest.mark.browser
def test_the_key_stays_in_this_browser_and_is_forgotten_on_demand(studio: Browser, server: Quickstart) -> None:
    assert studio.evaluate("[sessionStorage.length > 0, localStorage.getItem('studio.key'), document.cookie]") == [
        True,
        None,
        "",
    ]
    assert not any(server.key in url for url in studio.requests)
    studio.evaluate("location.reload()")
    studio.wait("document.querySelector('#workspace')?.hidden === false")
    studio.click("#key-button")
    studio.click("#ask .danger")
    studio.wait("document.querySelector('#workspace').hidden")
    assert studio.evaluate("sessionStorage.getItem('studio.key')") is None


@pytest.mark.browser
def test_a_section_says_which_scope_a_key_lacks(browser: Browser, server: Quickstart) -> None:
    made = requests.post(
        f"{server.base}/api/v1/keys", json={"name": "speech", "scopes": ["synthesize"]},
        headers={"X-API-Key": server.key}, timeout=30,
    ).json()  # fmt: skip
    browser.open(f"{server.base}/#cover")
    browser.write("#key", made["secret"])
    browser.click("#remember")
    browser.press("Enter")
    browser.wait("!document.querySelector('#workspace').hidden")
    assert "“covers”" in browser.wait("document.querySelector('#cover .lacking').innerText")
    assert browser.evaluate("document.querySelector('#cover-button').disabled")
    browser.click("#tab-usage")
    assert "“usage”" in browser.wait("document.querySelector('#usage .notice')?.innerText")
    browser.click("#tab-speak")
    assert not browser.evaluate("document.querySelector('#speak-button').disabled")
    assert browser.evaluate("localStorage.getItem('studio.key')") == made["secret"]
    # Taken away while the page is open: back to the key, with the reason.
    requests.delete(f"{server.base}/api/v1/keys/{made['id']}", headers={"X-API-Key": server.key}, timeout=30)
    browser.click("#tab-history")  # which asks for the newest
    assert "not valid" in browser.wait("document.querySelector('#key-form .notice.bad')?.innerText")
    assert browser.evaluate("localStorage.getItem('studio.key')") is None


@pytest.mark.browser
def test_the_browser_had_nothing_to_complain_of_and_asked_no_other_host(studio: Browser, server: Quickstart) -> None:
    """Last in this file: over all that the tests above did."""
    assert studio.other_hosts(server.base) == []
    # What the tests above provoke: a refused text, a scope that lacks, a key that was taken away.
    expected = ("status of 400", "status of 401", "status of 403", "status of 404")
    assert [line for line in studio.complaints if not any(part in line for part in expected)] == []
