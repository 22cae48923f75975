"""The references that GPT-SoVITS takes: 3 to 10 s of a voice."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from common import audio, script_io
from common.script_io import ScriptError

Float32 = NDArray[np.float32]

MIN_REFERENCE_SECONDS, MAX_REFERENCE_SECONDS = 3, 10


def check_reference(path: Path) -> None:
    """Raises ScriptError (5) unless it is audio of 3 to 10 s, counted as the engine does: in samples at 16 kHz."""
    try:
        with soundfile.SoundFile(path) as file:
            samples = math.ceil(file.frames * 16000 / file.samplerate)
            seconds = file.frames / file.samplerate
    except (OSError, soundfile.SoundFileError) as error:
        raise ScriptError(script_io.BAD_REFERENCE, "the reference audio cannot be read") from error
    if not 16000 * MIN_REFERENCE_SECONDS <= samples <= 16000 * MAX_REFERENCE_SECONDS:
        raise ScriptError(
            script_io.BAD_REFERENCE,
            f"the reference lasts {seconds:.2f} s; it must last {MIN_REFERENCE_SECONDS} to {MAX_REFERENCE_SECONDS} s",
        )


def reference_seconds(path: Path) -> float:
    with audio.open_wav(path) as file:
        return file.frames / file.samplerate


def best_reference(samples: Float32, rate: int) -> tuple[Float32, int]:
    """The best 10 s of the reference, from pause to pause: mono (n,). Raises ScriptError (5)."""
    seconds = len(samples) / rate
    if seconds < MIN_REFERENCE_SECONDS:
        raise ScriptError(
            script_io.BAD_REFERENCE,
            f"the reference lasts {seconds:.1f} s, and GPT-SoVITS needs {MIN_REFERENCE_SECONDS} s",
        )
    if float(np.abs(samples).max()) < 1e-3:
        raise ScriptError(script_io.BAD_REFERENCE, "no voice could be found in the reference")
    if seconds <= MAX_REFERENCE_SECONDS:
        return samples, rate
    step = rate // 50
    count = len(samples) // step
    level = 10 * np.log10(np.mean(samples[: count * step].reshape(count, step).astype(np.float64) ** 2, axis=1) + 1e-10)
    speech = level > max(float(np.percentile(level, 95)) - 30, float(np.percentile(level, 5)) + 6)
    said = np.concatenate([[0], np.cumsum(speech)])
    longest, shortest = 50 * MAX_REFERENCE_SECONDS - 1, 50 * MIN_REFERENCE_SECONDS
    # It begins and ends in pauses: a cut where someone speaks costs as much as 2 s of speech.
    quiet = np.convolve(~speech, np.ones(5) / 5, mode="same") > 0.9
    loud_at = np.concatenate([[False], ~quiet[1:], [False]])
    best, found = -np.inf, (0, longest)
    for start in range(0, count - shortest + 1, 2):
        stops = np.arange(start + shortest, min(start + longest, count) + 1)
        score = said[stops] - said[start] - 100.0 * loud_at[stops] - 100.0 * loud_at[start] - 0.02 * (stops - start)
        number = int(np.argmax(score))
        if score[number] > best:
            best, found = float(score[number]), (start, int(stops[number]))
    return samples[found[0] * step : found[1] * step].copy(), rate


def store_reference(samples: Float32, rate: int, folder: Path) -> Path:
    """A 16-bit WAV under the hash of its content: the engine remembers references by their paths."""
    steps = np.clip(np.round(samples.astype(np.float64) * 32767), -32768, 32767).astype(np.int16)
    path = folder / f"{hashlib.sha256(steps.tobytes() + str(rate).encode()).hexdigest()}.wav"
    soundfile.write(path, steps, rate, subtype="PCM_16")
    return path
