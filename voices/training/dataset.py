"""The recordings of a training, looked at before any second of a GPU: what they are like, and whether they will do.

Each is decoded into the folder that the command gets: NAME.wav, mono, with NAME.txt where it is known what is said.
What cannot be used is left out and told; what cannot come to anything is refused, with advice.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media.uploads import Bounds, opened
from voices.engines.builtin import voice_activity
from voices.library import quality
from voices.text.languages import detect_language, speaking_seconds

log = logging.getLogger(__name__)

SAMPLE_RATE = 44_100
CHUNK_SECONDS = 30.0
MIN_SECONDS, MIN_USABLE_SECONDS = 1.0, 60.0
FEW_SECONDS, MANY_SECONDS = 180.0, 2400.0
BAD_SNR_DB = 10.0
BAD_CLIPPING_RATIO = 0.01
SUNG_SHARE = 0.08  # of what has a pitch, on held notes: speech has none, a song a tenth or more
HELD_FRAMES, HELD_SEMITONES = 8, 0.6
OTHER_SPEAKER_SEMITONES, OTHER_SPEAKER_SHARE = 6.0, 0.15
SPEECH_OF_TEXT = (0.35, 2.8)  # how long a text takes to say, against how long somebody speaks
LANGUAGE_NAMES = {"en": "English", "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "yue": "Cantonese"}

_BROKEN = {
    "too_short": "it is shorter than a second",
    "silent": "it is silent",
    "truncated": "it breaks off: a part of the file is missing",
}


@dataclass
class Recording:
    """One of a training, as `look` takes it. label: what people know it by."""

    name: str
    label: str
    path: Path
    transcript: str


@dataclass
class Report:
    """As the command's own report.json, with what is known before it runs."""

    usable_seconds: float = 0.0
    snr_db: float | None = None
    problems: list[dict[str, str]] = field(default_factory=list)
    warnings: list[dict[str, str]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def problem(self, code: str, message: str) -> None:
        self.problems.append({"code": code, "message": message})

    def warn(self, code: str, message: str) -> None:
        self.warnings.append({"code": code, "message": message})

    def drop(self, label: str, reason: str) -> None:
        self.dropped.append({"file": label, "reason": reason})

    def as_json(self) -> dict[str, Any]:
        return {
            "usable_seconds": round(self.usable_seconds, 1),
            "snr_db": self.snr_db,
            "problems": self.problems,
            "dropped": self.dropped,
        }


@dataclass
class _Heard:
    """What one recording is like. speech_seconds: with the breaths between words, as clips of it have them; semitones:
    the median pitch of its speech, over 100 Hz."""

    recording: Recording
    seconds: float
    speech_seconds: float
    snr_db: float
    clipping_ratio: float
    bandwidth_hz: float
    voice: bool
    sung_share: float
    semitones: float | None


def look(
    recordings: list[Recording],
    folder: Path,
    *,
    language: str,
    max_seconds: float,
    check: Callable[[], None],
    progress: Callable[[float], None],
) -> Report:
    """Decodes into `folder` and tells what there is. check: called between files; raises to stop.

    language: that is said to be spoken, or `auto`; max_seconds: of all recordings together.
    """
    report = Report()
    heard: list[_Heard] = []
    seconds = 0.0
    for number, recording in enumerate(recordings):
        check()
        try:
            length, told = _decode(recording, folder / f"{recording.name}.wav", max_seconds - seconds)
        except PublicError as error:
            (folder / f"{recording.name}.wav").unlink(missing_ok=True)
            reason = str(error.details.get("reason", ""))
            if reason == "too_long":
                report.problem(
                    "too_long",
                    f"The recordings are longer than {max_seconds / 60:.0f} minutes together. Send the best 10 to 30: "
                    "more does not make a better voice.",
                )
                return report
            report.drop(recording.label, _BROKEN.get(reason, "it cannot be read"))
            continue
        seconds += length
        for message in told:
            report.warn("upload", message.replace("recordings", recording.label, 1))
        heard.append(_listen(recording, folder / f"{recording.name}.wav"))
        progress((number + 1) / len(recordings))
    usable = [one for one in heard if _is_usable(one, report)]
    usable = _with_fitting_text(usable, report)
    _look_at_language(usable, language, report)
    _look_at_speakers(usable, report)
    report.usable_seconds = sum(one.speech_seconds for one in usable)
    if usable:
        report.snr_db = round(float(np.median([one.snr_db for one in usable])), 1)
    _look_at_whole(usable, report)
    for one in heard:
        if one not in usable:
            (folder / f"{one.recording.name}.wav").unlink()
        elif one.recording.transcript:
            (folder / f"{one.recording.name}.txt").write_text(one.recording.transcript, encoding="utf-8")
    return report


def _decode(recording: Recording, wav: Path, max_seconds: float) -> tuple[float, list[str]]:
    """The recording as mono WAV of 16 bits; how long it is, and what may be missing of it. Raises PublicError."""
    bounds = Bounds("recordings", MIN_SECONDS, max(max_seconds, 0.0))
    for left_only in (False, True):
        energy = sides = 0.0
        frames = 0
        with (
            opened(recording.path, bounds, SAMPLE_RATE) as source,
            sf.SoundFile(wav, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as file,
        ):
            for block in source.blocks:
                mono = block[:, 0] if left_only else block.mean(axis=1)
                energy += float(np.einsum("i,i->", mono, mono, dtype=np.float64))
                sides += float(np.einsum("ij,ij->", block, block, dtype=np.float64)) / source.channels
                file.write(np.clip(mono, -1, 1))
                frames += len(mono)
            bounds.check_loudness(source.loudest)
        if energy >= 0.02 * sides:
            break  # Otherwise one side is the other's inverse: one of them is taken.
    return frames / SAMPLE_RATE, source.warnings


def _listen(recording: Recording, wav: Path) -> _Heard:
    found: list[tuple[float, quality.Quality]] = []
    voiced = pitched_seconds = 0.0
    held = frames = 0
    pitches: list[NDArray[np.float64]] = []
    with sf.SoundFile(wav) as file:
        for chunk in file.blocks(round(CHUNK_SECONDS * SAMPLE_RATE), dtype="float32"):
            if len(chunk) < SAMPLE_RATE // 2:
                break
            found.append((len(chunk) / SAMPLE_RATE, quality.measure(chunk, SAMPLE_RATE)))
            low = soxr.resample(chunk, SAMPLE_RATE, voice_activity.SAMPLE_RATE)
            activity = voice_activity.detect(low, np.zeros_like(low))
            voiced += activity.seconds if activity.heard == "words" else 0.0
            pitched_seconds += activity.pitched_seconds
            pitch = activity.pitch_hz[activity.pitch_hz > 0].astype(np.float64)
            pitches.append(12 * np.log2(pitch / 100))
            frames += len(pitch)
            held += _held(activity.pitch_hz)
    seconds = sum(length for length, _ in found)

    def mean(values: list[float]) -> float:
        return sum(length * value for (length, _), value in zip(found, values, strict=True)) / max(seconds, 1e-6)

    qualities = [one for _, one in found]
    semitones = np.concatenate(pitches) if pitches else np.zeros(0)
    return _Heard(
        recording,
        seconds,
        voiced,
        mean([one.snr_db for one in qualities]),
        max((one.clipping_ratio for one in qualities), default=0.0),
        mean([one.bandwidth_hz for one in qualities]),
        voiced > 0,
        held / max(frames, 1),
        float(np.median(semitones)) if len(semitones) else None,
    )


def _held(pitch_hz: NDArray[np.float32]) -> int:
    """Frames at which a note begins that lasts HELD_FRAMES."""
    if len(pitch_hz) < HELD_FRAMES:
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(pitch_hz, HELD_FRAMES)
    low, high = windows.min(axis=1), windows.max(axis=1)
    return int(((low > 0) & (high < low * 2 ** (HELD_SEMITONES / 12))).sum())


def _is_usable(one: _Heard, report: Report) -> bool:
    reason = ""
    if one.speech_seconds < MIN_SECONDS or not one.voice:
        reason = "nobody speaks in it"
    elif one.sung_share > SUNG_SHARE:
        reason = "it is sung, or has music in it; send plain speech, or separate the voice first"
    elif one.snr_db < BAD_SNR_DB:
        reason = f"noise, music or echo lies {one.snr_db:.0f} dB under the voice; at least {BAD_SNR_DB:.0f} are needed"
    elif one.clipping_ratio > BAD_CLIPPING_RATIO:
        reason = "it is clipped; record at a lower level"
    if reason:
        report.drop(one.recording.label, reason)
    return not reason


def _with_fitting_text(heard: list[_Heard], report: Report) -> list[_Heard]:
    told = [one for one in heard if one.recording.transcript]
    wrong = [one for one in told if not _fits(one)]
    if len(wrong) > 1 and len(wrong) > len(told) / 2:
        report.problem(
            "transcripts_mismatch",
            f"{len(wrong)} of {len(told)} transcripts are too long or too short for what is spoken, such as that of "
            f"{wrong[0].recording.label}. They may be of other files; send none, and they are made.",
        )
    for one in wrong:
        report.drop(one.recording.label, "its transcript is too long or too short for what is spoken")
    return [one for one in heard if one not in wrong]


def _fits(one: _Heard) -> bool:
    return SPEECH_OF_TEXT[0] < speaking_seconds(one.recording.transcript) / one.speech_seconds < SPEECH_OF_TEXT[1]


def _look_at_language(heard: list[_Heard], language: str, report: Report) -> None:
    text = " ".join(one.recording.transcript for one in heard if one.recording.transcript)
    if not text or language == "auto":
        return
    found = detect_language(text)
    written = "zh" if language == "yue" else language
    if found != written and found in LANGUAGE_NAMES:
        report.problem(
            "language_mismatch",
            f"The transcripts are in {LANGUAGE_NAMES[found]}, and the language was said to be "
            f"{LANGUAGE_NAMES.get(language, language)}. Send the right one, or auto.",
        )


def _look_at_speakers(heard: list[_Heard], report: Report) -> None:
    """Voices that lie far apart. Two that lie near each other, the command tells apart by the engine's own model."""
    found = sorted((one.semitones, one.speech_seconds) for one in heard if one.semitones is not None)
    if len(found) < 2:
        return
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(found)]
    at = int(np.argmax(gaps)) + 1
    lower, upper = found[:at], found[at:]
    apart = _median(upper) - _median(lower)
    total = sum(seconds for _, seconds in found)
    share = min(sum(seconds for _, seconds in part) for part in (lower, upper)) / max(total, 1e-6)
    if apart > OTHER_SPEAKER_SEMITONES and share > OTHER_SPEAKER_SHARE:
        report.warn(
            "several_speakers",
            f"The recordings have voices that lie {apart:.0f} semitones apart: are they of one person? Send one "
            "speaker's only.",
        )


def _median(part: list[tuple[float, float]]) -> float:
    return float(np.median([semitones for semitones, _ in part]))


def _look_at_whole(usable: list[_Heard], report: Report) -> None:
    seconds = report.usable_seconds
    if report.problems:
        return
    if seconds < MIN_USABLE_SECONDS:
        why = ""
        if report.dropped:
            first = report.dropped[0]
            why = f" {len(report.dropped)} recordings were left out, such as {first['file']}: {first['reason']}."
        report.problem(
            "too_short",
            f"There are {seconds:.0f} s of usable speech, and at least {MIN_USABLE_SECONDS:.0f} are needed.{why} "
            "Record more, in a quiet room: 3 minutes or more make a good voice.",
        )
        return
    if seconds < FEW_SECONDS:
        report.warn("short", f"There are {seconds:.0f} s of usable speech. Three minutes or more make a better voice.")
    if seconds > MANY_SECONDS:
        report.warn("long", "There are more than 40 minutes of speech. Take fewer epochs, or the best part of it.")
    if report.dropped:
        first = report.dropped[0]
        count = len(report.dropped)
        what = "1 recording was" if count == 1 else f"{count} recordings were"
        report.warn("left_out", f"{what} left out. {first['file']}: {first['reason']}.")
    if report.snr_db is not None and report.snr_db < quality.GOOD_SNR_DB:
        report.warn("noise", "Noise or echo is heard under the voice, and will be learned with it.")
    if min(one.bandwidth_hz for one in usable) < quality.GOOD_BANDWIDTH_HZ:
        report.warn(
            "dull", "Some recordings are as of a telephone, with nothing above 6.5 kHz. The voice will be dull."
        )
