"""The operator's filter of texts: what it refuses is not stored, and what it cannot judge is not let through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from covers import commands
from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support import filters
from tests.support.audio import upload, wav_bytes
from tests.support.covers import RATE, song
from tests.support.tenants import Tenant
from voiceproject.operations.checks import text_filter
from voiceproject.tenants import textfilter
from voiceproject.tenants.models import AuditEntry, UsageEntry
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db
SPEECH, COVER = "/api/v1/voice/synthesize", "/api/v1/cover/jobs"
WORDS = "voiceproject.textfilter.words"


@pytest.fixture
def speak(tenant: Tenant, engine: FakeEngine, reference_wav: bytes) -> Callable[..., Any]:
    def send(text: str, prefer: str = "", **fields: Any) -> Any:
        form = {"text": text, "reference_audio": upload(reference_wav), **fields}
        return tenant.client.post(SPEECH, form, headers={"Prefer": prefer} if prefer else {})

    return send


@pytest.fixture
def listed(settings: Any, tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "words.txt"
        path.write_text(content, encoding="utf-8")
        # Of another time than the one before, however fast the tests are.
        times = path.stat().st_mtime_ns + write.count * 1_000_000_000  # type: ignore[attr-defined]
        os.utime(path, ns=(times, times))
        write.count += 1  # type: ignore[attr-defined]
        settings.TEXT_FILTER, settings.TEXT_FILTER_WORDS = WORDS, path
        return path

    write.count = 1  # type: ignore[attr-defined]
    return write


@pytest.mark.parametrize("how", [{}, {"prefer": "respond-async"}, {"stream": "true"}])
def test_a_refused_text_is_not_spoken_and_not_stored(
    speak: Callable[..., Any], tenant: Tenant, engine: FakeEngine, settings: Any, how: dict[str, str],
    leftovers: Callable[[], list[str]],
) -> None:  # fmt: skip
    settings.TEXT_FILTER = "tests.support.filters.no_rivers"
    answer = speak("We walked along the river.", **how)
    body = answer.json()
    assert (answer.status_code, body["error"]) == (400, "content_refused")
    assert body["details"] == {"field": "text", "reason": "We do not speak of rivers."}
    assert engine.requests == []
    assert not Synthesis.objects.exists()
    assert not UsageEntry.objects.exists()
    assert leftovers() == []
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.tenant_id, entry.key_prefix) == ("content.refuse", tenant.user.pk, tenant.key.prefix)
    assert entry.details == {"operation": "synthesis", "field": "text", "reason": "We do not speak of rivers.",
                             "characters": 26}  # fmt: skip
    assert "walked" not in str(vars(entry))


def test_what_the_filter_lets_through_is_spoken(
    speak: Callable[..., Any], tenant: Tenant, engine: FakeEngine, settings: Any
) -> None:
    settings.TEXT_FILTER = "tests.support.filters.no_rivers"
    filters.calls.clear()
    assert speak("We walked along the road.").status_code == 200
    assert filters.calls == [("We walked along the road.", tenant.user.pk, "synthesis")]
    assert not AuditEntry.objects.exists()


def test_the_lyrics_of_a_cover_are_judged_too(
    tenant: Tenant, engine: FakeEngine, reference_wav: bytes, settings: Any, leftovers: Callable[[], list[str]]
) -> None:
    settings.TEXT_FILTER = "tests.support.filters.no_rivers"
    settings.COVER_INFER_CMD_TEMPLATE += " --lyrics {lyrics_file}"
    commands.template.cache_clear()
    filters.calls.clear()

    def send(**fields: str) -> Any:
        files = {"song": upload(wav_bytes(song(1.0), RATE), "s.wav"), "reference_voice": upload(reference_wav)}
        return tenant.client.post(COVER, {**files, **fields})

    try:
        refused = send(lyrics="Down by the river")
        assert (refused.status_code, refused.json()["error"]) == (400, "content_refused")
        assert refused.json()["details"]["field"] == "lyrics"
        assert leftovers() == []
        assert not CoverJob.objects.exists()
        assert send(lyrics="Down by the road").status_code == 202
        assert send().status_code == 202
    finally:
        commands.template.cache_clear()
    assert [call[2] for call in filters.calls] == ["cover", "cover"], "without lyrics there is nothing to ask"


@pytest.mark.parametrize("name", ["broken", "talkative", "silent", "nothing", "missing"])
def test_a_filter_that_fails_lets_nothing_through_and_tells_no_text(
    speak: Callable[..., Any], engine: FakeEngine, settings: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TEXT_FILTER = f"tests.support.filters.{name}"
    answer = speak("Quite confidential words.")
    assert (answer.status_code, answer.json()["error"]) == (503, "not_configured")
    assert answer["Retry-After"] == "60"
    assert engine.requests == []
    assert not Synthesis.objects.exists()
    assert "TEXT_FILTER failed" in caplog.text
    assert "confidential" not in caplog.text + answer.content.decode()


def test_a_filter_that_cannot_be_used_stops_the_start(settings: Any, listed: Callable[[str], Path]) -> None:
    settings.TEXT_FILTER = ""
    assert text_filter(None) == []
    settings.TEXT_FILTER = "tests.support.filters.no_rivers"
    assert text_filter(None) == []
    for path in ("tests.support.filters.nothing", "tests.support.filters.missing", "no.such.module", "nodots"):
        settings.TEXT_FILTER = path
        assert [problem.id for problem in text_filter(None)] == ["voiceproject.E011"], path
    words = listed("word\n")
    assert text_filter(None) == []
    words.write_bytes(b"caf\xe9 of another size\n")
    assert len(text_filter(None)) == 1
    words.unlink()
    assert "words.txt" in text_filter(None)[0].msg


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("This is a Weasel.", True),
        ("This is a ＷＥＡＳＥＬ.", True),
        ("This is a wea\u200bsel.", True),
        ("Two weasels.", False),
        ("An under_weasel.", False),
        ("Pop goes\n the, dog!", True),
        ("pop-goes-the-dog", True),
        ("Pop goes to the dog.", False),
        ("popgoesthedog", False),
        ("我们说坏话了。", True),
        ("我们说好话了。", False),
        ("naïve thoughts", True),
        ("a comment", False),
        ("C++ is fun", True),
        ("C is fun", False),
    ],
)
def test_words_are_found_as_people_write_them(listed: Callable[[str], Path], text: str, refused: bool) -> None:
    listed("# A comment\nweasel\npop goes the dog  # a phrase\n\n坏话\nnai\u0308ve\nC++\n")
    assert textfilter.words(text, 1, "synthesis") == (textfilter.REASON if refused else None)


def test_a_list_that_is_changed_is_read_again(speak: Callable[..., Any], listed: Callable[[str], Path]) -> None:
    listed("weasel\n")
    assert [speak("A weasel.").status_code, speak("A badger.").status_code] == [400, 200]
    listed("badger\n")
    assert [speak("A weasel.").status_code, speak("A badger.").status_code] == [200, 400]
    listed("# nothing\n").unlink()
    assert speak("A badger.").status_code == 503


def test_a_long_list_costs_little(listed: Callable[[str], Path]) -> None:
    listed("\n".join(f"word{number} and more" for number in range(5000)))
    text = ("word12 and less, word4999 and more" + " x" * 2500)[:5000]
    assert textfilter.words(text, 1, "synthesis") is not None
    assert textfilter.words(text.replace("4999", "9999"), 1, "synthesis") is None


@pytest.mark.parametrize(
    ("url", "text_field", "extra"),
    [
        ("/openai/v1/audio/speech", "input", {"model": "tts-1", "voice": "alloy"}),
        ("/elevenlabs/v1/text-to-speech/alloy", "text", {}),
    ],
)
def test_compatible_routes_ask_the_filter_too(
    api: APIClient, engine: FakeEngine, settings: Any, url: str, text_field: str, extra: dict[str, str]
) -> None:
    settings.TEXT_FILTER = "tests.support.filters.no_rivers"
    engine.presets = ("female",)
    answer = api.post(url, {text_field: "We walked along the river.", **extra}, format="json")
    assert answer.status_code == 400, answer.content
    assert "We do not speak of rivers." in answer.content.decode()
    assert engine.requests == []
    assert not Synthesis.objects.exists()
