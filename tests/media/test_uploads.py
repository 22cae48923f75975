"""Every kind of bad file, sent to the API: a clear refusal, nothing left behind, and the next request is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rest_framework.test import APIClient

from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.recordings.audio_files import BAD_FILES, BadFile, voice, write, write_bad
from voices.speech.models import Synthesis


def refused_as(bad: BadFile, client: APIClient, url: str, field: str, others: dict[str, bytes], folder: Path) -> str:
    content = write_bad(folder / bad.name, bad).read_bytes()
    files = {name: upload(data, f"{name}.wav") for name, data in others.items()}
    form = {**files, field: upload(content, bad.name)}
    response = client.post(url, form | ({"text": "Hello"} if field == "reference_audio" else {}))
    assert response.status_code == 400, response.content
    body = response.json()
    assert set(body) == {"success", "error", "message", "details"}
    assert body["details"]["field"] == field
    assert body["message"].startswith(f"{field} ")
    assert body["details"]["reason"] == bad.reason
    return str(body["error"])


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_a_bad_file_is_refused_everywhere_and_leaves_nothing(
    bad: BadFile,
    api: APIClient,
    engine: FakeEngine,
    reference_wav: bytes,
    leftovers: Callable[[], list[str]],
    tmp_path: Path,
) -> None:
    lengths = {"too_short": "reference_too_short", "too_long": "reference_too_long"}
    speech = refused_as(bad, api, "/api/v1/voice/synthesize", "reference_audio", {}, tmp_path)
    assert speech == lengths.get(bad.reason, "invalid_audio")
    song = {"song": reference_wav}
    singer = refused_as(bad, api, "/api/v1/cover/jobs", "reference_voice", song, tmp_path)
    assert singer == lengths.get(bad.reason, "invalid_audio")
    voice_ = {"reference_voice": reference_wav}
    assert refused_as(bad, api, "/api/v1/cover/jobs", "song", voice_, tmp_path) == "invalid_audio"
    assert engine.requests == []
    assert leftovers() == []
    assert not Synthesis.objects.exists()
    assert not CoverJob.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "vorbis", "opus", "m4a", "aac", "webm"])
def test_every_format_is_taken_whatever_its_name_says(
    api: APIClient, engine: FakeEngine, tmp_path: Path, format: str
) -> None:
    rate = 48_000 if format in ("opus", "webm") else 44_100
    content = write(tmp_path / f"voice.{format}", voice(4.0, rate), rate, format).read_bytes()
    response = api.post(
        "/api/v1/voice/synthesize", {"text": "Hello", "reference_audio": upload(content, "x.bin", "text/plain")}
    )
    assert response.status_code == 200, response.content
    assert engine.requests[0].reference.duration_seconds == pytest.approx(4.0, abs=0.1)
    job = api.post("/api/v1/cover/jobs", {"song": upload(content, "x"), "reference_voice": upload(content, "x")})
    assert job.status_code == 202, job.content
    assert job.json()["duration_seconds"] == pytest.approx(4.0, abs=0.1)


@pytest.mark.django_db(transaction=True)
def test_what_a_header_promises_and_the_file_has_not_is_told_wherever_it_is_sent(
    api: APIClient, engine: FakeEngine, tmp_path: Path
) -> None:
    whole = write(tmp_path / "voice.wav", voice(10.0, 16_000), 16_000).read_bytes()
    half = whole[: len(whole) // 2]
    told = "should be 10.00 s long by its header; all that is in it are 5.00 s."
    for _ in range(2):  # The second time it is not decoded again.
        spoken = api.post("/api/v1/voice/synthesize", {"text": "Hello", "reference_audio": upload(half)})
        assert spoken.status_code == 200
        assert spoken["X-Warning"] == f"reference_audio {told}"
    job = api.post("/api/v1/cover/jobs", {"song": upload(half), "reference_voice": upload(whole)})
    assert (job.status_code, job.json()["warning"]) == (202, f"song {told}")
    quality = api.post("/api/v1/voice/quality", {"sample": upload(half)})
    assert f"sample {told}" in quality.json()["warnings"], quality.content
    form = {"text": "Hello", "reference_audio": upload(half)}
    background = api.post("/api/v1/voice/synthesize", form, headers={"Prefer": "respond-async"})
    assert background.json()["warning"] == f"reference_audio {told}", background.content
    found = api.post("/api/v1/provenance/verify", {"file": upload(half)}).json()
    assert (found["made_here"], found["warnings"]) == (False, [f"file {told}"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "vorbis", "opus", "m4a", "aac", "webm"])
def test_a_song_of_which_a_part_is_missing_is_never_taken_in_silence(
    api: APIClient, reference_wav: bytes, tmp_path: Path, format: str
) -> None:
    rate = 48_000 if format in ("opus", "webm") else 44_100
    whole = write(tmp_path / "song", voice(10.0, rate), rate, format).read_bytes()
    for missing in (1, 10, 50, 99):
        part = upload(whole[: len(whole) * (100 - missing) // 100])
        answer = api.post("/api/v1/cover/jobs", {"song": part, "reference_voice": upload(reference_wav)})
        told = answer.json()
        if answer.status_code == 202:
            assert f"{told['duration_seconds']:.2f} s" in told["warning"], (missing, told)
            continue
        assert (answer.status_code, told["error"]) == (400, "invalid_audio"), (missing, told)
        assert told["details"]["reason"] in ("truncated", "empty", "corrupt", "too_short"), (missing, told)
        assert missing == 99 or " s" in told["message"], (missing, told)


@pytest.mark.django_db(transaction=True)
def test_other_services_clients_are_told_in_a_header_what_is_missing(
    api: APIClient, engine: FakeEngine, tmp_path: Path
) -> None:
    whole = write(tmp_path / "voice.wav", voice(10.0, 16_000), 16_000).read_bytes()
    half = whole[: len(whole) // 2]
    told = "should be 10.00 s long by its header; all that is in it are 5.00 s."
    form = {"name": "Jane", "language": "en", "recording": upload(half)}
    consent = api.post("/openai/v1/audio/voice_consents", form)
    assert (consent.status_code, consent["X-Warning"]) == (200, f"recording {told}"), consent.content
    assert "X-Warning" not in api.post("/openai/v1/audio/voice_consents", {**form, "recording": upload(whole)})
    form = {"name": "Jane", "audio_sample": upload(half), "consent": consent.json()["id"]}
    made = api.post("/openai/v1/audio/voices", form)
    assert made.status_code == 200, made.content
    assert f"audio_sample {told}" in made["X-Warning"]
    api.put("/api/v1/voice/consent", {"statement": "Jane allowed me to clone her voice."}, "json")
    added = api.post("/elevenlabs/v1/voices/add", {"name": "June", "files": upload(half)})
    assert added.status_code == 200, added.content
    assert f"files {told}" in added["X-Warning"]
