"""/openai/v1, by OpenAI's own client against a live server."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from typing import Any

import av
import numpy as np
import openai
import pytest
import soundfile as sf
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, wav_bytes
from tests.support.compat import assert_, pitch
from tests.support.tenants import Tenant
from voiceproject.errors import EngineBusy, StreamBroken
from voices.library.models import Consent, RecordedConsent, Voice
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Hello there. How are you?"


@pytest.fixture
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return engine


@pytest.fixture
def client(live_server: Any, tenant: Tenant, engine: FakeEngine) -> Any:
    with openai.OpenAI(base_url=f"{live_server.url}/openai/v1", api_key=tenant.secret, max_retries=0) as made:
        yield made


def heard(content: bytes, format: str) -> tuple[np.ndarray, int]:
    if format == "pcm":
        return np.frombuffer(content, "<i2") / 32_768, 24_000
    if format == "aac":
        with av.open(io.BytesIO(content)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
            return np.concatenate(frames, axis=1)[0], container.streams.audio[0].rate
    return sf.read(io.BytesIO(content))


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_comes_in_each_format_that_the_client_knows(client: Any, engine: FakeEngine, format: str) -> None:
    if format == "pcm":
        engine.sample_rate = 32_000  # It is 24 kHz there, whatever the engine makes.
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format=format)
    samples, rate = heard(answer.content, format)
    assert pitch(samples, rate) == pytest.approx(220, abs=2)
    assert len(samples) / rate == pytest.approx(0.1 * len(TEXT), abs=0.3)
    assert engine.requests[0].reference.preset == "female"
    assert engine.requests[0].model_id is None
    job = Synthesis.objects.get()
    assert (job.status, job.text, answer.response.headers["x-synthesis-id"]) == ("succeeded", TEXT, str(job.pk))


def test_a_saved_voice_speaks_by_id_or_by_object(client: Any, engine: FakeEngine) -> None:
    consent = client.audio.voice_consents.create(
        name="Jane Doe", language="en-US", recording=("c.wav", wav_bytes(speech_like(4.0), 16_000), "audio/wav")
    )
    assert consent.id.startswith("cons_")
    sample = ("s.wav", wav_bytes(speech_like(5.0, pitch=140), 16_000), "audio/wav")
    voice = client.audio.voices.create(name="Jane", audio_sample=sample, consent=consent.id)
    assert (voice.object, voice.name, voice.type) == ("audio.voice", "Jane", "audio_sample")
    record = Consent.objects.get()
    assert "Jane Doe" in record.statement
    assert RecordedConsent.objects.get().recording_hash in record.statement
    for given in (voice.id, {"id": voice.id}, str(Voice.objects.get().pk)):
        client.audio.speech.create(model="gpt-4o-mini-tts", voice=given, input=TEXT, instructions="Cheerful.")
    hashes = {request.reference.content_hash for request in engine.requests}
    assert hashes == {Voice.objects.get().reference_hash}
    listed = client.get("/audio/voices", cast_to=object)["data"]
    assert listed[0]["id"] == voice.id
    assert {"alloy", "onyx"} < {entry["id"] for entry in listed}

    assert client.audio.voices.delete(voice.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(model="tts-1", voice=voice.id, input=TEXT)
    assert Consent.objects.count() == 1


def test_consents_are_listed_changed_and_deleted(client: Any) -> None:
    recording = ("c.wav", wav_bytes(speech_like(4.0), 16_000), "audio/wav")
    made = [client.audio.voice_consents.create(name=name, language="en", recording=recording) for name in "ABC"]
    assert [consent.name for consent in client.audio.voice_consents.list(limit=2)] == ["C", "B", "A"]
    assert client.audio.voice_consents.update(made[0].id, name="D").name == "D"
    assert client.audio.voice_consents.retrieve(made[0].id).name == "D"
    assert client.audio.voice_consents.delete(made[0].id).deleted
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.voices.create(name="X", audio_sample=recording, consent=made[0].id)
    assert refused.value.param == "consent"


def test_speed_is_clamped_and_a_header_says_so(client: Any, engine: FakeEngine) -> None:
    fast = client.audio.speech.create(model="tts-1", voice="onyx", input=TEXT, speed=4.0)
    usual = client.audio.speech.create(model="tts-1", voice="onyx", input=TEXT, speed=1.5)
    assert [request.speed for request in engine.requests] == [2.0, 1.5]
    assert engine.requests[0].reference.preset == "male"
    assert fast.response.headers["x-speed-clamped"] == "2"
    assert "x-speed-clamped" not in usual.response.headers


@pytest.mark.parametrize("format", ["mp3", "pcm", "flac"])
def test_events_bring_the_audio_and_then_its_cost(client: Any, format: str) -> None:
    events = []
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input=TEXT, response_format=format, stream_format="sse"
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line:
                events.append(json.loads(line.removeprefix("data: ")))
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    samples, rate = heard(b"".join(base64.b64decode(event["audio"]) for event in deltas), format)
    assert pitch(samples, rate) == pytest.approx(220, abs=2)
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"]
    assert done["usage"]["output_tokens"] == pytest.approx(20 * len(samples) / rate, abs=3)


def test_a_stream_begins_before_the_last_sentence_is_made(client: Any, engine: FakeEngine) -> None:
    import threading

    go = threading.Event()
    engine.before_piece = lambda index: None if not index else assert_(go.wait(20))
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="pcm"
    ) as answer:
        blocks = answer.iter_bytes(1000)
        first = next(blocks)
        go.set()
        assert len(first) == 1000
        assert sum(map(len, blocks)) > 50_000


SPEECH = "/openai/v1/audio/speech"
ASKED = {"model": "tts-1", "voice": "alloy", "input": TEXT}


@pytest.mark.parametrize("extra", [{"response_format": "pcm"}, {"stream_format": "sse"}])
def test_a_stream_that_fails_later_is_cut_off(tenant: Tenant, engine: FakeEngine, extra: dict[str, str]) -> None:
    def fail(index: int) -> None:
        if index:
            raise EngineBusy

    engine.before_piece = fail
    response = tenant.client.post(SPEECH, {**ASKED, **extra}, "json")
    assert response.status_code == 200
    with pytest.raises(StreamBroken):
        b"".join(response.streaming_content)
    assert Synthesis.objects.get().status == "failed"


@pytest.mark.parametrize("extra", [{"response_format": "pcm"}, {"stream_format": "sse"}])
def test_who_hangs_up_before_the_first_byte_cancels(tenant: Tenant, engine: FakeEngine, extra: dict[str, str]) -> None:
    tenant.client.post(SPEECH, {**ASKED, **extra}, "json").close()
    assert Synthesis.objects.get().status == "canceled"


@pytest.mark.parametrize("body", ["[]", "{", '"text"', "null", "{}", '{"voice": {"id": 7}}'])
def test_odd_bodies_are_errors_of_their_shape(tenant: Tenant, engine: FakeEngine, body: str) -> None:
    for url in (SPEECH, "/openai/v1/audio/voices"):
        response = tenant.client.post(url, body, content_type="application/json")
        assert response.status_code == 400
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_voice_that_is_sent_as_the_model_speaks_and_nothing_else_does(
    tenant: Tenant, engine: FakeEngine, save: Any
) -> None:
    assert save(name="Jane").status_code == 201
    for model in ("jane", "alloy"):
        assert tenant.client.post(SPEECH, {"input": TEXT, "model": model}, "json").status_code == 200
    assert [job.voice_id is not None for job in Synthesis.objects.order_by("created_at")] == [True, False]
    for body in ({"input": TEXT, "model": "tts-1"}, {"input": TEXT}, {"input": TEXT, "voice": None}):
        error = tenant.client.post(SPEECH, body, "json").json()["error"]
        assert (error["code"], error["param"]) == ("validation_error", "voice")
        assert "required" in error["message"]


def test_what_is_made_whole_is_signed(tenant: Tenant, engine: FakeEngine) -> None:
    for format in ("mp3", "flac"):
        content = tenant.client.post(SPEECH, {**ASKED, "response_format": format}, "json").content
        form = {"file": SimpleUploadedFile(f"x.{format}", content)}
        assert tenant.client.post("/api/v1/provenance/verify", form).json()["manifest_valid"] is True


def test_what_clients_leave_out_or_send_as_null_is_the_default(tenant: Tenant, engine: FakeEngine) -> None:
    left_out = {"model": None, "response_format": None, "speed": None, "stream_format": None, "instructions": None}
    for extra in ({}, left_out, {"model": "", "speed": 1, "response_format": ""}, {"lang_code": "a", "volume": 3}):
        answer = tenant.client.post(SPEECH, {"input": TEXT, "voice": "alloy", **extra}, "json")
        assert (answer.status_code, answer["Content-Type"]) == (200, "audio/mpeg"), (extra, answer.content)
    assert [(request.model_id, request.speed) for request in engine.requests] == 4 * [(None, 1.0)]


@pytest.mark.parametrize("path", ["/openai/v1//audio/speech", "/openai//v1/audio//speech//"])
def test_a_base_url_with_a_slash_at_its_end_works(tenant: Tenant, path: str) -> None:
    assert tenant.client.post(path, ASKED, "json").status_code == 200
    assert tenant.client.get("/api/v1//voice/models").status_code == 404


def test_a_browser_may_ask_with_the_keys_of_either(live_server: Any) -> None:
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization,xi-api-key,content-type"}  # fmt: skip
    for path in ("/openai/v1/audio/speech", "/elevenlabs/v1/text-to-speech/alloy"):
        request = urllib.request.Request(live_server.url + path, headers=asked, method="OPTIONS")
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert "xi-api-key" in answer.headers["Access-Control-Allow-Headers"]


def test_models_are_ours_and_the_names_of_theirs(client: Any) -> None:
    assert {"default", "tts-1"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("tts-1").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_errors_have_their_shape(client: Any, engine: FakeEngine, tenant: Tenant) -> None:
    error: Any

    def speak(**fields: Any) -> Any:
        return client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": TEXT, **fields})

    with pytest.raises(openai.BadRequestError) as error:
        speak(input="a" * 4097)
    assert (error.value.code, error.value.param, error.value.type) == (
        "validation_error", "input", "invalid_request_error",
    )  # fmt: skip
    assert error.value.request_id
    with pytest.raises(openai.BadRequestError) as error:
        speak(input=" ")
    assert error.value.param == "input"
    with pytest.raises(openai.NotFoundError) as error:
        speak(voice="nobody")
    assert (error.value.param, "alloy" in error.value.message) == (None, True)
    with pytest.raises(openai.AuthenticationError) as error:
        client.with_options(api_key="wrong").models.list()
    assert error.value.code == "invalid_api_key"
    type(tenant.key).objects.update(scopes=["covers"])
    with pytest.raises(openai.PermissionDeniedError) as error:
        speak()
    assert error.value.code == "permission_denied"
    type(tenant.key).objects.update(scopes=["synthesize"])
    engine.failure = EngineBusy(retry_after=7)
    with pytest.raises(openai.InternalServerError) as error:
        speak()
    assert (error.value.status_code, error.value.response.headers["retry-after"]) == (503, "7")


def test_a_quota_is_not_tried_again(client: Any, settings: Any, engine: FakeEngine) -> None:
    settings.MONTHLY_AUDIO_SECONDS = 1
    with pytest.raises(openai.RateLimitError) as error:
        client.with_options(max_retries=2).audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
    assert (error.value.type, error.value.code) == ("insufficient_quota", "insufficient_quota")
    assert error.value.response.headers["x-should-retry"] == "false"
    assert engine.requests == []


def test_an_engine_without_its_own_voices_refuses_presets(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "presets", ())
    with pytest.raises(openai.NotFoundError, match="no preset voices"):
        client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)


def test_what_is_not_served_is_refused_in_their_shape(client: Any) -> None:
    for action in (client.files.list, lambda: client.chat.completions.create(model="gpt", messages=[])):
        with pytest.raises(openai.NotFoundError) as error:
            action()
        assert (error.value.code, error.value.type) == ("not_found", "not_found_error")
        assert error.value.body["message"] == "There is no such path here."  # type: ignore[index]
    with pytest.raises(openai.NotFoundError, match="Transcription is not offered here"):
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"))
