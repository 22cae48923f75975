"""The recordings of a training: files with their texts, the clips that they are cut into, and what each is like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import audio, script_io
from common.script_io import ScriptError

from . import sound
from .tell import Progress

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
BLOCK_SECONDS = 600
LANGUAGES = ("zh", "en", "ja", "ko", "yue")
_NAMES = {
    "jp": "ja",
    "cn": "zh",
    "cantonese": "yue",
    "english": "en",
    "chinese": "zh",
    "japanese": "ja",
    "korean": "ko",
}


@dataclass(frozen=True)
class Source:
    """A file, with what is said in it (None: not told) and in which language ("": not told)."""

    path: Path
    text: str | None = None
    language: str = ""
    speaker: str = ""


@dataclass
class Clip:
    """A part of a source (its place in the list of them): seconds of it. name: of this training alone."""

    name: str
    source: int
    file: str
    start: float
    end: float
    whole: bool  # all that is said in its file
    snr: float = 0.0
    clipped: float = 0.0
    text: str | None = None
    language: str = ""
    path: str = ""

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Dropped:
    file: str
    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class File:
    """What a source is like as a whole. error: why it cannot be read."""

    source: Source
    seconds: float = 0.0
    rate: int = 0
    digest: str = ""
    held: float = 0.0
    decay: float = 0.0
    bandwidth: float = 0.0
    snr: float = 0.0
    error: str = ""


def sources(dataset: Path) -> tuple[list[Source], list[Dropped]]:
    """The files of a folder (NAME.wav, NAME.txt beside it), or of a list as GPT-SoVITS has it (`path|speaker|language|
    text`, paths relative to the list's folder). Raises ScriptError (3, 15)."""
    if dataset.is_dir():
        return _folder(dataset)
    if dataset.is_file():
        return _list(dataset)
    raise ScriptError(script_io.UNREADABLE, f"there is no dataset {dataset}")


def _folder(folder: Path) -> tuple[list[Source], list[Dropped]]:
    found, dropped = [], []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    stems = {path.with_suffix("") for path in paths}
    for path in paths:
        beside = path.with_suffix(".txt")
        text = None
        if beside.is_file():
            try:
                text = " ".join(beside.read_text("utf-8-sig").split())
            except UnicodeDecodeError:
                dropped.append(Dropped(path.name, 0, 0, "its text is not UTF-8"))
                continue
            if "|" in text:
                dropped.append(Dropped(path.name, 0, 0, "its text has a |"))
                continue
        found.append(Source(path, text or None))
    for path in sorted(folder.rglob("*.txt")):
        if path.with_suffix("") not in stems:
            dropped.append(Dropped(path.name, 0, 0, "a text without a recording of its name"))
    return found, dropped


def _list(path: Path) -> tuple[list[Source], list[Dropped]]:
    found, dropped = [], []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(script_io.UNREADABLE, f"cannot read {path} as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number}"
        parts = line.split("|")
        if len(parts) != 4 or "\t" in line:
            dropped.append(Dropped(where, 0, 0, "not path|speaker|language|text, or a tab or | in the text"))
            continue
        file, speaker, language, text = (part.strip() for part in parts)
        language = language.lower()
        language = _NAMES.get(language, language)
        if language not in LANGUAGES:
            dropped.append(Dropped(file, 0, 0, f"GPT-SoVITS is not trained for the language {language!r}"))
            continue
        found.append(Source(path.parent / file, text or None, language, speaker))
    return found, dropped


def digest(found: list[Source]) -> str:
    """Of all files and texts: what the stages' results depend on."""
    whole = hashlib.sha256()
    for source in found:
        whole.update(repr((source.path.name, source.text, source.language)).encode())
        try:
            with open(source.path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            whole.update(b"unreadable")
    return whole.hexdigest()


def blocks(path: Path, seconds: float = BLOCK_SECONDS) -> Iterator[tuple[float, audio.Float32, int]]:
    """(where it begins, mono samples, rate) of the file, in parts of at most so long. Raises ScriptError (3)."""
    with audio.open_wav(path, max_channels=8) as file:
        start = 0
        while start < file.frames:
            sides = file.read(round(seconds * file.samplerate), dtype="float32", always_2d=True)
            if not len(sides):
                raise ScriptError(script_io.UNREADABLE, "it is cut short")
            if not np.isfinite(sides).all():
                raise ScriptError(script_io.UNREADABLE, "it holds samples that are not numbers")
            yield start / file.samplerate, audio.middle(sides), file.samplerate
            start += len(sides)


def measure(source: Source, max_seconds: float, number: int) -> tuple[File, list[Clip], list[Dropped]]:
    """A file, its clips that are good enough, and the parts that are not."""
    name = source.path.name
    whole = hashlib.sha256()
    clips: list[Clip] = []
    dropped: list[Dropped] = []
    facts: list[tuple[float, float, float, float]] = []  # seconds, held, decay, bandwidth of each block
    end, rate, noise = 0.0, 0, []
    try:
        for start, samples, rate in blocks(source.path):
            whole.update((samples * 32767).astype(np.int16).tobytes())
            end = start + len(samples) / rate
            level = sound.levels(samples, rate)
            _, floor = sound.loud_and_floor(level)
            middle = max(0, len(samples) // 2 - 10 * rate)
            low = audio.resampled(samples[middle : middle + 20 * rate], rate, 16000)
            facts.append(
                (
                    len(samples),
                    sound.held_share(low, 16000),
                    sound.decay_seconds(level),
                    sound.bandwidth_hz(samples, rate),
                )
            )
            spans = sound.cut(samples, rate, max_seconds)
            if not spans:
                dropped.append(Dropped(name, start, end, "silent"))
            for span in spans:
                part = samples[round(span.start * rate) : round(span.end * rate)]
                loud, own_floor = sound.loud_and_floor(sound.levels(part, rate))
                snr = loud - min(floor, own_floor)
                noise.append(snr)
                clipped = sound.clipped_share(part)
                first, last = start + span.start, start + span.end
                reason = _fault(len(part) / rate, loud, snr, clipped)
                if reason:
                    dropped.append(Dropped(name, round(first, 2), round(last, 2), reason))
                    continue
                alone = len(spans) == 1 and start == 0 and len(samples) < BLOCK_SECONDS * rate
                clips.append(
                    Clip(
                        f"f{number:04d}c{len(clips):04d}",
                        number,
                        str(source.path),
                        round(first, 3),
                        round(last, 3),
                        alone,
                        round(snr, 1),
                        round(clipped, 6),
                        source.text if alone else None,
                        source.language,
                    )
                )
    except (ScriptError, soundfile.SoundFileError, OSError) as error:
        reason = str(error).replace(str(source.path), name)
        return File(source, error=reason), [], [Dropped(name, 0, 0, f"unreadable: {reason}")]
    weights = np.array([fact[0] for fact in facts], float)
    held, decay, bandwidth = (float(np.average([fact[i] for fact in facts], weights=weights)) for i in (1, 2, 3))
    snr = float(np.median(noise)) if noise else 0.0
    return File(source, end, rate, whole.hexdigest(), held, decay, bandwidth, snr), clips, dropped


def _fault(seconds: float, loud: float, snr: float, clipped: float) -> str:
    if seconds < sound.MIN_CLIP_SECONDS:
        return "shorter than a second"
    if loud < sound.SILENT_DB:
        return "silent"
    if clipped > sound.MAX_CLIPPED:
        return "clipped"
    if snr < sound.MIN_SNR_DB:
        return f"noise: {snr:.0f} dB below the voice, wanted {sound.MIN_SNR_DB:.0f}"
    return ""


def measure_all(
    found: list[Source], max_seconds: float, progress: Progress
) -> tuple[list[File], list[Clip], list[Dropped]]:
    """Every file once: one with the same sound as an earlier one is dropped."""
    files: list[File] = []
    clips: list[Clip] = []
    dropped: list[Dropped] = []
    seen: dict[str, str] = {}
    for number, source in enumerate(found):
        file, own, faults = measure(source, max_seconds, number)
        if file.digest and file.digest in seen:
            dropped.append(Dropped(source.path.name, 0, round(file.seconds, 2), f"the same as {seen[file.digest]}"))
        else:
            if file.digest:
                seen[file.digest] = source.path.name
            files.append(file)
            clips += own
            dropped += faults
        progress((number + 1) / len(found))
    return files, clips, dropped


def write_clip(clip: Clip, path: Path, rate: int) -> None:
    """16-bit mono; whole or not at all."""
    with audio.open_wav(Path(clip.file), max_channels=8) as file:
        first = round(clip.start * file.samplerate)
        file.seek(first)
        sides = file.read(round(clip.end * file.samplerate) - first, dtype="float32", always_2d=True)
        samples = audio.resampled(audio.middle(sides), file.samplerate, rate)
    peak = float(np.abs(samples).max())
    partial = path.with_suffix(".part")
    soundfile.write(partial, samples / max(1.0, peak), rate, subtype="PCM_16", format="WAV")
    partial.replace(path)
