"""Read a recording of one voice in blocks: mono, and never in memory at more than the rate that is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from voiceproject.media.clipping import ClippingMeter
from voiceproject.media.uploads import Bounds, opened

Samples = NDArray[np.float32]

# Engines and analysis hear nothing that is above it, and a minute of it is 11 MB.
MAX_SAMPLE_RATE = 48_000


@dataclass(frozen=True)
class Recording:
    """samples: float32 mono (n,), without their constant offset, peak at most 1; sample_rate: theirs, in Hz.

    own_rate: of the file; clipped: how many of its samples lie in peaks that were cut off, 0 where nobody asked.
    """

    samples: Samples
    sample_rate: int
    own_rate: int
    clipped: int


def read_voice(
    path: str | os.PathLike[str], bounds: Bounds, max_rate: int = MAX_SAMPLE_RATE, *, count_clipped: bool = False
) -> Recording:
    """Decode and check an upload. What is above max_rate is resampled to it while it is read.

    Stereo is averaged; where the sides cancel out (one of them inverted) the left one is taken. Raises PublicError as
    `audio` says.
    """
    read = _Reading(path, bounds, max_rate, count_clipped, left_only=False)
    if read.energy < 0.02 * read.sides:
        read = _Reading(path, bounds, max_rate, count_clipped, left_only=True)
    bounds.check_loudness(read.loudest)
    samples = read.samples
    samples -= np.float32(read.offset)
    peak = max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
    if peak > 1:
        samples /= np.float32(peak)
    return Recording(samples, read.rate, read.own_rate, read.meter.samples if read.meter else 0)


class _Reading:
    """All of an upload, and what was measured of its blocks."""

    def __init__(
        self, path: str | os.PathLike[str], bounds: Bounds, max_rate: int, count_clipped: bool, *, left_only: bool
    ) -> None:
        self.meter = ClippingMeter() if count_clipped else None
        self.energy = self.sides = self.loudest = total = 0.0
        with opened(path, bounds) as source:
            self.own_rate = source.sample_rate
            self.rate = min(source.sample_rate, max_rate)
            room = np.empty(math.ceil((bounds.max_seconds + 1) * self.rate), np.float32)
            filled = 0

            def monos() -> Iterator[Samples]:
                nonlocal total
                for block in source.blocks:
                    mono = block[:, 0].copy() if left_only else block.mean(axis=1)
                    self.energy += float(np.einsum("i,i->", mono, mono, dtype=np.float64))
                    self.sides += float(np.einsum("ij,ij->", block, block, dtype=np.float64)) / source.channels
                    total += float(mono.sum(dtype=np.float64))
                    self.loudest = max(self.loudest, loudest_rms(mono, source.sample_rate))
                    if self.meter is not None:
                        self.meter.add(mono)
                    yield mono

            for piece in resampled(monos(), source.sample_rate, self.rate):
                piece = piece[: len(room) - filled]
                room[filled : filled + len(piece)] = piece
                filled += len(piece)
            # The resampler may round its last frame up or down.
            frames = min(len(room), round(source.frames * self.rate / source.sample_rate))
            room[filled:frames] = 0
            self.samples = room[:frames]
            self.offset = total / max(1, source.frames)


def resampled(blocks: Iterator[Samples], rate: int, to_rate: int) -> Iterator[Samples]:
    """Blocks of float32 mono (n,) at another rate, in Hz, as they come."""
    if rate == to_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, to_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block, np.float32))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def loudest_rms(samples: Samples, rate: int) -> float:
    """The highest RMS of any 50 ms of (n,) or (n, channels) samples, each piece without its own offset."""
    size = max(1, min(len(samples), rate // 20))
    pieces = samples[: len(samples) // size * size].reshape(-1, size, *samples.shape[1:])
    # A second at a time: the variance is taken in float64.
    seconds = [pieces[start : start + 20] for start in range(0, len(pieces), 20)]
    return math.sqrt(max((float(np.var(part, axis=1, dtype=np.float64).max()) for part in seconds), default=0.0))
