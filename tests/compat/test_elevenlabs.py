"""/elevenlabs, by ElevenLabs' own client against a live server."""

from __future__ import annotations

import base64
import functools
import io
import json
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import av
import numpy as np
import pytest
import soundfile as sf
from django.db import connection
from elevenlabs import HttpValidationError, VoiceSettings
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.errors import UnprocessableEntityError

from bench.sdks.telling import tail_is_speech
from covers import commands
from covers import tasks as cover_tasks
from covers.models import CoverJob
from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, wav_bytes
from tests.support.compat import assert_, pitch
from tests.support.covers import QUICK
from tests.support.tenants import Tenant
from tests.support.waiting import promised
from voices.compat.elevenlabs.base import OUTPUTS
from voices.compat.elevenlabs.speech import alignment
from voices.library.models import Consent, Voice
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Hello there. How are you?"
STATEMENT = "All speakers of our company agreed in writing to be cloned."


@pytest.fixture
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return engine


@pytest.fixture
def client(live_server: Any, tenant: Tenant, engine: FakeEngine) -> ElevenLabs:
    return ElevenLabs(api_key=tenant.secret, base_url=f"{live_server.url}/elevenlabs")


@pytest.fixture
def voice_id(client: ElevenLabs, tenant: Tenant) -> str:
    assert tenant.client.put("/api/v1/voice/consent", {"statement": STATEMENT}, "json").status_code == 200
    files = [("a.wav", wav_bytes(speech_like(4.0), 16_000)), ("b.wav", wav_bytes(speech_like(5.0), 16_000))]
    made = client.voices.ivc.create(name="Jane", files=files, description="A guest", labels={"language": "en"})
    assert made.requires_verification is False
    return made.voice_id


def heard(content: bytes, name: str) -> tuple[np.ndarray, int]:
    output = OUTPUTS[name]
    if output.format not in ("pcm", "ulaw", "alaw"):
        return sf.read(io.BytesIO(content))
    subtype = {"pcm": "PCM_16", "ulaw": "ULAW", "alaw": "ALAW"}[output.format]
    return sf.read(
        io.BytesIO(content), samplerate=output.sample_rate, channels=1, format="RAW", subtype=subtype, endian="LITTLE"
    )


