"""POST /api/v1/voice/synthesize and what is kept of it."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.conf import settings
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.tenants import Tenant
from voiceproject.errors import EngineBusy, EngineError, EngineTimeout, EngineUnavailable, PublicError
from voiceproject.web import slots
from voices.engines import configured
from voices.speech.models import Synthesis

# The heartbeat of a synthesis is written by a thread, through a connection of its own.
pytestmark = pytest.mark.django_db(transaction=True)
URL = "/api/v1/voice/synthesize"


@pytest.fixture
def post(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> Callable[..., Any]:
    def send(_client: APIClient = api, **fields: Any) -> Any:
        form = {"text": "Hello there.", "reference_audio": upload(reference_wav), **fields}
        return _client.post(URL, {name: value for name, value in form.items() if value is not None})

    return send


def test_one_request_gives_a_wav_whose_headers_tell_the_truth(post: Callable[..., Any], engine: FakeEngine) -> None:
    response = post(text="Hello there. How are you?", speed="0.5")
    assert response.status_code == 200
    assert response["Content-Type"] == "audio/wav"
    samples, rate = sf.read(io.BytesIO(response.content))
    assert rate == engine.sample_rate == int(response["X-Audio-Sample-Rate"])
    assert len(samples) / rate == pytest.approx(float(response["X-Audio-Duration"]), abs=1e-3)
    assert len(samples) / rate == pytest.approx(0.2 * 24, abs=0.3)
    assert response["X-Engine"] == "builtin"
    row = Synthesis.objects.get(pk=response["X-Synthesis-ID"])
    assert (row.status, row.text, row.speed) == ("succeeded", "Hello there. How are you?", 0.5)
    assert row.request_id == response["X-Request-ID"]


@pytest.mark.parametrize(
    ("format", "content_type"),
    [("mp3", "audio/mpeg"), ("flac", "audio/flac"), ("opus", "audio/ogg; codecs=opus"), ("wav", "audio/wav")],
)
def test_each_format_decodes_to_the_same_tone(post: Callable[..., Any], format: str, content_type: str) -> None:
    response = post(response_format=format)
    assert response["Content-Type"] == content_type
    samples, rate = sf.read(io.BytesIO(response.content))
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(220, abs=2)
    assert len(samples) / rate == pytest.approx(float(response["X-Audio-Duration"]), abs=0.03)


def test_pcm_is_bare_16_bit_samples_at_the_rate_of_the_header(post: Callable[..., Any]) -> None:
    response = post(response_format="pcm")
    samples = np.frombuffer(response.content, dtype="<i2")
    assert len(samples) / int(response["X-Audio-Sample-Rate"]) == pytest.approx(
        float(response["X-Audio-Duration"]), abs=1e-3
    )
    assert 0.25 < np.max(samples) / 32768 < 0.35


def test_the_engine_gets_what_was_sent(post: Callable[..., Any], engine: FakeEngine) -> None:
    post(language="en", temperature="0.3", seed="7", reference_text="What I said.", reference_language="en")
    request = engine.requests[0]
    assert (request.language, request.temperature, request.seed) == ("en", 0.3, 7)
    assert (request.reference.transcript, request.reference.language) == ("What I said.", "en")
    assert request.reference.samples.dtype == np.float32
    assert request.reference.duration_seconds == pytest.approx(4.0, abs=0.01)


def test_a_seed_is_drawn_and_kept_when_none_is_sent(post: Callable[..., Any], engine: FakeEngine) -> None:
    rows = [Synthesis.objects.get(pk=post()["X-Synthesis-ID"]) for _ in range(2)]
    assert rows[0].seed == engine.requests[0].seed
    assert rows[0].seed != rows[1].seed


BOUNDS = [
    ("text", "a", "", 200),
    ("text", "a" * 5000, "a" * 5001, 200),
    ("text", " a" + " " * 6000, "   ", 200),
    ("speed", "0.5", "0.49", 200),
    ("speed", "2.0", "2.01", 200),
    ("temperature", "0.1", "0.09", 200),
    ("temperature", "1.0", "1.01", 200),
    ("seed", "0", "-1", 200),
    ("seed", str(2**32 - 1), str(2**32), 200),
    ("reference_text", "a" * 2000, "a" * 2001, 200),
    ("language", "ja", "xx", 200),
    ("response_format", "flac", "midi", 200),
    ("model_id", "default", "another", 200),
    ("stream", "false", "odd", 200),
]


@pytest.mark.parametrize(("field", "inside", "outside", "status"), BOUNDS)
def test_each_bound_holds_on_both_sides(
    post: Callable[..., Any], engine: FakeEngine, field: str, inside: str, outside: str, status: int
) -> None:
    assert post(**{field: inside}).status_code == status
    made = len(engine.requests)
    refused = post(**{field: outside})
    assert refused.status_code == 400
    assert refused.json()["error"] == "validation_error"
    assert list(refused.json()["details"]) == [field]
    assert len(engine.requests) == made


@pytest.mark.parametrize(
    ("seconds", "error"), [(2.99, "reference_too_short"), (3.0, None), (60.0, None), (60.55, "reference_too_long")]
)
def test_a_reference_has_3_to_60_seconds(post: Callable[..., Any], seconds: float, error: str | None) -> None:
    response = post(reference_audio=upload(wav_bytes(speech_like(seconds, 8000), 8000)))
    assert response.status_code == (400 if error else 200)
    if error:
        assert response.json()["error"] == error
        assert response.json()["details"]["field"] == "reference_audio"


def test_a_file_may_be_as_large_as_the_limit_and_not_a_byte_larger(
    post: Callable[..., Any], settings: Any, reference_wav: bytes
) -> None:
    settings.MAX_UPLOAD_SIZE = len(reference_wav)
    assert post().status_code == 200
    settings.MAX_UPLOAD_SIZE = len(reference_wav) - 1
    response = post()
    assert response.status_code == 413
    assert response.json()["error"] == "file_too_large"
    assert response.json()["details"] == {
        "field": "reference_audio", "limit": len(reference_wav) - 1, "found": len(reference_wav),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text": None}, "text"),
        ({"reference_audio": None}, "reference_audio"),
        ({"reference_audio": "not a file"}, "reference_audio"),
        ({"text": "nul\x00byte"}, "text"),
        ({"text": "😀🎉"}, "text"),
        ({"text": "?!…"}, "text"),
        ({"text": ["one", "two"]}, "text"),
        ({"speed": "nan"}, "speed"),
        ({"speed": "inf"}, "speed"),
        ({"temperature": "warm"}, "temperature"),
        ({"seed": "1.5"}, "seed"),
        ({"langauge": "en"}, "langauge"),
        ({"language": "yue"}, "language"),
        ({"voice_id": str(uuid.uuid4())}, "voice_id"),
    ],
)
def test_what_is_missing_unknown_or_odd_is_named(
    post: Callable[..., Any], engine: FakeEngine, leftovers: Callable[[], list[str]], fields: dict[str, Any], named: str
) -> None:
    response = post(**fields)
    assert response.status_code == 400
    body = response.json()
    assert body["success"] is False
    assert body["error"] == "validation_error"
    assert named in body["details"]
    assert all(isinstance(message, str) for message in body["details"][named])
    assert engine.requests == []
    assert leftovers() == []
    assert not Synthesis.objects.exists()


ODD_TEXTS = {
    "zero width": ("\u200b\u200d\u2060\ufeff" * 100, 400),
    "a combining accent on nothing": ("\u0301" * 100, 400),
    "private use": ("\ue000\uf8ff\U0010fffd", 400),
    "replacement character": ("\ufffd", 400),
    "direction marks alone": ("\u202e\u202c\u2066\u2069", 400),
    "null byte": ("Hello\0there", 400),
    "escape sequence": ("Hello \x1b[31mthere", 400),
    "5000 emoji": ("\U0001f600" * 5000, 400),
    "a family of emoji": ("\U0001f468\u200d\U0001f469\u200d\U0001f467", 400),
    "5000 characters outside of the first plane": ("\U00020000" * 5000, 200),
    "5001 characters outside of the first plane": ("\U00020000" * 5001, 400),
    "5000 characters, of which 4999 are accents": ("a" + "\u0301" * 4999, 200),
    "an accent by itself behind its letter": ("Cafe\u0301", 200),
    "direction marks around words": ("\u202eHello\u202c there", 200),
    "zero width within words": ("Hel\u200blo", 200),
    "line ends of every kind": ("One.\r\nTwo.\rThree.\u2028Four.\u2029Five.\x85", 200),
    "markup": ("<speak>Hello &amp; <break time='9s'/></speak>", 200),
    "a pause of hours": ("Hello <break time='100h'/> there", 400),
    "a pause that is too long": ("Hello <break time='9999s'/> there", 400),
    "markup that is not closed": ("Hello <prosody rate='slow'>there", 400),
    "an entity that is none": ("Hello &nothing; and &#0; there", 200),
    "a format string": ("Hello {text} %s %(x)s ${HOME}", 200),
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_texts_are_spoken_or_refused_and_never_crash(
    post: Callable[..., Any], engine: FakeEngine, leftovers: Callable[[], list[str]], name: str
) -> None:
    text, status = ODD_TEXTS[name]
    response = post(text=text)
    assert response.status_code == status, response.content[:300]
    if status == 200:
        assert [request.text for request in engine.requests] == [text.strip()]
    else:
        assert list(response.json()["details"]) == ["text"]
        assert engine.requests == []
        assert leftovers() == []


@pytest.mark.parametrize("text", [b"\xed\xa0\xbd", b"\xff\xfe", b"\xc0\x80"], ids=repr)
def test_bytes_that_are_no_utf_8_are_refused(api: APIClient, engine: FakeEngine, text: bytes) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + text + b"\r\n--b--\r\n"
    response = api.post(URL, body, content_type="multipart/form-data; boundary=b")
    assert response.status_code == 400
    assert set(response.json()["details"]) == {"text", "reference_audio"}


@pytest.mark.parametrize("text", ["مرحبا بالعالم", "שלום", "Привет", "안녕하세요", "สวัสดี"])
def test_a_script_that_the_builtin_engine_cannot_read_is_refused_by_name(
    api: APIClient, reference_wav: bytes, leftovers: Callable[[], list[str]], text: str
) -> None:
    """By the real engine, which refuses before it starts any process."""
    configured.load_engine.cache_clear()
    response = api.post(URL, {"text": text, "reference_audio": upload(reference_wav)})
    assert (response.status_code, response.json()["error"]) == (400, "unsupported_language"), response.content
    assert response.json()["details"]["found"]
    assert leftovers() == []
    assert not Synthesis.objects.exists()


def test_two_files_in_one_field_are_refused(
    api: APIClient, engine: FakeEngine, reference_wav: bytes, leftovers: Callable[[], list[str]]
) -> None:
    files = [upload(reference_wav, "a.wav"), upload(reference_wav, "b.wav")]
    response = api.post(URL, {"text": "Hello", "reference_audio": files})
    assert response.status_code == 400
    assert "reference_audio" in response.json()["details"]
    assert leftovers() == []


def test_a_wrong_extension_and_content_type_do_not_matter(post: Callable[..., Any], reference_wav: bytes) -> None:
    assert post(reference_audio=upload(reference_wav, "voice.txt", "text/plain")).status_code == 200


def test_what_is_no_id_of_a_voice_says_where_ids_are(api: APIClient, engine: FakeEngine) -> None:
    for url in ("/api/v1/voice/synthesize", "/api/v1/cover/jobs"):
        body = api.post(url, {"text": "Hi.", "voice_id": "abc"}, format="multipart").json()
        assert body["details"]["voice_id"] == ["This is no id of a voice. GET /api/v1/voice/voices lists yours."]


def test_json_is_told_to_send_a_file(api: APIClient, engine: FakeEngine) -> None:
    response = api.post(URL, {"text": "Hello"}, format="json")
    assert response.status_code == 400
    assert "reference_audio" in response.json()["details"]
    assert api.post(URL, b"{", content_type="application/json").json()["error"] == "validation_error"
    assert api.post(URL, b"x", content_type="application/x-tar").json()["error"] == "unsupported_media_type"
    assert api.post(URL, b"[1]", content_type="application/json").json()["error"] == "validation_error"
    assert api.post(URL, b"x", content_type="multipart/form-data").json()["error"] == "validation_error"


FAILURES = [
    (EngineError(), 502, "engine_error", "engine_error"),
    (EngineUnavailable(), 503, "engine_unavailable", "engine_error"),
    (EngineBusy(), 503, "engine_busy", "engine_error"),
    (EngineTimeout(), 504, "engine_timeout", "timed_out"),
    (RuntimeError("secret path /etc/x"), 500, "internal_error", "engine_error"),
]


@pytest.mark.parametrize(("failure", "status", "code", "job_error"), FAILURES)
def test_an_engine_that_fails_is_told_by_its_code_and_kept_as_failed(
    post: Callable[..., Any],
    api: APIClient,
    engine: FakeEngine,
    failure: Exception,
    status: int,
    code: str,
    job_error: str,
) -> None:
    engine.failure = failure
    response = post()
    assert response.status_code == status
    assert response.json()["error"] == code
    assert "secret" not in response.content.decode()
    assert ("Retry-After" in response) == (status == 503)
    row = Synthesis.objects.get()
    assert (row.status, row.error) == ("failed", job_error)
    assert api.get(f"/api/v1/voice/syntheses/{row.pk}/audio").json()["error"] == "job_failed"


def test_what_the_engine_refuses_to_speak_is_not_kept(post: Callable[..., Any], engine: FakeEngine) -> None:
    engine.failure = PublicError("validation_error", "text: Not in this alphabet.", {"text": ["Not in this alphabet."]})
    assert post().status_code == 400
    assert not Synthesis.objects.exists()


def test_syntheses_are_listed_downloaded_and_deleted(
    post: Callable[..., Any], api: APIClient, leftovers: Callable[[], list[str]]
) -> None:
    made = post()
    listed = api.get("/api/v1/voice/syntheses").json()
    assert [item["synthesis_id"] for item in listed["results"]] == [made["X-Synthesis-ID"]]
    one = api.get(listed["results"][0]["links"]["self"]).json()
    assert one["duration_seconds"] == pytest.approx(float(made["X-Audio-Duration"]), abs=1e-3)
    audio = api.get(one["links"]["audio"])
    assert b"".join(audio.streaming_content) == made.content
    part = api.get(one["links"]["audio"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, b"".join(part.streaming_content)) == (206, b"RIFF")
    assert len(leftovers()) == 1
    assert api.delete(one["links"]["self"]).status_code == 204
    assert api.get(one["links"]["self"]).status_code == 404
    assert leftovers() == []


def test_pages_and_filters_of_the_list(post: Callable[..., Any], api: APIClient, engine: FakeEngine) -> None:
    made = [post()["X-Synthesis-ID"] for _ in range(3)]
    engine.failure = EngineError()
    post()
    page = api.get("/api/v1/voice/syntheses?status=succeeded&page_size=2").json()
    following = api.get(page["next"]).json()
    ids = [item["synthesis_id"] for item in page["results"] + following["results"]]
    assert ids == made[::-1]
    assert following["next"] is None
    assert api.get("/api/v1/voice/syntheses?created_before=2000-01-01T00:00:00Z").json()["results"] == []
    assert api.get("/api/v1/voice/syntheses?status=odd").json()["error"] == "validation_error"
    assert api.get("/api/v1/voice/syntheses?cursor=odd").status_code in (400, 404)


def test_nothing_of_another_tenant_can_be_seen(post: Callable[..., Any], other: Tenant) -> None:
    pk = post()["X-Synthesis-ID"]
    for method, path in [("get", ""), ("get", "/audio"), ("delete", ""), ("post", "/cancel")]:
        response = getattr(other.client, method)(f"/api/v1/voice/syntheses/{pk}{path}")
        assert (response.status_code, response.json()["error"]) == (404, "not_found")
    assert other.client.get("/api/v1/voice/syntheses").json()["results"] == []
    assert Synthesis.objects.filter(pk=pk).exists()


def test_a_synthesis_canceled_while_it_is_made_gives_no_audio(
    post: Callable[..., Any], api: APIClient, engine: FakeEngine, leftovers: Callable[[], list[str]]
) -> None:
    def cancel(index: int) -> None:
        if index == 1:
            assert api.post(f"/api/v1/voice/syntheses/{Synthesis.objects.get().pk}/cancel").status_code == 200
            time.sleep(0.7)  # Longer than from one heartbeat to the next.

    engine.before_piece = cancel
    response = post(text="One sentence. Another sentence. A third one.")
    assert (response.status_code, response.json()["error"]) == (409, "job_canceled")
    assert Synthesis.objects.get().status == "canceled"
    assert leftovers() == []


def test_a_synthesis_past_its_deadline_is_504(post: Callable[..., Any], settings: Any) -> None:
    settings.SYNTHESIS_TIMEOUT_SECONDS = -1
    response = post()
    assert (response.status_code, response.json()["error"]) == (504, "engine_timeout")
    assert Synthesis.objects.get().error == "timed_out"


def test_some_threads_are_always_left_for_short_requests(
    post: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "slots", slots.Places(1))
    with slots.waiting_slot("another"):
        response = post()
    assert (response.status_code, response.json()["error"]) == (503, "too_many_waiting")
    assert int(response["Retry-After"]) >= 1
    assert post().status_code == 200


def test_expired_audio_is_gone_and_says_so(
    post: Callable[..., Any], api: APIClient, leftovers: Callable[[], list[str]]
) -> None:
    pk = post()["X-Synthesis-ID"]
    Synthesis.objects.update(expires_at="2001-01-01T00:00:00Z")
    assert Synthesis.expire() == 1
    assert Synthesis.expire() == 0
    assert leftovers() == []
    response = api.get(f"/api/v1/voice/syntheses/{pk}/audio")
    assert (response.status_code, response.json()["error"]) == (410, "result_expired")


def test_models_and_the_engines_state_are_told(api: APIClient, engine: FakeEngine) -> None:
    models = api.get("/api/v1/voice/models").json()["models"]
    assert models == [
        {
            "id": "default", "name": "builtin's default voice model", "description": "", "engine": "builtin",
            "version": "", "languages": ["en", "ja", "zh"], "uses": ["synthesis", "covers"],
            "voice_id": None, "owned": False,
        }
    ]  # fmt: skip
    state = api.get("/api/v1/voice/health").json()
    assert (state["engine"], state["available"], state["queue_length"]) == ("builtin", True, 0)
    older = {"service": "voice-synthesis", "status": "healthy", "sovits_available": False}
    assert older.items() <= state.items()


def test_an_error_knows_its_status() -> None:
    with pytest.raises(ValueError):
        PublicError("no_such_code", "")
    assert settings.REST_FRAMEWORK["UNAUTHENTICATED_USER"] is None


def test_pauses_of_the_text_are_exact_in_the_audio(post: Callable[..., Any], engine: FakeEngine) -> None:
    response = post(text="<break time='250ms'/>Hello there.<break time='1.5s'/>How are you?<break time='700ms'/>")
    samples, rate = sf.read(io.BytesIO(response.content))
    loud = np.flatnonzero(np.abs(samples) > 0.003)
    gaps = np.flatnonzero(np.diff(loud) > 0.1 * rate)
    assert loud[0] / rate == pytest.approx(0.25, abs=0.02)
    assert len(gaps) == 1
    assert (loud[gaps[0] + 1] - loud[gaps[0]]) / rate == pytest.approx(1.5, abs=0.02)
    assert (len(samples) - loud[-1]) / rate == pytest.approx(0.7, abs=0.02)
    assert float(response["X-Audio-Duration"]) == pytest.approx(len(samples) / rate, abs=1e-3)


def test_what_is_left_out_or_guessed_is_a_warning(post: Callable[..., Any], api: APIClient) -> None:
    response = post(text="Hello there 😀 [whispers] my <laugh> friend.", language="en-US", response_format="WAV")
    assert response.status_code == 200
    expected = "Left out, since it is not read: grinning face, <laugh>, [whispers]."
    assert response["X-Warning"] == expected
    job = api.get(f"/api/v1/voice/syntheses/{response['X-Synthesis-ID']}").json()
    assert job["warnings"] == [{"code": "left_out", "message": expected}]
    assert (job["warning"], job["language"]) == (expected, "en")
    german = "Guten Morgen, wie geht es Ihnen heute?"
    assert "X-Warning" not in post(text="Good morning, how are you today?")
    assert post(text=german, language="en")["X-Warning"] == "This text is German; it was read as English."
    refused = post(text=german)
    assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_language")
    assert refused.json()["details"]["supported"] == ["en", "ja", "zh"]


def test_a_refused_choice_lists_the_choices(post: Callable[..., Any]) -> None:
    details = post(language="klingon", response_format="wma").json()["details"]
    assert "zh (Chinese)" in details["language"][0]
    assert "wav, mp3, flac, opus, pcm" in details["response_format"][0]


def test_what_will_be_spoken_is_shown_and_spends_nothing(api: APIClient, engine: FakeEngine) -> None:
    text = "# Room 305\n\n<break time='1s'/>It costs $20 😀."
    response = api.post("/api/v1/voice/normalize", {"text": text, "language": "EN"}, format="json")
    assert response.status_code == 200
    said = [(s["words"], s["language"], s["end"], s["pause_seconds"]) for s in response.json()["sentences"]]
    assert said == [("Room three zero five", "en", "clause", 1.0), ("It costs twenty dollars.", "en", "sentence", 0.0)]
    assert response.json()["warnings"] == [
        {"code": "left_out", "message": "Left out, since it is not read: grinning face."}
    ]
    assert not Synthesis.objects.exists() and engine.requests == []
    refused = api.post("/api/v1/voice/normalize", {"text": "<audio>a</audio>"}, format="json")
    assert (refused.status_code, list(refused.json()["details"])) == (400, ["text"])
