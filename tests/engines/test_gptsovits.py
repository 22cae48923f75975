"""The GPT-SoVITS client against a server with all of the real one's oddities: whose voice speaks, and how much of
its reference is sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from tests.fakes.gptsovits import FakeGptSovits, pitch_of, tone
from tests.support.gptsovits_client import Engines, ask, failure, pitch, plain, post, speak, voice
from tests.support.running.processes import child
from tests.support.threads import in_thread
from tests.support.waiting import until
from voiceproject.leases.lease import Leases
from voices.engines.gptsovits import references
from voices.engines.gptsovits.api_v2 import ApiV2
from voices.engines.gptsovits.engine import GptSovitsEngine
from voices.engines.gptsovits.references import best_window, store_reference, sweep_references, wav_bytes
from voices.engines.interface import Reference

# --- the fake is worth testing against ----------------------------------------------------------------------


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
    fake.seconds = 1.5
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
from tests.support.gptsovits_client import ask, pitch, speak, voice
from voiceproject.leases.lease import Leases
from voices.engines.gptsovits.engine import GptSovitsEngine
url, folder, frequency = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
engine = GptSovitsEngine([url], 20, folder, str(folder), 60, 16, Leases)
print(json.dumps([pitch(speak(engine, ask(reference=voice(frequency)), 60)) for _ in range(4)]))
"""


def test_parallel_processes_never_overlap_and_never_swap_voices(tmp_path: Path, transactional_db: None) -> None:
    command = [sys.executable, "-m", "tests.fakes.gptsovits", "--seconds", "0.05", "--unlocked"]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
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

    monkeypatch.setattr(references, "wav_bytes", counted)
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


def test_audio_at_the_place_in_memory_of_other_audio_is_not_taken_for_it(tmp_path: Path) -> None:
    protocol = ApiV2(tmp_path, str(tmp_path))

    def store(samples: np.ndarray) -> str:
        samples.flags.writeable = False
        return protocol.reference(references.Excerpt(samples, None, 16_000, lambda: samples), None)

    gone, later = tone(110, 4, 16_000), tone(220, 4, 16_000)
    first = store(gone)
    ((key, stored),) = protocol._stored.items()
    protocol._stored[(id(later), *key[1:])] = stored  # as if `gone` had been freed, and `later` lay where it was
    assert store(later) != first == store(gone)


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
    engine = GptSovitsEngine([fake.url], 20, tmp_path / "here", f"{seen_there}/", 20, 16, Leases)
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


def test_the_engine_is_imported_without_the_database() -> None:
    code = """
import sys
import voices.engines.gptsovits.engine
assert not {name for name in sys.modules if name.startswith(("django.db", "voiceproject.leases", "voices.models"))}
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])
