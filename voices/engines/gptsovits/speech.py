"""What a server has spoken: read, checked, and its ends made fit to be joined."""

from __future__ import annotations

import io
import wave

import numpy as np
import soundfile
from numpy.typing import NDArray

from voiceproject.errors import EngineError
from voices.engines.gptsovits.servers import Answer

EDGE_FADE_SECONDS = 0.005
SILENCE = 1.5 / 32768  # a peak of one step of 16 bits is no sound


def read_speech(answer: Answer) -> tuple[NDArray[np.float32], int]:
    """The audio of a 200 answer: float32 (n,) mono, and its sample rate in Hz.

    Raises EngineError where it is none, or silent.
    """
    if not answer.content_type.startswith("audio/"):
        raise EngineError() from ValueError(f"content type {answer.content_type!r}")
    body = answer.body
    # Sizes are checked first: a WAV that is cut short would be read as far as it goes.
    if (
        len(body) < 44
        or body[:4] != b"RIFF"
        or body[8:12] != b"WAVE"
        or int.from_bytes(body[4:8], "little") > len(body) - 8
    ):
        raise EngineError() from ValueError("not a whole WAV file")
    try:
        samples, rate = _plain(body)
    except (wave.Error, EOFError, RuntimeError):  # which it raises for sizes that are none
        samples, rate = _decoded(body)
    if not 8000 <= rate <= 192000:
        raise EngineError() from ValueError(f"{rate} Hz")
    lowest, highest = float(samples.min(initial=0.0)), float(samples.max(initial=0.0))
    if not np.isfinite([lowest, highest]).all():
        raise EngineError() from ValueError("samples that are no numbers")
    if max(-lowest, highest) < SILENCE:
        raise EngineError() from ValueError("silence, which is how this engine reports a failed synthesis")
    if max(-lowest, highest) > 1.0:
        np.clip(samples, -1.0, 1.0, out=samples)
    return samples, rate


def _plain(body: bytes) -> tuple[NDArray[np.float32], int]:
    """What the server sends: mono of 16 bits. Raises wave.Error, EOFError or RuntimeError for anything else.

    libsndfile would read it in blocks of some kilobytes, by functions of ours: each takes Python's lock anew, for which
    all threads of a busy server compete.
    """
    with wave.open(io.BytesIO(body)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise wave.Error
        steps = file.readframes(file.getnframes())
        if len(steps) != 2 * file.getnframes():
            raise EOFError
        return np.frombuffer(steps, "<i2") * np.float32(2.0**-15), file.getframerate()


def _decoded(body: bytes) -> tuple[NDArray[np.float32], int]:
    """Any other WAV that is taken. Raises EngineError."""
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as file:
            if file.subtype not in ("PCM_16", "PCM_24", "PCM_32", "FLOAT") or file.channels > 2:
                raise EngineError() from ValueError(f"{file.channels} channels of {file.subtype}")
            return file.read(dtype="float32", always_2d=True).mean(axis=1), file.samplerate
    except (soundfile.LibsndfileError, ValueError, RuntimeError) as error:
        raise EngineError() from error


def edges_faded(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """A copy that begins and ends at zero, so that pieces join without clicks."""
    faded = samples.copy()
    count = min(round(EDGE_FADE_SECONDS * sample_rate), len(faded) // 2)
    if count:
        ramp = np.linspace(0.0, 1.0, count, endpoint=False, dtype=np.float32)
        faded[:count] *= ramp
        faded[-count:] *= ramp[::-1]
    return faded


def least_seconds(text: str, speed: float) -> float:
    """The time under which nobody has spoken all of this text: about twice as fast as a fast speaker."""
    wide = 0 if text.isascii() else sum(char >= "\u1100" and char.isalpha() for char in text)
    letters = sum(map(str.isalpha, text)) - wide
    return (0.08 * sum(map(str.isdigit, text)) + 0.02 * letters + 0.06 * wide) / speed


def voiced_seconds(samples: NDArray[np.float32], sample_rate: int) -> float:
    """From the first to the last sample within 40 dB of the peak."""
    size = np.abs(samples)
    loud = size > 0.01 * float(size.max(initial=0.0))
    return (len(loud) - int(loud[::-1].argmax()) - int(loud.argmax())) / sample_rate if loud.any() else 0.0
