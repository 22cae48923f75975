"""What a real Chromium's MediaRecorder makes of a microphone, and fragments as Safari's makes them: sent to the API."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from rest_framework.test import APIClient
from scipy.signal import correlate

from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.browser import Browser
from tests.support.missing import needs
from tests.support.recordings.audio_files import Samples, tone
from tests.support.recordings.ffmpeg import ffmpeg
from voiceproject.media import audio

RATE = 48_000
SECONDS = 5.0
# Of its MP4 Chromium decodes no more than what follows the pre-skip, though its encoder puts 6.5 ms in front, and sound
# from there on. Where there is no edit list that number is "informative only", so that the whole is taken here.
CHROMIUM_LEAVES_OUT = 0.08
FRAME_SECONDS = 0.06  # The last one is filled up.
# Records for so long, and answers with the file, and with what the browser itself hears in it.
RECORD = """(async () => {
    const options = {audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}};
    const stream = await navigator.mediaDevices.getUserMedia(options);
    const recorder = new MediaRecorder(stream, {mimeType: %s});
    const parts = [];
    recorder.ondataavailable = event => parts.push(event.data);
    const ended = new Promise(resolve => { recorder.onstop = resolve; });
    recorder.start(250);
    await new Promise(resolve => setTimeout(resolve, %d));
    recorder.stop();
    await ended;
    stream.getTracks().forEach(track => track.stop());
    const blob = new Blob(parts, {type: recorder.mimeType});
    const heard = await new AudioContext({sampleRate: 48000}).decodeAudioData(await blob.arrayBuffer());
    const samples = new Uint8Array(heard.getChannelData(0).buffer);
    const text = bytes => {
        let out = '';
        for (let at = 0; at < bytes.length; at += 8192) out += String.fromCharCode(...bytes.subarray(at, at + 8192));
        return btoa(out);
    };
    return [recorder.mimeType, text(new Uint8Array(await blob.arrayBuffer())), text(samples)];
})()"""


@dataclass(frozen=True)
class Recording:
    """heard: what the browser itself decodes of `content`, (n,) at 48 kHz."""

    content: bytes
    heard: Samples


def clicks(seconds: float) -> Samples:
    """A soft tone with a burst each second, (n,) at RATE."""
    samples = tone(seconds, RATE, 220, 0.1)
    burst = (0.7 * np.hanning(480) * np.sin(2 * np.pi * 1000 * np.arange(480) / RATE)).astype(np.float32)
    for at in range(RATE // 2, len(samples) - 480, RATE):
        samples[at : at + 480] += burst
    return samples


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The address of an empty page that may use the microphone."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    needs("chromium")
    folder = tmp_path_factory.mktemp("recorder")
    sf.write(folder / "microphone.wav", clicks(30), RATE, subtype="PCM_16")
    with Browser(folder / "profile", folder / "microphone.wav") as running:
        running.open(page)
        yield running


def recorded(browser: Browser, kind: str) -> Recording:
    if not browser.evaluate(f"MediaRecorder.isTypeSupported({json.dumps(kind)})"):
        pytest.skip(f"this Chromium does not record {kind}")
    answer, content, heard = browser.evaluate(RECORD % (json.dumps(kind), 1000 * SECONDS))
    assert answer.startswith(kind.partition(";")[0])
    return Recording(base64.b64decode(content), np.frombuffer(base64.b64decode(heard), "<f4"))


def clicks_at(samples: Samples, rate: int) -> Samples:
    """Where the bursts are, in s: one in each second of what is as long as it should be."""
    burst = np.hanning(rate // 100) * np.sin(2 * np.pi * 1000 * np.arange(rate // 100) / rate)
    fits = np.abs(correlate(samples, burst, "valid"))
    places = []
    for start in range(0, len(fits) - rate + 1, rate):
        places.append((start + int(np.argmax(fits[start : start + rate]))) / rate)
    return np.array(places)


def sent_everywhere(api: APIClient, engine: FakeEngine, content: bytes, seconds: float) -> None:
    """As a reference and as a song: both are as long as that, and nothing is warned of."""
    answer = api.post("/api/v1/voice/synthesize", {"text": "Hello", "reference_audio": upload(content, "blob")})
    assert answer.status_code == 200, answer.content
    assert "X-Warning" not in answer
    assert engine.requests[-1].reference.duration_seconds == pytest.approx(seconds, abs=FRAME_SECONDS)
    job = api.post("/api/v1/cover/jobs", {"song": upload(content, "blob"), "reference_voice": upload(content, "blob")})
    assert job.status_code == 202, job.content
    assert job.json()["duration_seconds"] == pytest.approx(seconds, abs=FRAME_SECONDS)
    assert not job.json()["warnings"]


@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kind", "left_out"), [("audio/webm;codecs=opus", 0.0), ("audio/mp4;codecs=opus", CHROMIUM_LEAVES_OUT)]
)
def test_a_browsers_recording_is_as_long_as_the_browser_hears_it_and_in_its_place(
    kind: str, left_out: float, browser: Browser, api: APIClient, engine: FakeEngine, tmp_path: Path
) -> None:
    recording = recorded(browser, kind)
    seconds = len(recording.heard) / RATE + left_out
    assert seconds == pytest.approx(SECONDS, abs=1.0)
    sent_everywhere(api, engine, recording.content, seconds)
    (tmp_path / "recording").write_bytes(recording.content)
    audio.decode_song(tmp_path / "recording", tmp_path / "song.wav", field="song", max_seconds=60, sample_rate=RATE)
    song = sf.read(tmp_path / "song.wav", dtype="float32", always_2d=True)[0][:, 0]
    reference, rate = audio.load_reference(tmp_path / "recording", field="reference_audio")
    theirs = clicks_at(np.pad(recording.heard, (round(left_out * RATE), 0)), RATE)
    assert len(theirs) >= 3
    for ours in (clicks_at(song, RATE), clicks_at(reference, rate)):
        assert ours[: len(theirs)] == pytest.approx(theirs[: len(ours)], abs=0.005)


@pytest.mark.django_db(transaction=True)
def test_fragments_as_safari_records_them_have_their_length_and_their_clicks(
    api: APIClient, engine: FakeEngine, tmp_path: Path
) -> None:
    sf.write(tmp_path / "source.wav", clicks(SECONDS), RATE, subtype="PCM_16")
    how = "-c:a aac -movflags frag_keyframe+empty_moov+default_base_moof -frag_duration 250000 -f mp4 pipe:1"
    content = ffmpeg(tmp_path, "-i", "source.wav", *how.split())
    sent_everywhere(api, engine, content, SECONDS)
    (tmp_path / "recording").write_bytes(content)
    audio.decode_song(tmp_path / "recording", tmp_path / "song.wav", field="song", max_seconds=60, sample_rate=RATE)
    song = sf.read(tmp_path / "song.wav", dtype="float32", always_2d=True)[0][:, 0]
    reference, rate = audio.load_reference(tmp_path / "recording", field="reference_audio")
    for ours in (clicks_at(song, RATE), clicks_at(reference, rate)):
        assert ours == pytest.approx(np.arange(0.5, SECONDS), abs=0.005)
