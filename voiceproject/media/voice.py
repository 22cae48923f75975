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
from voiceproject.media.uploads import HIGHEST_RATE, Bounds, opened

Samples = NDArray[np.float32]

# Engines and analysis hear nothing that is above it, and a minute of it is 11 MB.
MAX_SAMPLE_RATE = HIGHEST_RATE


@dataclass(frozen=True)
class Recording:
    """samples: float32 mono (n,), without their constant offset, peak at most 1; sample_rate: theirs, in Hz.

    own_rate: of the file; clipped: how many of its samples lie in peaks that were cut off, 0 where nobody asked;
    warnings: what was left out or guessed.
    """

    samples: Samples
    sample_rate: int
    own_rate: int
    clipped: int
    warnings: list[str]


def read_voice(
    path: str | os.PathLike[str], bounds: Bounds, sample_rate: int | None = None, *, count_clipped: bool = False
) -> Recording:
    """Decode and check an upload, at its own rate up to MAX_SAMPLE_RATE, or at `sample_rate` (Hz) where one is given.

    Stereo is averaged; where the sides cancel out (one of them inverted) the left one is taken. Raises PublicError as
    `audio` says.
    """
    read = _Reading(path, bounds, sample_rate, count_clipped, left_only=False)
    if read.energy < 0.02 * read.sides:
        read = _Reading(path, bounds, sample_rate, count_clipped, left_only=True)
    bounds.check_loudness(read.loudest)
    samples = read.samples
    samples -= np.float32(read.offset)
    peak = max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
    if peak > 1:
        samples /= np.float32(peak)
    clipped = read.meter.samples if read.meter else 0
    return Recording(samples, read.rate, read.own_rate, clipped, read.warnings)


class _Reading:
    """All of an upload, and what was measured of its blocks."""

    def __init__(
        self, path: str | os.PathLike[str], bounds: Bounds, rate: int | None, count_clipped: bool, *, left_only: bool
    ) -> None:
        self.meter = ClippingMeter() if count_clipped else None
        self.energy = self.sides = total = 0.0
        with opened(path, bounds, rate) as source:
            self.own_rate, self.rate = source.upload_rate, source.sample_rate
            one_side = left_only or source.channels == 1
            if (meter := self.meter) is not None:
                source.listen = lambda block: meter.add(block[:, 0] if one_side else block.mean(axis=1))
            room = np.empty(math.ceil((bounds.max_seconds + 1) * self.rate), np.float32)
            filled = 0
            for block in source.blocks:
                mono = block[:, 0] if one_side else block.mean(axis=1)
                self.energy += float(np.einsum("i,i->", mono, mono, dtype=np.float64))
                if not one_side:
                    self.sides += float(np.einsum("ij,ij->", block, block, dtype=np.float64)) / source.channels
                total += float(mono.sum(dtype=np.float64))
                mono = mono[: len(room) - filled]
                room[filled : filled + len(mono)] = mono
                filled += len(mono)
            room.resize(filled, refcheck=False)  # What a cache keeps of a short one shall not hold room for a minute.
            self.samples, self.loudest, self.warnings = room, source.loudest, source.warnings
            self.offset = total / max(1, filled)


def resampled(blocks: Iterator[Samples], rate: int, to_rate: int) -> Iterator[Samples]:
    """Blocks of float32 mono (n,) at another rate, in Hz, as they come."""
    if rate == to_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, to_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block, np.float32))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
