"""The melody of singing: F0 of a vocal, also of one that a separator has cut out of a song.

What a separator leaves of instruments has a pitch too, and is sung along where a tracker takes any. Two listen: Harvest
(WORLD), which finds the last voiced frame of a clean vocal, and SwiftF0, a small model that knows how sure it is, and
is misled by accompaniment less often. Of a clean vocal both tell the same, and Harvest is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyworld
import soxr
from numpy.typing import NDArray

from . import world
from .world import Float32, Float64

if TYPE_CHECKING:
    from swift_f0 import SwiftF0

FRAME = round(world.FRAME_SECONDS * world.SAMPLE_RATE)
PIECE_FRAMES = 3000  # 15 s
CONTEXT_FRAMES = 60  # listened to on both sides of a piece, then dropped
SWIFT_RATE = 16000
SWIFT_PEAK = 0.5  # it does not scale what it hears
SURE = 0.5
LEAP = 0.06  # a semitone, as a natural logarithm
# Clean vocals are below .015 (nine were tried), separated ones above .045 (six).
APART_OCTAVES = 0.25
CLEAN_SHARE = 0.03


def track(samples: Float32 | Float64, tell: Callable[[float], None] = lambda fraction: None) -> Float64:
    """F0 in Hz every 5 ms, 0 where unvoiced: float64 (n // 120 + 1,) of mono audio at 24 kHz, float (n,).

    Memory does not grow with the length but for the result. `tell` is called with the fraction done.
    """
    count = len(samples) // FRAME + 1
    harvested, surely = np.zeros(count), np.zeros(count)
    peak = float(np.abs(samples).max(initial=0.0))
    for start in range(0, count, PIECE_FRAMES):
        stop = min(start + PIECE_FRAMES, count)
        part, offset = excerpt(samples, start, stop)
        for track, found in ((harvested, _harvest(part)), (surely, _swift_f0(part, peak))):
            track[start:stop] = found[offset : offset + stop - start]
        tell(stop / count)
    both = (harvested > 0) & (surely > 0)
    apart = np.abs(np.log2(harvested[both] / surely[both])) > APART_OCTAVES
    return surely if both.any() and apart.mean() > CLEAN_SHARE else harvested


def excerpt(samples: Float32 | Float64, start: int, stop: int) -> tuple[Float64, int]:
    """Audio of frames start to stop with context around it, and how many frames of context come before."""
    first = max(0, start - CONTEXT_FRAMES)
    part = samples[first * FRAME : (stop + CONTEXT_FRAMES) * FRAME]
    return np.pad(np.ascontiguousarray(part, np.float64), (0, max(0, FRAME * 10 - len(part)))), start - first


def _harvest(samples: Float64) -> Float64:
    found: Float64 = pyworld.harvest(
        samples, world.SAMPLE_RATE, f0_floor=world.F0_FLOOR_HZ, f0_ceil=world.F0_CEILING_HZ,
        frame_period=world.FRAME_SECONDS * 1000,
    )[0]  # fmt: skip
    return found


def _swift_f0(samples: Float64, peak: float) -> Float64:
    """0 where it is not sure. peak: of the whole recording that `samples` are a part of."""
    times = np.arange(len(samples) // FRAME + 1) * world.FRAME_SECONDS
    if not peak:
        return np.zeros(len(times))
    scaled = soxr.resample(samples * (SWIFT_PEAK / peak), world.SAMPLE_RATE, SWIFT_RATE).astype(np.float32)
    found = _swift().detect(scaled, SWIFT_RATE, world.F0_FLOOR_HZ, world.F0_CEILING_HZ)
    nearest: NDArray[np.intp] = np.abs(times[:, None] - found.timestamps[None, :]).argmin(axis=1)
    logarithm = np.log(found.pitch_hz)
    between = np.interp(times, found.timestamps, logarithm)
    # Between two notes, or a note and a wrong one, there is no third.
    between = np.where(np.abs(between - logarithm[nearest]) > LEAP, logarithm[nearest], between)
    return np.where(found.confidence[nearest] >= SURE, np.exp(between), 0.0)


@lru_cache(maxsize=1)
def _swift() -> SwiftF0:
    """L. Nieradzik, "SwiftF0: fast and accurate monophonic pitch detection", arXiv 2508.18440 (MIT)."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from swift_f0 import SwiftF0  # Loads onnxruntime.

    return SwiftF0(threads=1, spin=False)
