"""Moves the pitch of an accompaniment and keeps its time: Signalsmith Stretch (python-stretch), in blocks."""

from __future__ import annotations

import os

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

Samples = NDArray[np.float32]

BLOCK_SECONDS = 60.0
# Each block is moved on its own, and may leave the phases of another one: the two are joined where they agree best.
OVERLAP_SECONDS = 3.0
JOIN_SECONDS = 0.05
# What it hears as one sound. The library's own 120 ms puts low notes up to 10 cents off; more than 150 blurs drums.
WINDOW_SECONDS, STEP_SECONDS = 0.15, 0.0375
# Above this, tones are left nearer to where they were: what is there is the colour of an instrument, not its note.
TONALITY_HZ = 8000.0


def transpose(source: str | os.PathLike[str], target: str | os.PathLike[str], semitones: float) -> None:
    """Writes `source`, a WAV, moved by `semitones` (-24 to 24) as float32 WAV of the same length, rate and channels.

    Nothing is late or early: an attack stays within a millisecond. Memory does not grow with the length.
    """
    with sf.SoundFile(source) as song:
        rate, channels = song.samplerate, song.channels
        block, overlap = round(BLOCK_SECONDS * rate), round(OVERLAP_SECONDS * rate)
        with sf.SoundFile(target, "w", rate, channels, "FLOAT", format="WAV") as out:
            tail: Samples | None = None
            start = 0
            while start < song.frames or tail is None:
                song.seek(start)
                last = song.frames - start <= block + overlap
                samples = song.read(-1 if last else block + overlap, dtype="float32", always_2d=True)
                moved = _moved(samples, rate, semitones)
                if tail is not None:
                    moved[: len(tail)] = _joined(tail, moved[: len(tail)], rate)
                if last:
                    out.write(moved)
                    return
                out.write(moved[:block])
                tail = moved[block:].copy()
                start += block


def _moved(samples: Samples, rate: int, semitones: float) -> Samples:
    from python_stretch.Signalsmith import Stretch  # Only those who transpose load it.

    stretch = Stretch(1)  # A seed: the same song gives the same result.
    stretch.configure(samples.shape[1], round(WINDOW_SECONDS * rate), round(STEP_SECONDS * rate))
    stretch.setTransposeSemitones(semitones, TONALITY_HZ / rate)
    # A whole window at least: of less it makes nothing.
    padded = np.pad(samples, ((0, max(0, round(WINDOW_SECONDS * rate) - len(samples))), (0, 0)))
    moved = np.asarray(stretch.process(np.ascontiguousarray(padded.T)), np.float32)
    return np.ascontiguousarray(moved.T[: len(samples)])


def _joined(before: Samples, after: Samples, rate: int) -> Samples:
    """Two versions (n, channels) of one stretch: `before` first, then `after`, changed over where they agree best."""
    size = round(JOIN_SECONDS * rate)
    places = range(size, len(before) - 2 * size, size // 2)
    if not places:
        return after

    def likeness(at: int) -> float:
        one, two = before[at : at + size].ravel(), after[at : at + size].ravel()
        return float(one @ two / (np.sqrt((one @ one) * (two @ two)) + 1e-9))

    best = max(places, key=likeness)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / size)).astype(np.float32)[:, None]
    middle = before[best : best + size] * (1 - ramp) + after[best : best + size] * ramp
    return np.concatenate([before[:best], middle, after[best + size :]])
