"""What recordings are like is told before anything is trained, and what cannot come to anything is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import soxr
from django.conf import settings as django_settings

from tests.support.audio import wav_bytes
from voices.training import dataset

SAMPLES = django_settings.BASE_DIR / "voiceproject" / "samples"
SAID = (SAMPLES / "reference.txt").read_text().strip()
Look = Callable[..., dataset.Report]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    def run(contents: list[bytes], texts: list[str] | None = None, **options: Any) -> dataset.Report:
        folder = tmp_path / "dataset"
        folder.mkdir(exist_ok=True)
        recordings = []
        for number, content in enumerate(contents):
            path = tmp_path / f"upload-{number}"
            path.write_bytes(content)
            text = texts[number] if texts else ""
            recordings.append(dataset.Recording(f"rec{number:04}", f"take {number}", path, text))
        given = {"language": "auto", "max_seconds": 5400.0, "check": lambda: None, "progress": lambda share: None}
        return dataset.look(recordings, folder, **{**given, **options})

    return run


def codes(told: list[dict[str, str]]) -> list[str]:
    return [one["code"] for one in told]


def test_clean_speech_passes_and_is_written_for_the_command(look: Look, spoken: Any, tmp_path: Path) -> None:
    report = look([spoken(40.0, number) for number in range(6)], ["", *[""] * 5])
    assert report.problems == [] and report.dropped == []
    assert 180 < report.usable_seconds < 240
    assert report.snr_db is not None and report.snr_db > 25
    files = sorted((tmp_path / "dataset").iterdir())
    assert [path.name for path in files] == [f"rec000{number}.wav" for number in range(6)]
    info = sf.info(files[0])
    assert (info.samplerate, info.channels, info.subtype, round(info.duration)) == (44_100, 1, "PCM_16", 40)


def test_half_a_minute_is_refused_with_what_to_do(look: Look, spoken: Any) -> None:
    report = look([spoken(30.0)])
    assert codes(report.problems) == ["too_short"]
    assert "at least 60 are needed" in report.problems[0]["message"] and "Record more" in report.problems[0]["message"]


def test_three_hours_are_refused_before_they_are_read_to_the_end(look: Look, spoken: Any) -> None:
    report = look([spoken(40.0), spoken(40.0, 1), b"never read"], max_seconds=60.0)
    assert codes(report.problems) == ["too_long"]
    assert "1 minutes" in report.problems[0]["message"]


def test_silence_noise_and_a_song_are_no_speech(look: Look, spoken: Any, tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * 16_000)
    contents = [
        wav_bytes(np.zeros(20 * 16_000, np.float32), 16_000),
        wav_bytes(noise.astype(np.float32), 16_000),
        (SAMPLES / "song.ogg").read_bytes(),
        spoken(80.0),
    ]
    report = look(contents)
    reasons = {one["file"]: one["reason"] for one in report.dropped}
    assert reasons["take 0"] == "it is silent"
    assert reasons["take 1"] == "nobody speaks in it"
    assert reasons["take 2"].startswith("it is sung, or has music in it")
    assert report.problems == [] and "left_out" in codes(report.warnings)
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["rec0003.wav"]


def test_a_song_alone_is_refused_by_what_it_is(look: Look) -> None:
    report = look([(SAMPLES / "song.ogg").read_bytes()])
    assert codes(report.problems) == ["too_short"] and "music in it" in report.problems[0]["message"]


def test_one_broken_file_among_many_is_left_out_and_told(look: Look, spoken: Any) -> None:
    contents = [spoken(10.0, number) for number in range(12)]
    contents[5] = b"this is no audio at all" * 100
    contents[7] = contents[7][: len(contents[7]) // 2]
    report = look(contents)
    assert report.problems == []
    reasons = {one["file"]: one["reason"] for one in report.dropped}
    assert reasons == {"take 5": "it cannot be read"}
    assert "take 7" in next(told["message"] for told in report.warnings if told["code"] == "upload")


def test_two_voices_far_apart_are_told(look: Look, spoken: Any) -> None:
    samples, rate = sf.read(io.BytesIO(spoken(60.0)), dtype="float32")
    deep = soxr.resample(samples, rate, round(rate * 1.6)).astype(np.float32)  # the same words eight semitones lower
    assert "several_speakers" in codes(look([spoken(60.0), wav_bytes(deep, rate)]).warnings)
    assert "several_speakers" not in codes(look([spoken(60.0), spoken(60.0, 1)]).warnings)


def test_transcripts_of_other_files_are_refused(look: Look, spoken: Any, tmp_path: Path) -> None:
    contents = [spoken(9.6, number) for number in range(9)]
    right = look(contents, [SAID] * 9, language="en")
    assert right.problems == []
    assert (tmp_path / "dataset" / "rec0000.txt").read_text() == SAID
    wrong = look(contents, ["Yes."] * 8 + [SAID], language="en")
    assert "transcripts_mismatch" in codes(wrong.problems)


def test_one_wrong_transcript_costs_one_recording(look: Look, spoken: Any) -> None:
    report = look([spoken(9.6, number) for number in range(12)], [SAID] * 11 + [SAID * 6], language="en")
    assert report.problems == []
    assert [one["file"] for one in report.dropped] == ["take 11"]


def test_transcripts_in_another_language_than_was_said_are_refused(look: Look, spoken: Any) -> None:
    report = look([spoken(9.6, number) for number in range(9)], [SAID] * 9, language="zh")
    assert "language_mismatch" in codes(report.problems)
    assert "in English" in report.problems[0]["message"]


def test_a_recording_with_one_side_inverted_is_not_lost(look: Look, spoken: Any) -> None:
    samples, rate = sf.read(io.BytesIO(spoken(80.0)), dtype="float32")
    report = look([wav_bytes(np.stack([samples, -samples], axis=1), rate)])
    assert report.problems == [] and report.usable_seconds > 50
