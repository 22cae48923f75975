"""Audio files in and out: mono or stereo to float32, resampled by soxr, and 32-bit float WAVs that appear complete.

numpy, soundfile and soxr are imported where they are used: a script may have to call `script_io.limit_threads`, or
choose a GPU, before anything heavy is loaded.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import script_io
from common.script_io import ScriptError

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

RATE = 44100
READ_BLOCK = 441_000  # samples
SILENCE_RMS = 10 ** (-70 / 20)
MAX_DRIFT_SECONDS = 0.25  # engines round to frames of 10 to 12 ms; a greater difference means that they lost something


class _File(io.BufferedRandom):
    """Remembers why a write failed: soundfile says no more than that it did, by an AssertionError."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def wav_writer(path: Path, sample_rate: int, channels: int) -> Iterator[soundfile.SoundFile]:
    """A 32-bit float WAV that appears under `path` only when the block ends well; otherwise nothing is left of it.

    Written beside `path`, flushed to the disk, then renamed. Raises ScriptError (6, 18) where it cannot be written.
    """
    import soundfile

    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise ScriptError(_unwritable(error), f"cannot write {path}: {error.strerror}") from error
    raw = _File(io.FileIO(descriptor, "w+b"))
    try:
        with raw:
            with soundfile.SoundFile(
                raw, "w", samplerate=sample_rate, channels=channels, format="WAV", subtype="FLOAT"
            ) as wav:
                yield wav
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except (OSError, soundfile.SoundFileError, AssertionError) as error:
        if isinstance(error, AssertionError) and raw.error is None:
            raise
        reason = raw.error or error
        raise ScriptError(_unwritable(reason), f"cannot write {path}: {reason}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _unwritable(error: BaseException) -> int:
    full = isinstance(error, OSError) and error.errno in script_io.NO_ROOM
    return script_io.DISK_FULL if full else script_io.UNWRITABLE


def open_wav(path: Path, max_channels: int = 2) -> soundfile.SoundFile:
    """An audio file opened for reading. Raises ScriptError (3): no such file, not audio, empty, too many channels."""
    import soundfile

    try:
        audio = soundfile.SoundFile(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise ScriptError(script_io.UNREADABLE, f"cannot read {path}: {error}") from error
    if audio.channels > max_channels or audio.frames == 0 or audio.samplerate < 4000:
        facts = f"{audio.channels} channels, {audio.frames} samples at {audio.samplerate} Hz"
        audio.close()
        raise ScriptError(
            script_io.UNREADABLE, f"cannot use {path}: {facts}; wanted 1 to {max_channels} channels with audio"
        )
    return audio


def read_mono(path: Path, seconds: float | None = None) -> tuple[NDArray[np.float32], int, int]:
    """(samples (n,), sample rate, channels of the file): the `middle` of the channels. Raises ScriptError (3)."""
    import numpy as np

    with open_wav(path) as audio:
        frames = audio.frames if seconds is None else min(audio.frames, round(seconds * audio.samplerate))
        sides = np.empty((frames, audio.channels), np.float32)
        filled = 0
        while filled < frames:
            block = audio.read(min(READ_BLOCK, frames - filled), dtype="float32", always_2d=True)
            if not len(block):
                break
            sides[filled : filled + len(block)] = block
            filled += len(block)
        if filled < frames or not np.isfinite(sides).all():
            raise ScriptError(script_io.UNREADABLE, f"{path} is cut short or holds samples that are not numbers")
        return middle(sides), audio.samplerate, audio.channels


def middle(sides: Float32) -> Float32:
    """(n, channels) -> (n,): their mean, or the louder one where they cancel each other out."""
    import numpy as np

    mean: Float32 = sides.mean(axis=1)
    energies = [float(np.vdot(side, side)) for side in sides.T]
    if float(np.vdot(mean, mean)) < 0.1 * max(energies):
        return np.ascontiguousarray(sides[:, int(np.argmax(energies))])
    return mean


class Clip:
    """An audio file as float32 (frames, channels) at its own rate, all finite.

    `length`: its frames at 44.1 kHz. Raises ScriptError (3).
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        with open_wav(path) as audio:
            self.rate: int = audio.samplerate
            self.samples: Float32 = audio.read(dtype="float32", always_2d=True)
            if len(self.samples) != audio.frames or not np.isfinite(self.samples).all():
                raise ScriptError(script_io.UNREADABLE, f"{path} is cut short or holds samples that are not numbers")
        self.channels = self.samples.shape[1]
        self.length = round(len(self.samples) * RATE / self.rate)

    @property
    def silent(self) -> bool:
        return level(self.samples) < SILENCE_RMS

    def mono(self, rate: int) -> Float32:
        """(n,), see `middle`."""
        return resampled(middle(self.samples), self.rate, rate)

    def stereo(self, rate: int = RATE) -> Float32:
        """(n, 2); a mono file is on both sides."""
        both = self.samples if self.channels == 2 else self.samples.repeat(2, axis=1)
        return resampled(both, self.rate, rate)


def made(path: Path) -> Clip:
    """A file that an engine wrote. Raises ScriptError (11): it cannot be read, or holds NaN."""
    try:
        return Clip(path)
    except ScriptError as error:
        raise ScriptError(script_io.ENGINE_FAILED, f"what the engine made is of no use: {error}") from error


def level(samples: Float32) -> float:
    """Root mean square."""
    import numpy as np

    flat = np.ravel(samples)
    return float(np.sqrt(np.mean(np.square(flat, dtype=np.float64)))) if len(flat) else 0.0


def resampled(samples: Float32, rate: int, new_rate: int) -> Float32:
    """(n,) or (n, channels), contiguous; its length is n * new_rate / rate, rounded."""
    import numpy as np
    import soxr

    if rate == new_rate:
        return np.ascontiguousarray(samples, np.float32)
    return exactly(
        np.asarray(soxr.resample(samples, rate, new_rate), np.float32), round(len(samples) * new_rate / rate)
    )


def exactly(samples: Float32, length: int) -> Float32:
    """Cut, or filled with silence, to `length` frames."""
    import numpy as np

    lacking = max(0, length - len(samples))
    padding = [(0, lacking)] + [(0, 0)] * (samples.ndim - 1)
    return np.ascontiguousarray(np.pad(samples[:length], padding), np.float32)


def fitted(samples: Float32, rate: int, length: int, what: str) -> Float32:
    """What an engine made, at 44.1 kHz and `length` frames. Raises ScriptError: NaN, silence, or a part is missing."""
    import numpy as np

    if not np.isfinite(samples).all():
        raise ScriptError(script_io.ENGINE_FAILED, f"the engine's {what} holds samples that are not numbers")
    samples = resampled(samples, rate, RATE)
    if abs(len(samples) - length) > MAX_DRIFT_SECONDS * RATE:
        lengths = f"{len(samples) / RATE:.2f} s instead of {length / RATE:.2f} s"
        raise ScriptError(script_io.ENGINE_FAILED, f"the engine's {what} has {lengths}")
    if level(samples) < SILENCE_RMS:
        raise ScriptError(script_io.ENGINE_FAILED, f"the engine's {what} is silent")
    return exactly(samples, length)


def write(path: Path, samples: Float32, channels: int) -> None:
    """44.1 kHz, 32-bit float, at once and complete; a mono signal goes to all channels. Raises ScriptError (6)."""
    import numpy as np

    frames = samples[:, None] if samples.ndim == 1 else samples
    with wav_writer(path, RATE, channels) as out:
        for start in range(0, len(frames), 10 * RATE):
            block = frames[start : start + 10 * RATE]
            out.write(np.repeat(block, channels // block.shape[1], axis=1))


def check_folder(path: Path) -> None:
    """Before minutes of work: raises ScriptError (6) where an output could not be written."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ScriptError(script_io.UNWRITABLE, f"cannot write into {path.parent}")
