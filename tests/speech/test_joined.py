"""/api/v1/voice/join: several syntheses as one recording, and the subtitles of it."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant
from voiceproject.provenance.models import Mark
from voices.speech import joined
from voices.speech.models import Synthesis

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("engine")]
URL = "/api/v1/voice/join"


def spoken(api: APIClient, reference: bytes, text: str, **fields: Any) -> Synthesis:
    answer = api.post("/api/v1/voice/synthesize", {"text": text, "reference_audio": upload(reference), **fields})
    assert answer.status_code == 200, answer.content
    return Synthesis.objects.get(pk=answer["X-Synthesis-ID"])


def join(api: APIClient, *parts: Synthesis, **fields: Any) -> Any:
    return api.post(URL, {"synthesis_ids": [str(part.pk) for part in parts], **fields}, format="json")


@pytest.fixture
def parts(api: APIClient, reference_wav: bytes) -> list[Synthesis]:
    formats = ("wav", "mp3", "flac", "opus", "pcm")
    return [spoken(api, reference_wav, f"Number {number}.", response_format=it) for number, it in enumerate(formats)]


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "opus"])
def test_one_recording_has_all_of_them_and_the_pauses(api: APIClient, parts: list[Synthesis], format: str) -> None:
    answer = join(api, *parts, pause_seconds=1.0, response_format=format, title="Chapter 1: snow")
    content = b"".join(answer)
    assert (answer.status_code, int(answer["Content-Length"])) == (200, len(content))
    extension = {"opus": "ogg"}.get(format, format)
    assert answer["Content-Disposition"] == f'attachment; filename="Chapter 1_ snow.{extension}"'
    samples, rate = sf.read(io.BytesIO(content))
    seconds = [part.duration_seconds for part in parts]
    assert len(samples) / rate == pytest.approx(sum(seconds) + 4, abs=0.06)
    at = 0.0
    for length in seconds:  # Each is where it belongs, and between them nothing is heard.
        middle, pause = (samples[int((at + part) * rate) :][: rate // 10] for part in (length / 2, length + 0.5))
        assert np.abs(middle).max() > 0.1 or length / 2 + 0.1 > length
        assert np.abs(pause).max(initial=0.0) < 0.01
        at += length + 1
    assert Mark.objects.filter(sha256=hashlib.sha256(content).hexdigest()).exists()


def test_subtitles_have_each_sentence_when_it_is_heard(api: APIClient, reference_wav: bytes) -> None:
    first = spoken(api, reference_wav, "One sentence of some length. And <b> another one --> here.")
    second = spoken(api, reference_wav, "The last.")
    whole, rate = sf.read(io.BytesIO(b"".join(join(api, first, second, pause_seconds=2))))
    srt = join(api, first, second, pause_seconds=2, response_format="srt")
    assert srt["Content-Type"] == "application/x-subrip; charset=utf-8"
    text = srt.content.decode()
    cues = re.findall(r"(\d+)\n(\S+) --> (\S+)\n(.+)\n", text)
    assert [cue[0] for cue in cues] == [str(number + 1) for number in range(len(cues))]

    def seconds(clock: str) -> float:
        hours, minutes, rest = clock.replace(",", ".").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(rest)

    times = [(seconds(begin), seconds(end)) for _, begin, end, _ in cues]
    assert times == sorted(times)
    for begin, end in times:
        heard = whole[int(begin * rate) : int(end * rate)]
        assert np.sqrt(np.mean(heard**2)) > 0.05
    assert times[-1][0] == pytest.approx(first.duration_seconds + 2, abs=0.01)
    assert cues[-1][3] == "The last." and cues[0][3] == "One sentence of some length."
    vtt = join(api, first, second, pause_seconds=2, response_format="vtt").content.decode()
    assert vtt.startswith("WEBVTT\n\n1\n00:00:00.000 --> ")
    assert "<b>" not in vtt and vtt.count(" --> ") == len(cues)


def test_what_has_no_times_of_sentences_is_one_line(tenant: Tenant) -> None:
    old = Synthesis(tenant=tenant.user, text="Made long\n\nago.", duration_seconds=3661.5)
    assert joined.subtitles([old, old], 0.5, "srt") == (
        "1\n00:00:00,000 --> 01:01:01,500\nMade long ago.\n\n2\n01:01:02,000 --> 02:02:03,500\nMade long ago.\n"
    )


def test_what_cannot_be_joined_is_told(
    api: APIClient, other: Tenant, parts: list[Synthesis], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert join(other.client, parts[0]).json()["error"] == "not_found"
    running = Synthesis.objects.create(tenant=parts[0].tenant, text="Not yet.", status="running")
    assert join(api, parts[0], running).json()["error"] == "job_not_ready"
    refused: list[dict[str, Any]] = [
        {"synthesis_ids": []}, {"synthesis_ids": ["x"]}, {"pause_seconds": 11}, {"response_format": "doc"}
    ]  # fmt: skip
    for wrong in refused:
        answer = api.post(URL, {"synthesis_ids": [str(parts[0].pk)], **wrong}, format="json")
        assert (answer.status_code, answer.json()["error"]) == (400, "validation_error"), wrong
    monkeypatch.setattr(joined, "MAX_SECONDS", 0.5)
    assert "at most" in join(api, parts[0]).json()["message"]
    monkeypatch.undo()
    assert api.delete(f"/api/v1/voice/syntheses/{parts[0].pk}").status_code == 204
    assert join(api, parts[0], parts[1]).status_code == 404


def test_the_same_one_may_come_twice(api: APIClient, parts: list[Synthesis], engine: FakeEngine) -> None:
    asked = len(engine.requests)
    samples, rate = sf.read(io.BytesIO(b"".join(join(api, parts[0], parts[0], pause_seconds=0))))
    assert len(samples) / rate == pytest.approx(2 * parts[0].duration_seconds, abs=0.01)
    assert len(engine.requests) == asked
