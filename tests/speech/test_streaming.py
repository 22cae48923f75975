"""`stream=true`, and clients that go away or stall: over real sockets, against the real server's processes.

The engine behind the server is the fake GPT-SoVITS, which speaks at the pitch of the reference and which a test can
stop before any sentence. So what has arrived by then was sent before the rest was made, whatever the machine's load.
"""

from __future__ import annotations

import io
import itertools
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile as sf
from django.conf import settings
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.fakes.gptsovits import pitch_of, tone
from tests.support.audio import decode, upload, wav_bytes
from tests.support.running.quick_server import PITCH, TEXT, THREADS, URL, Answer, Server, ask
from tests.support.tenants import Tenant
from tests.support.waiting import until
from voiceproject.errors import EngineError, StreamBroken
from voiceproject.leases.lease import Leases
from voiceproject.leases.models import EngineWaiter
from voiceproject.media import audio
from voiceproject.web import slots
from voices.engines import configured
from voices.engines.builtin.engine import BuiltinEngine
from voices.engines.interface import Piece
from voices.speech.models import Synthesis
from voices.text.sentences import split

pytestmark = pytest.mark.django_db(transaction=True)


# --- the encoder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "rate", "delay"),
    # mp3: a stream has no LAME tag that says how much of its beginning is the encoder's delay.
    [("wav", 24_000, 0.0), ("wav", 32_000, 0.0), ("opus", 24_000, 0.0), ("mp3", 24_000, 0.11), ("mp3", 30_000, 0.11)],
)
def test_pieces_become_one_continuous_stream_and_a_file_with_its_length(format: str, rate: int, delay: float) -> None:
    seconds = 4.0
    whole = (0.5 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
    encoder = audio.StreamEncoder(rate, format)
    sent = b""
    behind = []
    # Cut anywhere: what is heard at the joins is the encoder's doing.
    cuts = [0, 7_001, 30_011, 30_012, 61_007, len(whole)]
    for start, stop in itertools.pairwise(cuts):
        sent += encoder.write(whole[start:stop])
        behind.append(stop / rate - len(decode(sent)[0]) / decode(sent)[1])
    assert max(behind) <= 0.13, "what was written can be heard at once, but for the last tenth of a second"
    sent += encoder.close()
    for content, slack in ((sent, delay), (encoder.content(), 0.0)):
        for samples, found in (decode(content), sf.read(io.BytesIO(content), dtype="float32")):
            assert seconds - 0.001 <= len(samples) / found <= seconds + slack
            # A click, a gap or a doubled frame would break the sine: its second difference stays small throughout.
            start = int(slack * found)
            inner = samples[start + found // 20 : -found // 20 - start]
            bend = np.abs(np.diff(inner, 2)).max()
            assert bend <= 1.25 * 0.5 * (2 * np.pi * 220 / found) ** 2 + 0.004
            assert np.sqrt(np.mean(inner**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)  # LAME takes 5 % off
    assert encoder.content()[-5_000:] == sent[-5_000:], "the same audio"


def test_a_wav_stream_is_read_by_whoever_reads_wav() -> None:
    encoder = audio.StreamEncoder(16_000, "wav")
    sent = encoder.write(np.full(16_000, 0.5, np.float32)) + encoder.write(np.zeros(8_000, np.float32))
    sent += encoder.close()
    with wave.open(io.BytesIO(sent)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert len(file.readframes(file.getnframes())) == 2 * 24_000
    assert sf.info(io.BytesIO(sent)).duration == 1.5
    with wave.open(io.BytesIO(encoder.content())) as file:
        assert file.getnframes() == 24_000


def test_flac_is_no_stream() -> None:
    with pytest.raises(ValueError, match="flac"):
        audio.StreamEncoder(24_000, "flac")


# --- the view, with an engine in this process ---------------------------------------------------------------


@pytest.fixture
def stream(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> Callable[..., Any]:
    def send(**fields: Any) -> Any:
        form = {"text": TEXT, "reference_audio": upload(reference_wav), "stream": "true", **fields}
        return api.post(URL, form)

    return send


@pytest.mark.parametrize("format", audio.STREAMED_FORMATS)
def test_the_first_sentence_is_sent_before_the_second_is_made(
    stream: Callable[..., Any], api: APIClient, engine: FakeEngine, format: str
) -> None:
    asked: list[int] = []
    engine.before_piece = asked.append
    response = stream(response_format=format)
    assert (response.status_code, response.streaming) == (200, True)
    assert response["Content-Type"] == audio.CONTENT_TYPES[format]
    assert response["X-Audio-Sample-Rate"] == "24000"
    assert "X-Audio-Duration" not in response
    assert "Content-Length" not in response
    blocks = iter(response.streaming_content)
    first = next(blocks)
    assert asked == [0]
    row = Synthesis.objects.get(pk=response["X-Synthesis-ID"])
    assert row.status == "running"
    body = first + b"".join(blocks)
    response.close()
    assert asked == [0, 1, 2]
    row.refresh_from_db()
    expected = sum(min(3.0, 0.1 * len(sentence.text)) for sentence in split(TEXT, "auto", early=True))
    assert row.status == "succeeded"
    assert row.duration_seconds == pytest.approx(expected, abs=0.02)
    assert row.sample_rate == 24_000
    stored = b"".join(api.get(f"/api/v1/voice/syntheses/{row.pk}/audio").streaming_content)
    if format == "pcm":
        assert stored == body
        assert len(body) / 2 / 24_000 == pytest.approx(expected, abs=0.02)
        return
    samples, rate = decode(body)
    assert len(samples) / rate == pytest.approx(expected, abs=0.12)
    assert pitch_of(samples, rate) == pytest.approx(220, rel=0.02)
    kept, rate = sf.read(io.BytesIO(stored))
    assert len(kept) / rate == pytest.approx(expected, abs=0.02)


def test_what_fails_before_the_first_sentence_is_an_ordinary_error(
    stream: Callable[..., Any], engine: FakeEngine
) -> None:
    engine.failure = EngineError()
    response = stream()
    assert (response.status_code, response.json()["error"]) == (502, "engine_error")
    assert Synthesis.objects.get().status == "failed"
    refused = stream(response_format="flac")
    assert refused.status_code == 400
    assert "wav, pcm, mp3, opus" in refused.json()["details"]["response_format"][0]
    assert Synthesis.objects.count() == 1


def test_what_fails_later_ends_the_stream_as_broken(
    stream: Callable[..., Any], engine: FakeEngine, leftovers: Callable[[], list[str]]
) -> None:
    def fail(index: int) -> None:
        engine.failure = EngineError("no such voice") if index == 1 else None

    engine.before_piece = fail
    response = stream()
    with pytest.raises(StreamBroken):
        list(response.streaming_content)
    response.close()
    row = Synthesis.objects.get()
    assert (row.status, row.error, row.error_message) == ("failed", "engine_error", "no such voice")
    assert row.engine_seconds > 0
    assert leftovers() == []


def test_a_stream_that_cannot_be_stored_is_no_success(
    stream: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    response = stream()
    monkeypatch.setattr(Synthesis._meta.get_field("audio").storage, "save", full)
    with pytest.raises(StreamBroken):
        list(response.streaming_content)
    response.close()
    assert (Synthesis.objects.get().status, Synthesis.objects.get().error) == ("failed", "storage_full")


def test_a_stream_that_nobody_takes_is_canceled_and_its_place_is_free(
    stream: Callable[..., Any], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "slots", slots.Places(1))
    asked: list[int] = []
    engine.before_piece = asked.append
    response = stream()
    refused = stream()
    assert (refused.status_code, refused.json()["error"]) == (503, "too_many_waiting")
    response.close()
    assert Synthesis.objects.order_by("created_at")[0].status == "canceled"
    assert asked == [0]
    again = stream()
    assert len(b"".join(again.streaming_content)) > 1000
    again.close()


def test_five_thousand_characters_are_streamed_whole(stream: Callable[..., Any], engine: FakeEngine) -> None:
    engine.sample_rate = 8_000
    text = ("The morning train was late again, so we walked along the river. " * 80)[:5000]
    response = stream(text=text, response_format="wav")
    body = b"".join(response.streaming_content)
    response.close()
    row = Synthesis.objects.get()
    assert row.status == "succeeded"
    assert len(row.text) >= 4999
    assert sf.info(io.BytesIO(body)).duration == pytest.approx(row.duration_seconds, abs=0.001)
    assert row.duration_seconds == pytest.approx(3.0 * 79, rel=0.03)


def test_the_builtin_engine_is_heard_before_it_has_read_on(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = BuiltinEngine(tmp_path)
    made: list[str] = []
    lengths: list[int] = []
    speak = engine._pool.speak

    def counted(order: dict[str, Any], *args: Any) -> Piece:
        made.append(order["text"])
        piece = speak(order, *args)
        lengths.append(len(piece.samples))
        return piece

    monkeypatch.setattr(engine._pool, "speak", counted)
    monkeypatch.setattr(configured, "load_engine", lambda: engine)
    reference = (settings.BASE_DIR / "voiceproject/samples/reference.flac").read_bytes()
    text = "We came home very late that night, had some soup in the kitchen, and then we went up to bed. Good night."
    try:
        response = api.post(URL, {"text": text, "stream": "true", "reference_audio": upload(reference, "r.flac")})
        assert response.status_code == 200
        body = next(iter(response.streaming_content))
        assert made == ["We came home very late that night,"], "a clause of the first sentence is enough to begin"
        body += b"".join(response.streaming_content)
        response.close()
    finally:
        engine.close()
    assert made[1:] == ["had some soup in the kitchen, and then we went up to bed.", "Good night."]
    samples, rate = sf.read(io.BytesIO(body))
    assert len(samples) / rate == pytest.approx(Synthesis.objects.get().duration_seconds, abs=0.001)
    assert 4 < len(samples) / rate < 12
    # No click where two sentences meet.
    joins = np.cumsum(lengths)[:-1]
    assert all(np.abs(np.diff(samples[join - 24 : join + 24])).max() < 0.02 for join in joins)
    assert np.sqrt(np.mean(samples**2)) > 0.01


# --- the whole server ---------------------------------------------------------------------------------------


def row() -> Synthesis:
    return Synthesis.objects.get()


def ended() -> str:
    until(lambda: Synthesis.objects.exclude(status="running").exists(), 60)
    return row().status


def test_the_first_bytes_arrive_while_the_second_sentence_is_being_made(server: Server, tenant: Tenant) -> None:
    server.fake.hold_at = 1
    answer = Answer(ask(server, tenant, stream="true"))
    assert (answer.status, answer.headers["transfer-encoding"]) == (200, "chunked")
    assert answer.headers["x-engine"] == "gptsovits"
    assert answer.headers["x-audio-sample-rate"] == "32000"
    assert answer.headers["x-synthesis-id"] == str(row().pk)
    assert "x-request-id" in answer.headers
    assert not {"content-length", "x-audio-duration"} & set(answer.headers)
    body = answer.at_least(80_000)  # 1.2 s of 16 bits at 32 kHz
    until(lambda: server.fake.begun == 2)
    assert not server.fake.gate.is_set()
    assert pitch_of(*decode(body)) == pytest.approx(PITCH, rel=0.03), "it can be played by now"
    assert row().status == "running"
    server.fake.gate.set()
    more, whole = answer.rest()
    assert whole
    assert row().status == "succeeded", "by the end of the body the audio is stored"
    samples, rate = sf.read(io.BytesIO(body + more), dtype="float32")
    assert len(samples) / rate == pytest.approx(row().duration_seconds, abs=0.001)
    assert pitch_of(samples[-rate:], rate) == pytest.approx(PITCH, rel=0.03)
    stored = requests.get(
        f"http://127.0.0.1:{server.port}/api/v1/voice/syntheses/{row().pk}/audio",
        headers={"X-API-Key": tenant.secret}, timeout=30,
    )  # fmt: skip
    kept, _ = sf.read(io.BytesIO(stored.content), dtype="float32")
    assert np.array_equal(kept, samples)
    answer.hang_up()


def test_a_kept_connection_serves_on_after_a_stream(server: Server, tenant: Tenant) -> None:
    connection = ask(
        server, tenant, stream="true", response_format="mp3", behind=b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    answer = Answer(connection)
    body, whole = answer.rest()
    assert whole
    assert len(decode(body)[0]) / 32_000 == pytest.approx(row().duration_seconds, abs=0.12)
    assert answer.file.readline().startswith(b"HTTP/1.1 404")
    assert row().status == "succeeded", "bytes that follow are no sign of a client that went away"
    answer.hang_up()


@pytest.mark.parametrize("format", ["wav", "opus"])
def test_an_error_in_mid_stream_cuts_the_body_off(server: Server, tenant: Tenant, format: str) -> None:
    server.fake.moods.extend(["speak", "tts_failed"])
    answer = Answer(ask(server, tenant, stream="true", response_format=format))
    assert answer.status == 200
    body, whole = answer.rest()
    assert not whole
    assert pitch_of(*decode(body)) == pytest.approx(PITCH, rel=0.03)
    assert (ended(), row().error) == ("failed", "engine_error")
    assert row().engine_seconds > 0
    assert server.fake.begun == 2
    (line,) = [line for line in server.log.read_text().splitlines() if str(row().pk) in line and "broke off" in line]
    assert answer.headers["x-request-id"] in line
    assert "kaputt" not in row().error_message
    assert server.answers()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        server.fake.begun = 0
        server.fake.moods.extend(["speak", "tts_failed"])
        requests.post(
            f"http://127.0.0.1:{server.port}{URL}", headers={"X-API-Key": tenant.secret}, timeout=60,
            data={"text": TEXT, "stream": "true"}, files={"reference_audio": wav_bytes(tone(200, 5, 16_000), 16_000)},
        )  # fmt: skip
    answer.hang_up()


def test_a_client_without_chunks_sees_the_cut_as_a_reset(server: Server, tenant: Tenant) -> None:
    with ask(server, tenant, version="1.0", stream="true") as connection:
        answer = Answer(connection)
        assert "transfer-encoding" not in answer.headers
        assert sf.info(io.BytesIO(answer.file.read())).duration == pytest.approx(row().duration_seconds, abs=0.001)
    server.fake.moods.extend(["speak", "tts_failed"])
    with ask(server, tenant, version="1.0", stream="true") as connection:
        answer = Answer(connection)
        with pytest.raises(ConnectionResetError):
            answer.file.read()
    assert server.answers()


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_client_that_goes_away_stops_the_work_at_the_next_sentence(
    server: Server, tenant: Tenant, stream: str
) -> None:
    server.fake.hold_at = 1
    # Bytes that nobody has read yet do not hide the end that follows them.
    connection = ask(server, tenant, stream=stream, behind=b"GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: server.fake.begun == 2)
    connection.close()
    for _ in range(2):  # The second heartbeat from here comes after a look at the closed connection.
        last = row().heartbeat_at
        until(lambda last=last: row().heartbeat_at != last)
    server.fake.gate.set()
    assert ended() == "canceled"
    assert server.fake.begun == 2
    assert not row().audio


def test_a_client_that_goes_away_in_the_queue_is_not_served(server: Server, tenant: Tenant) -> None:
    with Leases([server.fake.url]).acquire(time.monotonic() + 10):
        connection = ask(server, tenant)
        until(lambda: EngineWaiter.objects.count() == 1)
        connection.close()
        assert ended() == "canceled"
        assert EngineWaiter.objects.count() == 0
    assert server.fake.begun == 0
    assert server.answers()


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_stream_canceled_by_its_tenant_is_cut_off(server: Server, tenant: Tenant, how: str) -> None:
    server.fake.hold_at = 1
    answer = Answer(ask(server, tenant, stream="true"))
    answer.at_least(80_000)
    until(lambda: server.fake.begun == 2)
    path = f"/api/v1/voice/syntheses/{row().pk}"
    done = tenant.client.delete(path) if how == "delete" else tenant.client.post(f"{path}/cancel")
    assert done.status_code in (200, 204)
    time.sleep(1.2)  # much longer than from one heartbeat to the next
    server.fake.gate.set()
    _, whole = answer.rest()
    assert not whole
    assert server.fake.begun == 2
    assert [row.status for row in Synthesis.objects.all()] == (["canceled"] if how == "cancel" else [])
    folder = Path(server.log.parent, "data/media")
    assert not [path for path in folder.rglob("*") if path.is_file() and answer.headers["x-synthesis-id"] in str(path)]
    answer.hang_up()


# --- clients that stall or speak no HTTP --------------------------------------------------------------------


def test_more_silent_clients_than_threads_hold_nobody_up(server: Server) -> None:
    silent = [server.connect() for _ in range(3 * THREADS)]
    try:
        assert server.answers()
        silent[0].settimeout(0)
        with pytest.raises(BlockingIOError):
            silent[0].recv(1)  # still open: it was answered while they all were
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /api/v1/voice/synthesize HTTP/1.1\r\nHost: local", 408),
        (
            b"POST /api/v1/voice/synthesize HTTP/1.1\r\nHost: localhost\r\nX-API-Key: KEY\r\nContent-Length: 500000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; ",
            400,
        ),
    ],
    ids=["head", "upload"],
)
def test_more_stalled_requests_than_threads_are_let_go(
    server: Server, tenant: Tenant, sent: bytes, status: int
) -> None:
    stalled = [server.connect() for _ in range(THREADS + 3)]
    for connection in stalled:
        connection.sendall(sent.replace(b"KEY", tenant.secret.encode()))
    answered: list[bool] = []
    other = threading.Thread(target=lambda: answered.append(server.answers()))
    other.start()
    for connection in stalled:
        answer = Answer(connection)
        assert (answer.status, answer.json()["error"]) == (status, "validation_error")
        assert "x-request-id" in answer.headers
        answer.hang_up()
    other.join(60)
    assert answered == [True]
    assert Synthesis.objects.count() == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: odd\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_answered_with_the_envelope(server: Server, sent: bytes, status: int) -> None:
    with server.connect() as connection:
        connection.sendall(sent)
        answer = Answer(connection)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
        body = answer.json()
        assert (body["success"], body["error"], body["details"]) == (False, "validation_error", {})
        assert f"request_id={answer.headers['x-request-id']}" in server.log.read_text()
        assert connection.recv(1) == b""


def test_head_and_options_are_answered(server: Server) -> None:
    base = f"http://127.0.0.1:{server.port}"
    plain = {"Accept-Encoding": "identity"}
    for path in ("/openapi.json", "/health", "/api/v1/me"):
        head, get = (requests.request(method, base + path, headers=plain, timeout=30) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (get.status_code, b"")
        if path != "/health":  # Which tells its own times.
            assert int(head.headers["Content-Length"]) == len(get.content)
    assert "no-body response" not in server.log.read_text()
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    preflight = requests.options(base + URL, headers=asked, timeout=30)
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:3000"