def refused(action: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    error: Any
    with pytest.raises(ApiError) as error:
        action()
    detail = error.value.body["detail"]
    if error.value.status_code == 422:
        # As their client's HttpValidationError has it.
        problems = HttpValidationError.model_validate(error.value.body).detail or []
        assert isinstance(error.value, UnprocessableEntityError) and len(problems) == len(detail)
        return 422, {"loc": problems[0].loc, "message": problems[0].msg}
    assert set(detail) == {"type", "code", "message", "status", "request_id", "param"}
    return error.value.status_code, detail


@pytest.mark.parametrize("name", OUTPUTS)
def test_speech_comes_in_each_output_format(client: ElevenLabs, name: str) -> None:
    content = b"".join(client.text_to_speech.convert("alloy", text=TEXT, output_format=name))
    samples, rate = heard(content, name)
    assert rate == OUTPUTS[name].sample_rate
    assert pitch(samples, rate) == pytest.approx(220, abs=2)
    assert len(samples) / rate == pytest.approx(0.1 * len(TEXT), abs=0.3)
    if OUTPUTS[name].format == "mp3":
        with av.open(io.BytesIO(content)) as container:
            assert container.streams.audio[0].bit_rate == 1000 * OUTPUTS[name].kbps
    elif OUTPUTS[name].kbps:
        assert 8 * len(content) / (len(samples) / rate) / 1000 == pytest.approx(OUTPUTS[name].kbps, rel=0.25)


def test_a_format_may_be_named_without_its_rate(tenant: Tenant, client: ElevenLabs) -> None:
    for name, kind in (("opus", "audio/ogg"), ("mp3", "audio/mpeg"), ("wav", "audio/wav")):
        url = f"/elevenlabs/v1/text-to-speech/alloy?output_format={name}"
        answer = tenant.client.post(url, {"text": "Hello."}, format="json")
        assert (answer.status_code, answer["Content-Type"].partition(";")[0]) == (200, kind)


def test_a_voice_is_added_used_listed_and_deleted(
    client: ElevenLabs, voice_id: str, engine: FakeEngine, tenant: Tenant
) -> None:
    assert [consent.statement for consent in Consent.objects.all()] == [STATEMENT, STATEMENT]
    raw = client.text_to_speech.with_raw_response.convert(
        voice_id, text=TEXT, model_id="eleven_multilingual_v2", language_code="en", seed=7,
        voice_settings=VoiceSettings(stability=1.0, speed=1.2, similarity_boost=0.5),
    )  # fmt: skip
    with raw as answer:
        samples, rate = sf.read(io.BytesIO(b"".join(answer.data)))
        told = answer.headers
    assert (rate, pitch(samples, rate)) == (44_100, pytest.approx(220, abs=2))
    request = engine.requests[0]
    assert (request.language, request.seed, request.speed, request.temperature) == ("en", 7, 1.2, pytest.approx(0.1))
    assert request.reference.content_hash == Voice.objects.get().reference_hash
    job = Synthesis.objects.get()
    assert (str(job.voice_id), told["history-item-id"]) == (voice_id, str(job.pk))
    assert (told["character-cost"], told["request-id"]) == (str(len(TEXT)), job.request_id)
    assert int(told["maximum-concurrent-requests"]) >= int(told["current-concurrent-requests"]) >= 1

    listed = client.voices.get_all().voices
    assert (listed[0].voice_id, listed[0].category, len(listed[0].samples)) == (voice_id, "cloned", 2)
    assert {voice.voice_id for voice in listed if voice.category == "premade"} > {"alloy", "onyx"}
    page = client.voices.search(page_size=2)
    assert (page.has_more, page.total_count, len(page.voices)) == (True, 14, 2)
    second = client.voices.search(page_size=2, next_page_token=page.next_page_token)
    assert second.voices[0].voice_id not in {voice.voice_id for voice in page.voices}
    assert [voice.voice_id for voice in client.voices.search(search="jane").voices] == [voice_id]
    assert client.voices.get(voice_id).labels == {"language": "en"}

    assert client.voices.delete(voice_id).status == "ok"
    status, detail = refused(lambda: b"".join(client.text_to_speech.convert(voice_id, text=TEXT)))
    assert (status, detail["code"]) == (404, "voice_not_found")
    assert Consent.objects.count() == 2


def test_the_settings_of_a_voice_are_those_that_it_speaks_with_anyhow(
    client: ElevenLabs, tenant: Tenant, engine: FakeEngine
) -> None:
    voice = Voice.objects.create(tenant=tenant.user, name="Jane")
    given = client.voices.settings.get_default()
    assert given == client.voices.settings.get(str(voice.pk)) == client.voices.settings.get("alloy")
    assert given == client.voices.get("alloy").settings
    for settings in (None, given):
        b"".join(client.text_to_speech.convert("alloy", text=TEXT, voice_settings=settings))
    first, second = engine.requests
    assert (first.speed, first.temperature) == (second.speed, second.temperature) == (1.0, 0.7)
    status, detail = refused(lambda: client.voices.settings.get("nobody"))
    assert (status, detail["code"]) == (404, "voice_not_found")


def test_no_voice_is_added_without_a_standing_statement(client: ElevenLabs, tenant: Tenant) -> None:
    file = ("a.wav", wav_bytes(speech_like(4.0), 16_000))
    status, detail = refused(lambda: client.voices.ivc.create(name="Jane", files=[file]))
    assert (status, detail["code"]) == (403, "missing_permissions")
    assert "/api/v1/voice/consent" in detail["message"]
    url = "/api/v1/voice/consent"
    assert tenant.client.get(url).status_code == 404
    assert tenant.client.put(url, {"statement": "yes"}, "json").status_code == 400
    assert tenant.client.put(url, {"statement": STATEMENT}, "json").json()["statement"] == STATEMENT
    assert client.voices.ivc.create(name="Jane", files=[file]).voice_id
    assert tenant.client.delete(url).status_code == 204
    assert refused(lambda: client.voices.ivc.create(name="Joe", files=[file]))[0] == 403


def test_a_stream_begins_before_the_last_sentence_is_made(client: ElevenLabs, engine: FakeEngine) -> None:
    go = threading.Event()
    engine.before_piece = lambda index: None if not index else assert_(go.wait(20))
    blocks = client.text_to_speech.stream("alloy", text=TEXT, output_format="pcm_16000")
    first = next(blocks)
    go.set()
    samples, rate = heard(first + b"".join(blocks), "pcm_16000")
    assert len(samples) / rate == pytest.approx(0.1 * len(TEXT), abs=0.3)
    status, detail = refused(
        lambda: b"".join(client.text_to_speech.stream("alloy", text=TEXT, output_format="wav_8000"))
    )
    assert (status, detail["loc"]) == (422, ["query", "output_format"])


def test_timestamps_tell_when_each_character_is_said(client: ElevenLabs) -> None:
    answer = client.text_to_speech.convert_with_timestamps("alloy", text=TEXT, output_format="pcm_24000")
    samples, rate = heard(base64.b64decode(answer.audio_base_64), "pcm_24000")
    times = answer.alignment
    assert "".join(times.characters) == TEXT
    starts, ends = times.character_start_times_seconds, times.character_end_times_seconds
    assert starts[0] == 0
    assert all(a <= b for a, b in zip(starts, ends, strict=True))
    assert starts[1:] == ends[:-1]
    assert ends[-1] == pytest.approx(len(samples) / rate, abs=0.01)
    assert starts[TEXT.index("How")] == pytest.approx(1.2, abs=0.1)  # where the second sentence begins

    chunks = list(client.text_to_speech.stream_with_timestamps("alloy", text=TEXT, output_format="pcm_24000"))
    streamed, _ = heard(b"".join(base64.b64decode(chunk.audio_base_64) for chunk in chunks), "pcm_24000")
    assert len(streamed) == len(samples)
    told = [chunk.alignment for chunk in chunks if chunk.alignment]
    assert "".join(char for part in told for char in part.characters) == TEXT
    assert [t for part in told for t in part.character_start_times_seconds] == starts


def test_text_that_was_read_otherwise_is_aligned_whole() -> None:
    times = alignment("Dr. Who? “Yes” 42.", [("Doctor who?", 0.0, 1.0), ("Yes 42.", 1.0, 2.0)])
    assert "".join(times["characters"]) == "Dr. Who? “Yes” 42."
    assert times["character_end_times_seconds"][-1] == 2.0


def test_a_recording_is_said_again_in_a_saved_voice(
    client: ElevenLabs, voice_id: str, settings: Any, live_server: Any, tenant: Tenant
) -> None:
    settings.COVER_INFER_CMD_TEMPLATE = f"{{python_exec}} {QUICK} infer {{input_vocal}} {{output_vocal}}"
    commands.template.cache_clear()
    time = np.arange(44_100 * 2) / 44_100
    tone = wav_bytes((0.3 * np.sin(2 * np.pi * 330 * time)).astype(np.float32), 44_100)
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            cover_tasks.run_covers.fn()
        connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        content = b"".join(
            client.speech_to_speech.convert(
                voice_id, audio=("a.wav", tone), output_format="pcm_44100", model_id="eleven_english_sts_v2",
                voice_settings=json.dumps({"stability": 0.5}),
            )
        )  # fmt: skip
        wav = b"".join(client.speech_to_speech.convert(voice_id, audio=("a.wav", tone), output_format="wav_44100"))
        streamed = b"".join(
            client.speech_to_speech.stream(voice_id, audio=("a.wav", tone), output_format="mp3_44100_128")
        )
    finally:
        stop.set()
        worker.join()
        commands.template.cache_clear()
    samples, rate = heard(content, "pcm_44100")
    assert len(samples) / rate == pytest.approx(2.0, abs=0.01)
    # Many take all behind the first 44 bytes for samples: that is the same sound, and no mark is heard at its end.
    naive = np.frombuffer(wav[44:], "<i2") / 32_768
    assert tail_is_speech(wav)
    assert len(naive) == len(samples) and np.allclose(naive, samples, atol=2e-4)
    assert sf.read(io.BytesIO(streamed))[1] == 44_100
    jobs = list(CoverJob.objects.all())
    assert [(job.status, job.input_kind, str(job.voice_id)) for job in jobs] == [("succeeded", "vocals", voice_id)] * 3
    status, detail = refused(lambda: b"".join(client.speech_to_speech.convert("alloy", audio=("a.wav", tone))))
    assert (status, detail["loc"]) == (422, ["path", "voice_id"])


def test_history_models_and_the_user_are_told(client: ElevenLabs, voice_id: str) -> None:
    for number in range(3):
        b"".join(client.text_to_speech.convert(voice_id, text=f"{TEXT} {number}"))
    page = client.history.list(page_size=2)
    assert page.history[0].voice_id == voice_id
    assert [item.text for item in page.history] == [f"{TEXT} 2", f"{TEXT} 1"]
    assert (page.has_more, page.history[0].voice_name) == (True, "Jane")
    rest = client.history.list(page_size=2, start_after_history_item_id=page.last_history_item_id)
    assert ([item.text for item in rest.history], rest.has_more) == ([f"{TEXT} 0"], False)
    samples, rate = sf.read(io.BytesIO(b"".join(client.history.get_audio(page.history[0].history_item_id))))
    assert pitch(samples, rate) == pytest.approx(220, abs=2)
    assert {model.model_id for model in client.models.list()} == {
        "default", "eleven_v3", "eleven_multilingual_v2", "eleven_flash_v2_5", "eleven_turbo_v2_5",
    }  # fmt: skip
    subscription = client.user.subscription.get()
    assert subscription.character_count == 3 * (len(TEXT) + 2)
    assert subscription.voice_slots_used == 1
    assert client.user.get().subscription.tier == "self_hosted"


def test_errors_have_their_shape(client: ElevenLabs, live_server: Any, tenant: Tenant, settings: Any) -> None:
    error: Any
    stranger = ElevenLabs(api_key="wrong", base_url=f"{live_server.url}/elevenlabs")
    status, detail = refused(stranger.models.list)
    assert (status, detail["code"], detail["type"]) == (401, "invalid_api_key", "authentication_error")
    assert detail["request_id"]
    status, detail = refused(lambda: b"".join(client.text_to_speech.convert("alloy", text="")))
    assert (status, detail["loc"]) == (422, ["body", "text"])
    for language in ("fr", "ko"):  # The second is known, and not spoken by this engine.
        speak = functools.partial(client.text_to_speech.convert, "alloy", text=TEXT, language_code=language)
        status, detail = refused(lambda speak=speak: b"".join(speak()))
        assert (status, detail["loc"], detail["message"]) == (
            422,
            ["body", "language_code"],
            "Must be one of auto, zh (Chinese), en (English), ja (Japanese).",
        )
    answer = tenant.client.post("/elevenlabs/v1/text-to-speech/alloy", "a text", format="json")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body"])
    inputs = [{"text": "Hello.", "voice_id": "alloy"}, {"text": "", "voice_id": "alloy"}]
    answer = tenant.client.post("/elevenlabs/v1/text-to-dialogue", {"inputs": inputs}, format="json")
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "inputs", 1, "text"]]
    answer = tenant.client.post("/elevenlabs/v1/text-to-dialogue", {"inputs": []}, format="json")
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "inputs"]]
    status, detail = refused(lambda: client.history.get("nothing"))
    assert (status, detail["code"]) == (404, "not_found")
    settings.MONTHLY_AUDIO_SECONDS = 1
    with pytest.raises(ApiError) as error:
        b"".join(client.text_to_speech.convert("alloy", text=TEXT, request_options={"max_retries": 0}))
    assert (error.value.status_code, error.value.body["detail"]["code"]) == (401, "quota_exceeded")
    begun = monotonic()
    with pytest.raises(ApiError):
        b"".join(client.text_to_speech.convert("alloy", text=TEXT))
    assert monotonic() - begun < promised(5), "it is not tried again"
    settings.MONTHLY_AUDIO_SECONDS = 0
    type(tenant.key).objects.update(requests_per_minute=1)
    client.models.list()
    with pytest.raises(ApiError) as error:
        client.models.list(request_options={"max_retries": 0})
    assert error.value.body["detail"]["code"] == "rate_limit_exceeded"


