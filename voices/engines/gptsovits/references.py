"""Reference audio: which part of it is used, and the files that `api_v2.py` reads it from."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from voiceproject.errors import PublicError

log = logging.getLogger(__name__)

MIN_REFERENCE_SECONDS = 3.0
MAX_REFERENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Excerpt:
    """The part of a reference that the engine hears: `cut` makes it, float32 (n,), of the `whole`.

    window: (start, end) in seconds, None for all of it; what is cut is the same for the same array and window.
    """

    whole: NDArray[np.float32]
    window: tuple[float, float] | None
    sample_rate: int
    cut: Callable[[], NDArray[np.float32]]


def best_window(
    samples: NDArray[np.float32], sample_rate: int, max_seconds: float = MAX_REFERENCE_SECONDS
) -> tuple[float, float]:
    """The stretch of at most max_seconds with the most speech in it that begins and ends where it is quiet.

    samples: float32, (n,), mono. Returns (start, end) in seconds; audio that is short enough is taken whole.
    """
    duration = len(samples) / sample_rate
    if duration <= max_seconds:
        return 0.0, duration
    step = 0.02
    hop = round(step * sample_rate)
    count = len(samples) // hop
    frames = samples[: count * hop].reshape(count, hop)
    decibels = 10 * np.log10(np.einsum("ij,ij->i", frames, frames).astype(np.float64) / hop + 1e-10)
    floor, top = np.percentile(decibels, [5, 95])
    # Speech lies in the upper part of the range between the room and the voice, and not 30 dB under the
    # voice.
    threshold = max(floor + 0.35 * (top - floor), top - 30.0)
    speech = np.concatenate([[0.0], np.cumsum((decibels > threshold) * step)])
    loudness = np.clip((decibels - floor) / max(top - floor, 1e-3), 0.0, 1.0)
    # A cut lies between two frames, and is as loud as what is within 60 ms of it. The ends of the audio are
    # quiet.
    around = np.convolve(loudness, np.ones(6) / 6, mode="full")[2 : count + 3]
    around[0] = around[-1] = 0.0
    longest = min(count, int(max_seconds / step + 1e-6))
    shortest = max(1, longest // 2)
    # To cut into full voice costs as much as two seconds of speech; of equals the shorter one has fewer
    # pauses. What an end is worth does not hang on the start, so each start takes the best of those in its reach.
    at = np.arange(count + 1)
    worth = np.concatenate([speech - 2.0 * around - 1e-3 * step * at, np.full(longest - shortest, -np.inf)])
    reach = np.lib.stride_tricks.sliding_window_view(worth[shortest:], longest - shortest + 1)
    cost = (speech + 2.0 * around - 1e-3 * step * at)[: len(reach)]
    row = int(np.argmax(reach.max(axis=1) - cost))
    column = int(np.argmax(reach[row]))
    start, end = row * hop / sample_rate, (row + shortest + column) * hop / sample_rate
    return start, min(end, start + max_seconds)


def wav_bytes(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """Mono 16-bit WAV of float32 samples (n,)."""
    buffer = io.BytesIO()
    steps = np.clip(np.rint(samples * np.float32(32767.0)), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, steps, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def store_reference(samples: NDArray[np.float32], sample_rate: int, folder: Path, mark: str = "") -> str:
    """Writes mono 16-bit WAV into `folder` once, under the SHA-256 of its bytes; returns the file's name.

    mark: stands in the name too, where the same audio needs several. Raises PublicError: storage_full, not_configured.
    """
    content = wav_bytes(samples, sample_rate)
    name = f"{hashlib.sha256(content).hexdigest()}{mark}.wav"
    final = folder / name
    if still_there(final):
        return name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            with open(partial, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)  # over nothing, or over the same bytes from another process
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        log.exception("The reference cannot be written to %s", folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PublicError("storage_full", "There is no room left for reference audio.") from error
        raise PublicError("not_configured", "The folder for reference audio cannot be written.") from error
    return name


def still_there(path: Path) -> bool:
    """Whether a reference is stored; what is still used is not old."""
    try:
        os.utime(path)
    except OSError:  # whatever else is wrong with it, its writing will tell
        return False
    return True


def sweep_references(folder: Path, older_than_seconds: float) -> int:
    """Removes the reference files that no synthesis has used for so long; returns how many."""
    removed = 0
    for path in [*folder.glob("*.wav"), *folder.glob(".*.wav.*")]:
        try:
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
