"""The GPT-SoVITS client against a server with all of the real one's oddities: whose voice speaks, and what
each failure is.

References are tones; the server speaks at the pitch of the reference that it has read, so pitch tells whose
voice it was.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from tests.fake_gptsovits import FakeGptSovits, pitch_of, tone
from tests.fake_own_server import FakeOwnServer
from tests.test_lease import child, in_thread, until
from voiceproject.errors import PublicError
from voiceproject.lease import UNKNOWN, Leases
from voiceproject.logging import bind
from voiceproject.models import EngineLease, EngineWaiter
from voices.engines import Model, Piece, Reference, SynthesisRequest, protocols
from voices.engines.gptsovits import (
    GptSovitsEngine,
    best_window,
    least_seconds,
)
from voices.engines.protocols import store_reference, sweep_references, wav_bytes

TEXT = "This is one sentence of a dozen words, which anybody can speak."


@pytest.fixture
def fake() -> Iterator[FakeGptSovits]:
    with FakeGptSovits() as server:
        yield server


Engines = Callable[..., GptSovitsEngine]


@pytest.fixture
def engine_for(tmp_path: Path, transactional_db: None) -> Iterator[Engines]:
    """An engine for servers' URLs; leases with short times."""
    made: list[GptSovitsEngine] = []

    def make(
        *urls: str,
        timeout_seconds: float = 20,
        queue_seconds: float = 20,
        max_waiting: int = 16,
        set_aside_seconds: float = 1.0,
        folder: Path | None = None,
        **options: Any,
    ) -> GptSovitsEngine:
        folder = folder or tmp_path / "references"
        engine = GptSovitsEngine(
            urls,
            timeout_seconds=timeout_seconds,
            reference_dir=folder,
            reference_dir_on_server=str(folder),
            queue_seconds=queue_seconds,
            max_waiting=max_waiting,
            lease_factory=lambda servers, **bounds: Leases(servers, set_aside_seconds=set_aside_seconds, **bounds),
            **options,
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
    until(lambda: not any(thread.name.startswith("probe ") for thread in threading.enumerate()))


def voice(pitch: float = 120.0, seconds: float = 5.0, rate: int = 24_000, **fields: Any) -> Reference:
    return Reference(tone(pitch, seconds, rate), rate, f"{pitch}-{seconds}", **fields)


def ask(text: str = TEXT, reference: Reference | None = None, **fields: Any) -> SynthesisRequest:
    fields.setdefault("language", "en")
    return SynthesisRequest(text, reference=reference or voice(), **fields)


def speak(engine: GptSovitsEngine, request: SynthesisRequest | None = None, seconds: float = 30) -> list[Piece]:
    return list(engine.synthesize(request or ask(), time.monotonic() + seconds, lambda: False))


def failure(engine: GptSovitsEngine, request: SynthesisRequest | None = None, seconds: float = 30) -> PublicError:
    with pytest.raises(PublicError) as caught:
        speak(engine, request, seconds)
    return caught.value


def pitch(pieces: list[Piece]) -> float:
    return pitch_of(np.concatenate([piece.samples for piece in pieces]), pieces[0].sample_rate)


def post(url: str, **fields: Any) -> tuple[int, bytes]:
    """What a naive client sends."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("POST", "/tts", json.dumps(fields), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


# --- the fake is worth testing against ----------------------------------------------------------------------


def plain(path: Path, **fields: Any) -> dict[str, Any]:
    return {"text": TEXT, "text_lang": "en", "prompt_lang": "en", "ref_audio_path": str(path)} | fields


def test_the_fake_fails_as_the_real_one_does(fake: FakeGptSovits, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, tone(150, 4, 16_000), 16_000)
    assert post(fake.url, text="Hello")[0] == 400
    assert post(fake.url, **plain(path, text=3))[0] == 422
    assert post(fake.url, **plain(path, text_lang="de"))[0] == 400
    assert b"tts failed" in post(fake.url, **plain(tmp_path / "missing.wav"))[1]
    status, silence = post(fake.url, **plain(path, text="..."))
    assert (status, len(silence), any(silence[44:])) == (200, 32_044, False)
    with pytest.raises(OSError, match="404"):
        urlopen(fake.url + "/health", timeout=5)
    for seconds, expected in ((2.99, 400), (3.0, 200), (10.0, 200), (10.01, 400)):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, tone(150, seconds, 16_000), 16_000)
        assert post(fake.url, **plain(path))[0] == expected


def test_the_fake_remembers_a_reference_by_its_path_alone(fake: FakeGptSovits, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    for frequency in (110, 220):
        soundfile.write(path, tone(frequency, 4, 16_000), 16_000)
        _, content = post(fake.url, **plain(path))
        heard = pitch_of(np.frombuffer(content[44:], np.int16).astype(np.float32), 32_000)
        assert heard == pytest.approx(110, rel=0.03), "the old voice, though the file has changed"


def test_two_streams_at_once_swap_voices_in_the_fake(fake: FakeGptSovits, tmp_path: Path) -> None:
    fake.seconds = 0.5
    heard = {}
    for frequency in (110, 220):
        soundfile.write(tmp_path / f"{frequency}.wav", tone(frequency, 4, 16_000), 16_000)

    def naive(frequency: int) -> None:
        _, content = post(fake.url, **plain(tmp_path / f"{frequency}.wav", streaming_mode=1))
        heard[frequency] = pitch_of(np.frombuffer(content[44:], np.int16).astype(np.float32), 32_000)

    first = in_thread(lambda: naive(110))
    until(lambda: len(fake.log) == 1 and "started" in fake.log[0])
    naive(220)
    first.join()
    assert heard[110] == pytest.approx(220, rel=0.03)
    assert fake.overlaps() == 1


# --- whose voice --------------------------------------------------------------------------------------------


def test_it_speaks_in_the_voice_of_the_reference(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    for frequency in (90, 140, 260):
        pieces = speak(engine, ask(reference=voice(frequency)))
        assert pitch(pieces) == pytest.approx(frequency, rel=0.03)
        assert [piece.sample_rate for piece in pieces] == [32_000]
        assert pieces[0].samples.dtype == np.float32 and pieces[0].samples.ndim == 1


def test_parallel_threads_never_overlap_and_never_swap_voices(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.unlocked = True  # only the client keeps them apart
    fake.seconds = 0.05
    engines = [engine_for(fake.url) for _ in range(2)]  # as two processes have one each
    heard: dict[int, list[float]] = {100: [], 200: []}

    def work(frequency: int, engine: GptSovitsEngine) -> None:
        for _ in range(3):
            heard[frequency].append(pitch(speak(engine, ask(reference=voice(frequency)))))

    threads = [
        in_thread(lambda frequency=frequency, engine=engine: work(frequency, engine))  # type: ignore[misc]
        for frequency in heard
        for engine in engines
    ]
    for thread in threads:
        thread.join()
    assert len(fake.log) == 12 and fake.overlaps() == 0
    for frequency, pitches in heard.items():
        assert pitches == pytest.approx([frequency] * 6, rel=0.03)


PROCESS = """
import json, time
from pathlib import Path
from tests.test_gptsovits import ask, pitch, speak, voice
from voices.engines.gptsovits import GptSovitsEngine
url, folder, frequency = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
engine = GptSovitsEngine([url], 20, folder, str(folder), 60, 16)
print(json.dumps([pitch(speak(engine, ask(reference=voice(frequency)), 60)) for _ in range(4)]))
"""


def test_parallel_processes_never_overlap_and_never_swap_voices(tmp_path: Path, transactional_db: None) -> None:
    command = [sys.executable, "-m", "tests.fake_gptsovits", "--seconds", "0.05", "--unlocked"]
    server = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        frequencies = [100, 150, 200, 280]
        clients = [child(PROCESS, url, str(tmp_path), str(frequency)) for frequency in frequencies]
        for frequency, client in zip(frequencies, clients, strict=True):
            output, _ = client.communicate(timeout=180)
            assert client.returncode == 0
            assert json.loads(output) == pytest.approx([frequency] * 4, rel=0.03)
        with urlopen(f"{url}/_fake/log", timeout=10) as response:
            seen = json.load(response)
        assert (len(seen["calls"]), seen["overlaps"]) == (16, 0)
        assert len(list(tmp_path.glob("*"))) == 4, "one file a reference, whoever wrote it"
    finally:
        server.kill()
        server.wait()


def test_a_reference_is_a_file_named_by_its_content(fake: FakeGptSovits, engine_for: Engines, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    engine = engine_for(fake.url, folder=folder)
    # The caller's name for it does not count: other audio under the same name is another file, and another
    # voice.
    for frequency, files in ((110.0, 1), (220.0, 2), (110.0, 2)):
        reference = Reference(tone(frequency, 5, 24_000), 24_000, "the-same-name")
        assert pitch(speak(engine, ask(reference=reference))) == pytest.approx(frequency, rel=0.03)
        assert len(list(folder.iterdir())) == files
    paths = [call["body"]["ref_audio_path"] for call in fake.log]
    assert paths[0] == paths[2] != paths[1]
    info = soundfile.info(paths[0])
    assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, 24_000)
    assert info.frames == 5 * 24_000


def test_audio_that_cannot_change_is_encoded_once_and_written_again_when_its_file_was_swept(
    fake: FakeGptSovits, engine_for: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def counted(samples: np.ndarray, rate: int) -> bytes:
        encoded.append(len(samples))
        return wav_bytes(samples, rate)

    monkeypatch.setattr(protocols, "wav_bytes", counted)
    folder = tmp_path / "shared"
    engine = engine_for(fake.url, folder=folder)
    samples = tone(110, 12, 24_000)
    for writeable, times in ((True, 2), (False, 3)):
        samples.flags.writeable = writeable
        for _ in range(2):
            speak(engine, ask(reference=Reference(samples, 24_000, "a")))
        assert len(encoded) == times
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.unlink()
    assert pitch(speak(engine, ask(reference=Reference(samples, 24_000, "a")))) == pytest.approx(110, rel=0.03)
    assert file.read_bytes() == content
    assert len(encoded) == 4


def test_a_reference_file_is_never_written_again(tmp_path: Path) -> None:
    samples = tone(110, 4, 16_000)
    name = store_reference(samples, 16_000, tmp_path)
    before = (tmp_path / name).stat()
    assert store_reference(samples, 16_000, tmp_path) == name
    after = (tmp_path / name).stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)


def test_references_that_nobody_has_used_for_long_are_swept(tmp_path: Path) -> None:
    old, kept = (store_reference(tone(pitch, 4, 16_000), 16_000, tmp_path) for pitch in (110, 220))
    for name in (old, kept):
        os.utime(tmp_path / name, (0, 0))
    store_reference(tone(220, 4, 16_000), 16_000, tmp_path)  # used again
    assert sweep_references(tmp_path, 3600) == 1
    assert [path.name for path in tmp_path.iterdir()] == [kept]


def test_a_folder_that_cannot_be_written_is_the_operators_to_mend(fake: FakeGptSovits, engine_for: Engines,
                                                                  tmp_path: Path) -> None:  # fmt: skip
    (tmp_path / "file").write_text("not a folder")
    error = failure(engine_for(fake.url, folder=tmp_path / "file"))
    assert (error.code, error.status) == ("not_configured", 503)
    assert str(tmp_path) not in error.message
    assert fake.log == []


def test_the_server_is_told_where_it_sees_the_reference(
    fake: FakeGptSovits, tmp_path: Path, transactional_db: None
) -> None:
    seen_there = tmp_path / "there"
    seen_there.symlink_to(tmp_path / "here")
    engine = GptSovitsEngine([fake.url], 20, tmp_path / "here", f"{seen_there}/", 20, 16)
    assert pitch(speak(engine, ask(reference=voice(170)))) == pytest.approx(170, rel=0.03)
    path = Path(fake.log[0]["body"]["ref_audio_path"])
    assert path.parent == seen_there and (tmp_path / "here" / path.name).exists()


# --- the length of the reference ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_3_and_10_seconds_are_taken_as_they_are(
    fake: FakeGptSovits, engine_for: Engines, seconds: float, rate: int
) -> None:
    synthesis = engine_for(fake.url).synthesize(
        ask(reference=voice(120, seconds, rate, transcript="Hello there.")),
        time.monotonic() + 20,
        lambda: False,
    )
    assert synthesis.reference_window is None
    assert pitch(list(synthesis)) == pytest.approx(120, rel=0.03)


def test_under_3_seconds_never_reaches_the_server(fake: FakeGptSovits, engine_for: Engines) -> None:
    error = failure(engine_for(fake.url), ask(reference=voice(seconds=2.99)))
    assert (error.code, error.status) == ("reference_too_short", 400)
    assert error.details["duration_seconds"] == 2.99
    assert fake.log == []


def test_over_10_seconds_with_a_transcript_never_reaches_the_server(fake: FakeGptSovits, engine_for: Engines) -> None:
    reference = voice(seconds=10.01, transcript="More words than are heard.")
    error = failure(engine_for(fake.url), ask(reference=reference))
    assert (error.code, error.status) == ("reference_too_long", 400)
    assert fake.log == []


def test_of_a_longer_reference_the_part_with_the_speech_is_used(fake: FakeGptSovits, engine_for: Engines) -> None:
    rate = 16_000
    hush = 0.001 * np.random.default_rng(1).standard_normal(20 * rate).astype(np.float32)
    spoken = np.concatenate([tone(180, 1.8, rate), hush[: rate // 5]] * 4)  # 8 s, four phrases
    samples = np.concatenate([hush[: 9 * rate], spoken, hush[: 13 * rate]])
    synthesis = engine_for(fake.url).synthesize(
        ask(reference=Reference(samples, rate, "long")), time.monotonic() + 20, lambda: False
    )
    assert synthesis.reference_window is not None
    start, end = synthesis.reference_window
    assert start <= 9.02 and end >= 16.78 and 3 <= end - start <= 10
    assert pitch(list(synthesis)) == pytest.approx(180, rel=0.03)
    info = soundfile.info(fake.log[0]["body"]["ref_audio_path"])
    assert info.duration == pytest.approx(end - start, abs=0.001)


@pytest.mark.parametrize("seconds", [10.01, 17.3, 60.0])
def test_the_best_window_is_cut_where_it_is_quiet(seconds: float) -> None:
    rate = 22_050
    generator = np.random.default_rng(int(seconds))
    parts, speech, at = [], [], 0.0
    while at < seconds:
        length, pause = generator.uniform(0.5, 2.5), generator.uniform(0.15, 0.6)
        speech.append((at, at + length))
        parts += [tone(140, length, rate), np.zeros(round(pause * rate), np.float32)]
        at += length + pause
    samples = np.concatenate(parts)[: round(seconds * rate)]
    samples += 0.0005 * generator.standard_normal(len(samples)).astype(np.float32)
    start, end = best_window(samples, rate)
    assert 5 <= end - start <= 10
    for cut in (start, end):
        inside = [span for span in speech if span[0] + 0.03 < cut < min(span[1], seconds) - 0.03]
        assert inside == [], "the cut goes through a phrase"

    def spoken(begin: float, stop: float) -> float:
        return sum(max(0.0, min(stop, last) - max(begin, first)) for first, last in speech)

    # No window between two pauses holds clearly more.
    edges = [0.0, *(edge for span in speech for edge in span if edge <= seconds), seconds]
    best = max(spoken(a, b) for a in edges for b in edges if 0 < b - a <= 10)
    assert spoken(start, end) > best - 0.5


def test_the_best_window_of_unbroken_sound_is_a_window() -> None:
    for samples in (tone(120, 30, 8000), np.zeros(30 * 8000, np.float32)):
        start, end = best_window(samples, 8000)
        assert 0 <= start < end <= 30 and 3 <= end - start <= 10


# --- what is asked of the server ----------------------------------------------------------------------------


def test_the_call_has_what_the_server_needs(fake: FakeGptSovits, engine_for: Engines) -> None:
    reference = voice(transcript="  What I say here. ", language="auto")
    speak(engine_for(fake.url), ask(reference=reference, speed=1.25, temperature=0.4, seed=7))
    body = dict(fake.log[0]["body"])
    assert Path(body.pop("ref_audio_path")).exists()
    assert body == {
        "text": TEXT, "text_lang": "en", "prompt_text": "What I say here.", "prompt_lang": "en",
        "temperature": 0.4, "speed_factor": 1.25, "seed": 7, "text_split_method": "cut0", "batch_size": 1,
        "media_type": "wav", "streaming_mode": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Good morning to all of you.", "auto", ["en"]),
        ("今天天气很好，我们去公园吧。", "auto", ["zh"]),
        ("今日はとてもいい天気ですね。", "auto", ["ja"]),
        ("안녕하세요, 반갑습니다.", "auto", ["ko"]),
        ("今日天氣好好。", "yue", ["yue"]),
        ("Good morning to all of you. 今天天气很好。今日はいい天気です。", "auto", ["en", "zh", "ja"]),
    ],
)
def test_each_sentence_goes_in_its_own_language(
    fake: FakeGptSovits, engine_for: Engines, text: str, language: str, expected: list[str]
) -> None:
    pieces = speak(engine_for(fake.url), ask(text, language=language))
    assert [call["body"]["text_lang"] for call in fake.log] == expected
    assert [piece.text for piece in pieces] == [call["body"]["text"] for call in fake.log]


@pytest.mark.parametrize(("text", "language"), [("?!… 🎉🎉", "auto"), ("Добрый день, друзья.", "auto"), (TEXT, "de")])
def test_what_it_cannot_speak_never_reaches_the_server(
    fake: FakeGptSovits, engine_for: Engines, text: str, language: str
) -> None:
    assert failure(engine_for(fake.url), ask(text, language=language)).code == "validation_error"
    assert fake.log == []


def test_a_language_that_the_loaded_version_lacks_is_an_engine_error(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.version = "v1"
    assert failure(engine_for(fake.url), ask("안녕하세요, 반갑습니다.", language="ko")).code == "engine_error"


def test_a_long_text_is_spoken_in_bounded_calls_and_joins_without_clicks(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    text = " ".join(f"Sentence number {number} tells of a thing that has happened to somebody." for number in range(12))
    pieces = speak(engine_for(fake.url), ask(text))
    assert len(fake.log) == 12 and max(len(call["body"]["text"]) for call in fake.log) <= 220
    assert " ".join(piece.text for piece in pieces) == text
    # Nothing is lost, and every piece begins and ends at rest.
    letters = sum(char.isalnum() for char in text)
    seconds = sum(len(piece.samples) / piece.sample_rate for piece in pieces)
    assert seconds == pytest.approx(letters * 0.06 + 12 * 0.3, rel=0.01)
    assert all(abs(piece.samples[0]) < 0.01 and abs(piece.samples[-1]) < 0.01 for piece in pieces)
    assert len({call["body"]["seed"] for call in fake.log}) == 1, "one seed for the whole request"


def test_pieces_come_as_they_are_made_and_stop_when_nobody_listens(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "The first sentence is here. The second one follows it. The third one ends it."
    pieces = engine_for(fake.url).synthesize(ask(text), time.monotonic() + 20, lambda: False)
    assert next(pieces).text == "The first sentence is here."
    assert len(fake.log) == 1
    assert EngineLease.objects.get().owner == "", "nobody is kept from the server while the listener thinks"
    pieces.close()
    assert list(pieces) == [] and len(fake.log) == 1


def test_a_cancel_stops_before_the_next_sentence(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "The first sentence is here. The second one follows it. The third one ends it."
    pieces = list(engine_for(fake.url).synthesize(ask(text), time.monotonic() + 20, lambda: len(fake.log) >= 2))
    assert len(pieces) == len(fake.log) == 2


def test_the_same_seed_gives_the_same_audio_and_no_seed_gives_another(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    first, again, other = (speak(engine, ask(seed=seed))[0].samples for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    drawn = [engine.synthesize(ask(), time.monotonic() + 20, lambda: False) for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    list(drawn[0])
    assert fake.log[-1]["body"]["seed"] == drawn[0].seed >= 0


def test_speed_is_the_servers_to_keep(fake: FakeGptSovits, engine_for: Engines) -> None:
    lengths = [
        len(speak(engine_for(fake.url), ask(speed=speed, temperature=0.1))[0].samples) / 32_000 - 0.3
        for speed in (0.5, 1.0, 2.0)
    ]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.02)
    assert lengths[1] / lengths[2] == pytest.approx(2, rel=0.02)


# --- answers that are no speech -----------------------------------------------------------------------------

BAD_ANSWERS = [
    "silence", "tts_failed", "empty_exception", "unprocessable", "server_error", "redirect", "html",
    "garbage", "mp3", "header_only", "nan", "cut", "truncated", "broken_stream", "oversize", "not_http",
]  # fmt: skip


@pytest.mark.parametrize("mood", BAD_ANSWERS)
def test_an_answer_that_is_no_speech_is_an_engine_error(
    fake: FakeGptSovits, engine_for: Engines, caplog: pytest.LogCaptureFixture, mood: str
) -> None:
    engine = engine_for(fake.url)
    fake.moods.append(mood)
    fake.redirect_to = f"{fake.url}/tts"
    with caplog.at_level(logging.INFO):
        error = failure(engine)
    assert (error.code, error.status) == ("engine_error", 502)
    assert error.message == "The speech engine could not make this audio." and error.details == {}
    assert len(fake.log) == 1, "neither a redirect nor another attempt"
    # An operator can see what it was; what was to be spoken is not in the logs.
    assert fake.url in caplog.text
    assert TEXT not in caplog.text and "dozen words" not in caplog.text
    # The server is used again at once.
    assert pitch(speak(engine)) == pytest.approx(120, rel=0.03)


def test_what_the_server_says_is_logged_in_short(
    fake: FakeGptSovits, engine_for: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    fake.mood = "tts_failed"
    failure(engine_for(fake.url))
    assert "answered 400" in caplog.text and "kaputt at [text]" in caplog.text
    fake.mood = "unprocessable"
    failure(engine_for(fake.url))
    assert "answered 422" in caplog.text and "Input should be nicer" in caplog.text


def test_an_endless_answer_is_cut_off(
    fake: FakeGptSovits, engine_for: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.engines.protocols.MAX_ANSWER_BYTES", 500_000)
    fake.moods.append("oversize")
    assert failure(engine_for(fake.url)).code == "engine_error"
    assert fake.oversize_mib < 40, "what the sockets hold, and no more"
    # An answer under the cap is not concerned.
    assert len(speak(engine_for(fake.url))) == 1


def test_stereo_is_mixed_down(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.mood = "stereo"
    pieces = speak(engine_for(fake.url))
    assert pieces[0].samples.ndim == 1 and pitch(pieces) == pytest.approx(120, rel=0.03)


def test_a_change_of_the_sample_rate_within_a_text_is_an_engine_error(fake: FakeGptSovits, engine_for: Engines) -> None:
    text = "The first sentence is here. The second one follows it."
    pieces = engine_for(fake.url).synthesize(ask(text), time.monotonic() + 20, lambda: False)
    assert next(pieces).sample_rate == 32_000
    fake.sample_rate = 48_000
    with pytest.raises(PublicError) as caught:
        next(pieces)
    assert caught.value.code == "engine_error"


def test_a_sentence_that_was_swallowed_is_said_again_with_another_seed(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    fake.moods.append("short")
    whole = sum(char.isalnum() for char in TEXT) * 0.06
    pieces = speak(engine_for(fake.url), ask(seed=2**32 - 1))
    assert len(pieces[0].samples) / 32_000 == pytest.approx(whole + 0.3, rel=0.01)
    assert [call["body"]["seed"] for call in fake.log] == [2**32 - 1, 0]
    # Only once: a text can be that short.
    fake.log.clear()
    fake.mood = "short"
    assert len(speak(engine_for(fake.url))) == 1 and len(fake.log) == 2


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Yes.", 0.25),
        ("It was 1999.", 1.4),
        ("The quick brown fox jumps over the lazy dog.", 2.0),
        ("今天天气很好。", 1.0),
    ],
)
def test_ordinary_and_fast_speech_is_not_taken_for_swallowed(text: str, spoken: float) -> None:
    assert least_seconds(text, 1.0) < spoken / 1.5
    assert least_seconds(text, 2.0) == pytest.approx(least_seconds(text, 1.0) / 2)


# --- servers that do not answer -----------------------------------------------------------------------------


def refused_url() -> str:
    """A port where nothing listens."""
    fake = FakeGptSovits()
    fake._http.server_close()
    return fake.url


def test_a_refused_connection_is_unavailable(engine_for: Engines) -> None:
    engine = engine_for(refused_url(), set_aside_seconds=60)
    for _ in range(2):  # tried, then known
        error = failure(engine)
        assert (error.code, error.status) == ("engine_unavailable", 503)
    assert error.retry_after is not None and error.retry_after > 1
    assert "127.0.0.1" not in error.message


def test_an_unknown_host_is_unavailable(engine_for: Engines) -> None:
    assert failure(engine_for("http://no-such-host.invalid:9880")).code == "engine_unavailable"


def test_a_server_that_comes_back_is_used_again(engine_for: Engines) -> None:
    url = refused_url()
    engine = engine_for(url, set_aside_seconds=0.2)
    assert failure(engine).code == "engine_unavailable"
    with FakeGptSovits(port=urlsplit(url).port or 0):
        until(lambda: not Leases([url]).states()[url].set_aside)
        assert pitch(speak(engine)) == pytest.approx(120, rel=0.03)


def test_a_reset_before_the_answer_is_unavailable_and_probed_before_the_next_call(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    fake.moods.append("reset")
    error = failure(engine)
    assert (error.code, error.status) == ("engine_unavailable", 503)
    assert (len(fake.log), fake.probes) == (1, 0)
    assert len(speak(engine)) == 1
    assert fake.probes == 1


@pytest.mark.parametrize("mood", ["drip", "drip_header"])
def test_bytes_that_drip_do_not_stretch_the_time_limit(fake: FakeGptSovits, engine_for: Engines, mood: str) -> None:
    fake.mood = mood
    started = time.monotonic()
    error = failure(engine_for(fake.url, timeout_seconds=0.7))
    assert (error.code, error.status) == ("engine_timeout", 504)
    assert 0.7 <= time.monotonic() - started < 10


def test_after_a_time_out_the_server_is_used_only_once_it_has_answered_a_probe(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url, timeout_seconds=0.5, queue_seconds=0.7)
    fake.moods.append("hang")
    error = failure(engine)
    assert (error.code, error.status) == ("engine_timeout", 504)
    assert EngineLease.objects.get().needs_probe
    # The server still works on it. Slow is not dead: the next one waits for its turn, and in vain.
    error = failure(engine)
    assert (error.code, error.status) == ("engine_busy", 503)
    assert error.retry_after is not None and error.retry_after >= 1
    assert len(fake.log) == 1, "not called while it may still speak for another"
    assert EngineLease.objects.get().needs_probe
    fake.wake()
    until(lambda: "ended" in fake.log[0])
    assert pitch(speak(engine, ask(reference=voice(200)))) == pytest.approx(200, rel=0.03)
    assert fake.log[1]["arrived"] > fake.log[0]["ended"]
    assert not EngineLease.objects.get().needs_probe


def test_whoever_waits_for_a_late_server_goes_on_as_soon_as_it_answers(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url, timeout_seconds=0.4)
    fake.moods.append("hang")
    assert failure(engine).code == "engine_timeout"
    engine = engine_for(fake.url)
    done = threading.Event()

    def work() -> None:
        speak(engine)
        done.set()

    thread = in_thread(work)
    until(lambda: EngineLease.objects.get().owner != "")  # it holds the lease, and probes
    assert not done.is_set() and len(fake.log) == 1
    fake.wake()
    thread.join()
    assert done.is_set() and fake.overlaps() == 0


def test_the_requests_deadline_bounds_everything(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    fake.moods.append("hang")
    started = time.monotonic()
    assert failure(engine, seconds=0.5).code == "engine_timeout"  # in the call
    assert failure(engine, seconds=0.5).code == "engine_timeout"  # in the probe
    EngineLease.objects.update(owner="another", expires_at="2100-01-01T00:00:00Z")
    assert failure(engine, seconds=0.5).code == "engine_timeout"  # in the line
    assert failure(engine, seconds=-1).code == "engine_timeout"
    assert time.monotonic() - started < 10
    assert len(fake.log) == 1 and EngineWaiter.objects.count() == 0


# --- the line -----------------------------------------------------------------------------------------------


def test_waiting_is_bounded_in_time_and_in_number(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url, queue_seconds=0.5, max_waiting=1)
    fake.moods.append("hang")
    holder = in_thread(lambda: speak(engine, seconds=60))
    until(lambda: len(fake.log) == 1)
    started = time.monotonic()
    error = failure(engine)
    assert (error.code, error.status) == ("engine_busy", 503)
    assert error.retry_after is not None and error.retry_after >= 1
    assert time.monotonic() - started >= 0.5
    patient = engine_for(fake.url, max_waiting=1)
    waiter = in_thread(lambda: speak(patient))
    until(lambda: EngineWaiter.objects.count() == 1)
    started = time.monotonic()
    error = failure(patient)
    assert (error.code, error.status) == ("engine_busy", 503)
    assert time.monotonic() - started < 10, "the line was full: no use in waiting"
    fake.wake()
    holder.join()
    waiter.join()
    assert len(fake.log) == 2 and fake.overlaps() == 0


def test_long_texts_take_turns(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.seconds = 0.1
    engine = engine_for(fake.url)
    text = " ".join(f"Sentence {number} of this text is spoken now." for number in range(4))
    other = in_thread(lambda: speak(engine, ask(text, voice(200))))
    until(lambda: len(fake.log) == 1)
    speak(engine, ask(text, voice(100)))
    other.join()
    order = [round(call["pitch"], -2) for call in fake.log]
    assert sorted(order) == [100] * 4 + [200] * 4
    assert order[:7] in ([200, 100] * 3 + [200], [200, 200, 100, 200, 100, 200, 100])
    assert fake.overlaps() == 0


# --- several servers ----------------------------------------------------------------------------------------


def test_two_servers_work_at_once(engine_for: Engines) -> None:
    with FakeGptSovits() as one, FakeGptSovits() as two:
        engine = engine_for(one.url, two.url)
        one.mood = two.mood = "hang"
        threads = [in_thread(lambda: speak(engine)) for _ in range(2)]
        until(lambda: len(one.log) == len(two.log) == 1)
        one.wake()
        two.wake()
        for thread in threads:
            thread.join()


def test_a_server_that_is_down_is_replaced_by_another_and_comes_back(engine_for: Engines) -> None:
    dead = refused_url()
    with FakeGptSovits() as good:
        engine = engine_for(dead, good.url, set_aside_seconds=0.3)
        for _ in range(4):
            assert pitch(speak(engine)) == pytest.approx(120, rel=0.03)
        assert len(good.log) == 4
        with FakeGptSovits(port=urlsplit(dead).port or 0) as back:
            until(lambda: bool(speak(engine)) and len(back.log) > 0)
    error = failure(engine)
    assert error.code == "engine_unavailable"


def test_one_text_stays_on_one_server(engine_for: Engines) -> None:
    text = " ".join(f"Sentence {number} of this text is spoken now." for number in range(6))
    with FakeGptSovits() as one, FakeGptSovits() as two:
        speak(engine_for(one.url, two.url), ask(text))
        assert sorted([len(one.log), len(two.log)]) == [0, 6]


def test_a_time_out_is_not_tried_on_another_server(engine_for: Engines) -> None:
    # It may be the text that is slow: it would hold up one server after another.
    with FakeGptSovits() as one, FakeGptSovits() as two:
        one.mood = two.mood = "hang"
        assert failure(engine_for(one.url, two.url, timeout_seconds=0.5)).code == "engine_timeout"
        assert len(one.log) + len(two.log) == 1


def test_a_server_that_failed_comes_back_without_anybodys_request(engine_for: Engines) -> None:
    dead = refused_url()
    with FakeGptSovits() as good:
        engine = engine_for(dead, good.url, set_aside_seconds=0.2)
        while not EngineLease.objects.filter(unreachable=True).exists():
            speak(engine)
        with FakeGptSovits(port=urlsplit(dead).port or 0) as back:
            until(lambda: not EngineLease.objects.filter(needs_probe=True).exists())
            assert back.probes == 1 and back.log == []
            state = Leases([dead]).states()[dead]
            assert not state.set_aside and not state.needs_probe


def test_a_crowd_of_one_tenant_does_not_hold_up_a_sentence_of_another(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.moods.append("hang")
    engine = engine_for(fake.url, max_waiting=6)
    crowd = [in_thread(lambda: speak(engine, ask(reference=voice(100), tenant="crowd"))) for _ in range(6)]
    until(lambda: EngineWaiter.objects.count() == 5 and len(fake.log) == 1)
    one = in_thread(lambda: speak(engine_for(fake.url), ask(reference=voice(200), tenant="one")))
    until(lambda: EngineWaiter.objects.count() == 6)
    fake.wake()
    for thread in [*crowd, one]:
        thread.join()
    assert [round(call["pitch"], -2) for call in fake.log] == [100, 200, *[100] * 5]


# --- models -------------------------------------------------------------------------------------------------

BASE = Model("default", "gpt-base", "sovits-base")
ANNA = Model("anna", "gpt-anna", "sovits-anna")
BEN = Model("ben", "gpt-ben", "sovits-ben")


def with_model(model: Model | None, reference: Reference | None = None, **fields: Any) -> SynthesisRequest:
    return ask(reference=reference, model_id=model and model.id, model=model, **fields)


def get(url: str) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("GET", f"{parts.path}?{parts.query}")
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_fakes_weights_are_everybodys(fake: FakeGptSovits, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, tone(120, 4, 16_000), 16_000)

    def heard() -> float:
        _, content = post(fake.url, **plain(path))
        return pitch_of(np.frombuffer(content[44:], np.int16).astype(np.float32), 32_000)

    assert heard() == pytest.approx(120, rel=0.03)
    assert get(f"{fake.url}/set_sovits_weights?weights_path=sovits-anna") == 200
    assert heard() == pytest.approx(75, rel=0.03), "what it remembers of the path was made with other weights"
    assert get(f"{fake.url}/set_sovits_weights?weights_path=nowhere.pth") == 400
    assert (fake.weights[1], fake.configured[1]) == ("sovits-anna", "nowhere.pth")
    assert get(f"{fake.url}/set_gpt_weights") == 400


def test_a_models_weights_are_loaded_once_and_the_defaults_brought_back(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    for model, ratio in ((ANNA, 1.25), (ANNA, 1.25), (BASE, 1.0), (BEN, 1.6), (ANNA, 1.25), (BASE, 1.0)):
        # The same reference all the time: what was computed of it for one model serves no other.
        assert pitch(speak(engine, with_model(model))) == pytest.approx(120 * ratio, rel=0.03)
        assert fake.log[-1]["weights"] == (model.gpt_weights, model.sovits_weights)
    assert [name for name in fake.switches if name.startswith("sovits")] == [
        "sovits-anna", "sovits-base", "sovits-ben", "sovits-anna", "sovits-base",
    ]  # fmt: skip
    assert len(fake.switches) == 10


def test_another_process_knows_what_is_loaded(fake: FakeGptSovits, engine_for: Engines) -> None:
    speak(engine_for(fake.url), with_model(ANNA))
    speak(engine_for(fake.url), with_model(ANNA))
    assert fake.switches == ["gpt-anna", "sovits-anna"]


def test_threads_with_different_models_never_speak_with_each_others(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.unlocked = True  # only the client keeps them apart
    fake.seconds = 0.02
    heard: dict[str, list[float]] = {"anna": [], "ben": [], "default": []}

    def work(model: Model, engine: GptSovitsEngine) -> None:
        for _ in range(3):
            heard[model.id].append(pitch(speak(engine, with_model(model, tenant=model.id))))

    engines = [engine_for(fake.url) for _ in range(2)]
    threads = [
        in_thread(lambda model=model, number=number: work(model, engines[number % 2]))  # type: ignore[misc]
        for number, model in enumerate((ANNA, BEN, BASE))
    ]
    for thread in threads:
        thread.join()
    assert fake.overlaps() == 0
    for model_id, ratio in (("anna", 1.25), ("ben", 1.6), ("default", 1.0)):
        assert heard[model_id] == pytest.approx([120 * ratio] * 3, rel=0.03)


def test_a_switch_that_fails_is_an_engine_error_and_nothing_is_taken_for_loaded(
    fake: FakeGptSovits, engine_for: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_for(fake.url)
    speak(engine, with_model(ANNA))
    for lost in (Model("lost", "gpt-ben", "gone.pth"), Model("lost", "gone.ckpt", "sovits-ben")):
        with caplog.at_level(logging.ERROR):
            error = failure(engine, with_model(lost))
        assert (error.code, error.status) == ("engine_error", 502)
        assert "gone" in caplog.text and "gone" not in error.message
        assert EngineLease.objects.get().loaded == UNKNOWN
        # Half of it may have been switched: both are loaded again for the next.
        assert pitch(speak(engine, with_model(ANNA))) == pytest.approx(150, rel=0.03)
        assert fake.log[-1]["weights"] == ("gpt-anna", "sovits-anna")
    assert fake.configured == ["gpt-anna", "sovits-anna"], "it starts with weights that exist again"


@pytest.mark.parametrize("mood", ["reset", "hang"])
def test_after_a_switch_whose_end_is_not_known_the_weights_are_loaded_again(
    fake: FakeGptSovits, engine_for: Engines, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voices.engines.gptsovits.SWITCH_SECONDS", 0.5)
    engine = engine_for(fake.url)
    speak(engine, with_model(BASE))
    fake.switch_mood = mood
    assert failure(engine, with_model(ANNA)).code == {"reset": "engine_unavailable", "hang": "engine_timeout"}[mood]
    fake.switch_mood = "load"
    fake.wake()
    assert pitch(speak(engine, with_model(BASE))) == pytest.approx(120, rel=0.03)
    assert fake.log[-1]["weights"] == ("gpt-base", "sovits-base")


def test_after_a_time_out_the_weights_are_loaded_again(fake: FakeGptSovits, engine_for: Engines) -> None:
    # The server may have been restarted because of it.
    speak(engine_for(fake.url), with_model(ANNA))
    fake.moods.append("hang")
    assert failure(engine_for(fake.url, timeout_seconds=0.4), with_model(ANNA)).code == "engine_timeout"
    fake.weights[:] = ["gpt-base", "sovits-base"]
    fake.wake()
    assert pitch(speak(engine_for(fake.url), with_model(ANNA))) == pytest.approx(150, rel=0.03)


def test_work_goes_to_the_server_that_has_the_weights(engine_for: Engines) -> None:
    with FakeGptSovits() as one, FakeGptSovits() as two:
        engine = engine_for(one.url, two.url)
        for model in (ANNA, BEN, ANNA, BEN, BEN, ANNA):
            speak(engine, with_model(model))
        assert len(one.switches) == len(two.switches) == 2
        assert len(one.log) == len(two.log) == 3


def test_a_pinned_server_speaks_with_its_model_alone_and_is_never_switched(engine_for: Engines) -> None:
    with FakeGptSovits() as free, FakeGptSovits() as pinned:
        pinned.weights[:] = ["gpt-anna", "sovits-anna"]
        engine = engine_for(free.url, pinned.url, pinned={pinned.url: "anna"})
        for model in (None, ANNA, None, ANNA):
            speak(engine, with_model(model))
        assert [call["weights"] for call in free.log] == [("gpt-base", "sovits-base")] * 2
        assert [call["weights"] for call in pinned.log] == [("gpt-anna", "sovits-anna")] * 2
        assert free.switches == pinned.switches == []
        # Who waits for the one does not hold up the other.
        pinned.moods.append("hang")
        waiting = [in_thread(lambda: speak(engine, with_model(Model("anna")))) for _ in range(2)]
        until(lambda: len(pinned.log) == 3 and EngineWaiter.objects.count() == 1)
        speak(engine, with_model(None))
        assert len(free.log) == 3
        pinned.wake()
        for thread in waiting:
            thread.join()


def test_a_server_that_was_switched_does_not_speak_for_a_default_that_nobody_knows(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    engine = engine_for(fake.url)
    assert engine.serves(ANNA, BASE) and not engine.serves(ANNA, None)
    assert engine.serves(ANNA, None, offers_default=False)
    speak(engine, with_model(ANNA))
    error = failure(engine, with_model(None))  # the operator has deleted the row meanwhile
    assert (error.code, error.status) == ("not_configured", 503)
    assert len(fake.log) == 1


def test_a_model_that_no_server_has_is_not_spoken_with(fake: FakeGptSovits, engine_for: Engines) -> None:
    bare = Model("bare")
    assert failure(engine_for(fake.url), with_model(bare)).code == "not_configured"
    assert not engine_for(fake.url).serves(bare, BASE)
    assert not engine_for(fake.url, pinned={fake.url: "anna"}).serves(None, None)
    with pytest.raises(ValueError):
        speak(engine_for(fake.url), ask(model_id="anna"))


V1, V3 = Model("old", version="v1"), Model("new", version="v3")


@pytest.mark.parametrize(
    ("model", "fields", "field"),
    [
        (V1, {"text": "今日天氣好好。", "language": "yue"}, "language"),
        (V1, {"text": "안녕하세요, 반갑습니다.", "language": "auto"}, "text"),
        (V1, {"text": TEXT, "reference_language": "ko"}, "reference_language"),
        (V1, {"text": TEXT, "transcript": "안녕하세요."}, "reference_text"),
        (Model("anna", languages=frozenset({"en"})), {"text": "今天天气很好。", "language": "auto"}, "text"),
        (Model("anna", languages=frozenset({"en"})), {"text": "今天天气很好。", "language": "zh"}, "language"),
        (V3, {"text": TEXT}, "reference_text"),
        (V3, {"text": TEXT, "transcript": "  "}, "reference_text"),
    ],
)
def test_what_a_models_version_cannot_do_is_refused(model: Model, fields: dict[str, Any], field: str) -> None:
    fields = {"language": "en", "transcript": None, "reference_language": "auto"} | fields
    with pytest.raises(PublicError) as caught:
        GptSovitsEngine.check(model=model, **fields)
    assert (caught.value.code, list(caught.value.details)) == ("validation_error", [field])
    # And nothing of that is, where it can.
    able = Model("able", version="v2")
    assert GptSovitsEngine.check(model=able, **fields)


def test_version_3_speaks_where_the_words_of_the_reference_are_known() -> None:
    assert GptSovitsEngine.check(TEXT, "en", "What I say.", "auto", V3)


# --- our own server -----------------------------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[FakeOwnServer]:
    with FakeOwnServer(token="s3cret") as server:
        yield server


@pytest.fixture
def own_engine(own: FakeOwnServer, engine_for: Engines, tmp_path: Path) -> Callable[..., GptSovitsEngine]:
    def make(**options: Any) -> GptSovitsEngine:
        options = {"protocol": "voiceproject", "token": "s3cret", "folder": tmp_path / "never"} | options
        return engine_for(own.url, **options)

    return make


def test_our_own_server_gets_everything_with_the_request(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], tmp_path: Path
) -> None:
    reference = voice(150, transcript="Was ich sage: “so”.", language="en")
    request = ask(reference=reference, speed=1.25, temperature=0.4, seed=7, model_id="anna", model=ANNA)
    with bind(request_id="abc-1"):
        pieces = speak(own_engine(), request)
    assert pitch(pieces) == pytest.approx(150, rel=0.03)
    fields = dict(own.log[0])
    headers, audio = fields.pop("headers"), fields.pop("reference_audio")
    assert (headers["Authorization"], headers["X-Request-ID"]) == ("Bearer s3cret", "abc-1")
    assert fields == {
        "text": TEXT, "language": "en", "reference_text": "Was ich sage: “so”.", "reference_language": "en",
        "speed": "1.25", "temperature": "0.4", "seed": "7", "model_id": "anna", "gpt_weights": "gpt-anna",
        "sovits_weights": "sovits-anna",
    }  # fmt: skip
    with soundfile.SoundFile(io.BytesIO(audio)) as file:
        assert (file.format, file.subtype, file.channels, file.samplerate) == ("WAV", "PCM_16", 1, 24_000)
        assert len(file) == 5 * 24_000
    assert not (tmp_path / "never").exists(), "no folder is needed"
    # Without weights the model is one that the server knows by name; without a model it is its own.
    speak(own_engine(), with_model(Model("theirs")))
    speak(own_engine())
    assert [(call["model_id"], "gpt_weights" in call) for call in own.log[1:]] == [
        ("theirs", False),
        ("default", False),
    ]


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        ("bad_request", "engine_error"), ("unknown_model", "engine_error"), ("too_large", "engine_error"),
        ("synthesis_failed", "engine_error"), ("silence", "engine_error"), ("out_of_memory", "engine_error"),
        ("unspeakable", "validation_error"), ("stopping", "engine_unavailable"),
        ("unauthorized", "engine_unavailable"), ("busy", "engine_busy"),
    ],
)  # fmt: skip
def test_each_refusal_of_our_own_server_is_told_apart(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], caplog: pytest.LogCaptureFixture, mood: str,
    code: str
) -> None:  # fmt: skip
    own.moods.append(mood)
    error = failure(own_engine(queue_seconds=0.3, set_aside_seconds=0.6))
    assert error.code == code
    assert "something about" not in error.message
    assert len(own.log) == 1
    if mood != "silence":
        assert f"something about {mood}" in caplog.text
    until(lambda: not Leases([own.url]).states()[own.url].set_aside)
    assert pitch(speak(own_engine())) == pytest.approx(120, rel=0.03)


def test_a_queue_that_others_have_filled_is_waited_for(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine]
) -> None:
    own.moods.extend(["busy", "busy"])
    assert len(speak(own_engine(set_aside_seconds=0.1))) == 1
    assert len(own.log) == 3


def test_a_wrong_token_is_the_operators_to_mend(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = own_engine(token="wrong")
    assert failure(engine).code == "engine_unavailable"
    assert "401" in caplog.text


def test_after_a_time_out_our_own_server_is_used_once_it_is_idle(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine]
) -> None:
    own.moods.append("hang")
    assert failure(own_engine(timeout_seconds=0.4)).code == "engine_timeout"
    # It answers while it works: that is no sign that it is done.
    assert failure(own_engine(queue_seconds=0.6)).code == "engine_busy"
    assert own.probes >= 1 and len(own.log) == 1
    own.woken.set()
    assert len(speak(own_engine())) == 1
    assert len(own.log) == 2


@pytest.mark.parametrize(
    ("status", "available", "detail"),
    [("ready", True, "ready"), ("busy", True, "busy"), ("stopping", False, "it is stopping")],
)
def test_health_of_our_own_server(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], status: str, available: bool, detail: str
) -> None:
    own.status = status
    health = own_engine().health()
    assert (health.available, health.detail) == (available, detail)


def test_health_says_that_the_protocol_is_the_other_one(
    fake: FakeGptSovits, own: FakeOwnServer, engine_for: Engines
) -> None:
    health = engine_for(fake.url, protocol="voiceproject").health()
    assert not health.available and "api_v2.py" in health.detail and "SOVITS_PROTOCOL" in health.detail
    assert not engine_for(own.url).health().available


# --- connections --------------------------------------------------------------------------------------------


def test_connections_are_kept(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    for _ in range(5):
        speak(engine)
    assert fake.connections == 1


def test_a_connection_that_the_server_has_closed_is_replaced(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.keep_alive_seconds = 0.1
    engine = engine_for(fake.url)
    speak(engine)
    idle = next(iter(engine._servers.values()))._idle[0]
    idle.sock.settimeout(5)
    assert idle.sock.recv(1, 2) == b""  # MSG_PEEK: the server has closed it
    assert len(speak(engine)) == 1
    assert fake.connections == 2


def test_a_connection_that_breaks_as_it_is_used_again_is_replaced(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    speak(engine)
    fake.moods.append("reset")
    assert len(speak(engine)) == 1
    assert fake.connections == 2
    # But a fresh one that breaks is a failure.
    fake.moods.extend(["reset", "reset"])
    assert failure(engine).code == "engine_unavailable"


def test_proxies_of_the_environment_are_not_used(
    fake: FakeGptSovits, engine_for: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, refused_url())
    assert len(speak(engine_for(fake.url))) == 1


def test_a_password_in_the_url_is_sent_and_shown_nowhere(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url.replace("http://", "http://user:p%40ss@") + "/")
    assert len(speak(engine)) == 1
    assert fake.log[0]["headers"]["Authorization"] == "Basic dXNlcjpwQHNz"
    assert EngineLease.objects.get().server == fake.url


# --- health -------------------------------------------------------------------------------------------------


def test_health_asks_openapi_json(fake: FakeGptSovits, engine_for: Engines) -> None:
    health = engine_for(fake.url).health()
    assert (health.available, health.detail, fake.probes) == (True, "ready", 1)
    assert health.latency_ms is not None and 0 < health.latency_ms < 2000


def test_health_knows_the_older_api(fake: FakeGptSovits, engine_for: Engines) -> None:
    fake.api = "old"
    health = engine_for(fake.url).health()
    assert not health.available and "not supported" in health.detail
    assert failure(engine_for(fake.url)).code == "engine_error"


def test_health_of_a_server_that_is_down(engine_for: Engines) -> None:
    health = engine_for(refused_url()).health()
    assert (health.available, health.latency_ms, health.detail) == (False, None, "cannot be reached")


def test_health_of_a_server_that_works_for_us_is_busy_and_fine(fake: FakeGptSovits, engine_for: Engines) -> None:
    engine = engine_for(fake.url)
    fake.moods.append("hang")
    thread = in_thread(lambda: speak(engine))
    until(lambda: len(fake.log) == 1)
    health = engine_for(fake.url).health()  # as another process sees it
    assert (health.available, health.detail, health.extra["waiting"]) == (True, "busy", 0)
    assert health.extra["queue_length"] == 1 and health.extra["expected_wait_seconds"] > 0
    fake.wake()
    thread.join()


def test_health_of_a_server_that_works_for_somebody_else_is_told_within_two_seconds(
    fake: FakeGptSovits, engine_for: Engines
) -> None:
    fake.moods.append("hang")
    stranger = threading.Thread(target=post, args=(fake.url,), kwargs=plain(Path("/nowhere")), daemon=True)
    stranger.start()
    until(lambda: len(fake.log) == 1)
    started = time.monotonic()
    health = engine_for(fake.url).health()
    assert time.monotonic() - started < 2.5
    assert (health.available, health.detail) == (False, "no answer within 2 s: busy or down")
    fake.wake()
    stranger.join()


def test_health_of_several_servers(fake: FakeGptSovits, engine_for: Engines) -> None:
    health = engine_for(fake.url, refused_url()).health()
    assert health.available and health.detail == "1 of 2 servers available"
    assert [server["detail"] for server in health.extra["servers"]] == ["ready", "cannot be reached"]
    assert math.isfinite(health.latency_ms or math.nan)