def test_premade_ids_have_names_and_are_found_by_who_knows_only_these(client: ElevenLabs, tenant: Tenant) -> None:
    rachel = client.voices.get("21m00Tcm4TlvDq8ikWAM")
    assert (rachel.name, rachel.category, rachel.labels) == ("Rachel", "premade", {"gender": "female"})
    assert client.voices.settings.get("21m00Tcm4TlvDq8ikWAM").speed == 1.0
    listed = {voice.voice_id for voice in client.voices.get_all().voices}
    assert rachel.voice_id not in listed
    with_legacy = {voice.name: voice.voice_id for voice in client.voices.get_all(show_legacy=True).voices}
    assert with_legacy["Rachel"] == rachel.voice_id
    assert listed < set(with_legacy.values())
    assert [voice.name for voice in client.voices.search(voice_ids=["JBFqnCBsd6RMkjVDRZzb"]).voices] == ["George"]
    status, detail = refused(lambda: client.voices.delete(rachel.voice_id))
    assert (status, detail["code"]) == (403, "missing_permissions")
    assert {"eleven_multilingual_v2", "default"} <= {model.model_id for model in client.models.list()}


def test_a_websocket_that_is_asked_for_by_a_request_is_told(tenant: Tenant) -> None:
    for kind in ("stream-input", "multi-stream-input"):
        answer = tenant.client.get(f"/elevenlabs/v1/text-to-speech/alloy/{kind}")
        assert (answer.status_code, answer["Upgrade"]) == (426, "websocket")
        assert "A proxy in between must" in answer.json()["detail"]["message"]


def test_what_is_not_served_is_refused_in_their_shape(client: ElevenLabs) -> None:
    status, detail = refused(lambda: client.dubbing.get(dubbing_id="x"))
    assert (status, detail["code"], detail["message"]) == (404, "not_found", "There is no such path here.")
    status, detail = refused(lambda: client.speech_to_text.convert(model_id="scribe_v1", file=b"RIFF"))
    assert (status, detail["message"]) == (404, "Transcription is not offered here.")
