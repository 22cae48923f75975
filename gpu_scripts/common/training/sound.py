"""What a recording is like: its level, noise, clipping, pauses, pitch; and where it is cut.

Audio is float32 mono (n,), -1..1. Thresholds are ours, from clean and spoilt speech of one base voice; they are meant
to find what is plainly wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

FRAME_SECONDS = 0.02
SILENT_DB = -50.0  # of a clip's loud frames
MIN_SNR_DB = 20.0
MAX_CLIPPED = 0.0005  # of a clip's samples
PAUSE_SECONDS = 0.2
LONG_PAUSE_SECONDS = 1.0
MIN_CLIP_SECONDS = 1.0
KEPT_SECONDS = 0.15  # of the pause before and after a clip
HELD_SHARE = 0.45  # of voiced time in held notes: sung, or music
REVERB_SECONDS = 0.25
NARROW_HZ = 16000


def levels(samples: Float32, rate: int) -> NDArray[np.float64]:
    """The level of each 20 ms, in dB of full scale, at least -100."""
    step = max(1, round(rate * FRAME_SECONDS))
    count = len(samples) // step
    power = np.mean(np.square(samples[: count * step].reshape(count, step), dtype=np.float64), axis=1)
    decibels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-10))
    return decibels


def loud_and_floor(level: NDArray[np.float64]) -> tuple[float, float]:
    """(how loud speech is, how loud its pauses are), dB."""
    if not len(level):
        return -100.0, -100.0
    return float(np.percentile(level, 90)), float(np.percentile(level, 3))


def clipped_share(samples: Float32) -> float:
    """The share of samples in flat tops: three and more in a row at the greatest level there is."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    if peak < 0.3:
        return 0.0
    top = np.abs(samples) >= peak * 0.998
    edges = np.flatnonzero(np.diff(np.concatenate([[False], top, [False]])))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= 3].sum()) / len(samples)


@dataclass(frozen=True)
class Span:
    """Seconds. cut: where no pause was, one end is within a word."""

    start: float
    end: float
    cut: bool = False


def pauses(level: NDArray[np.float64], loud: float, floor: float) -> list[tuple[int, int]]:
    """Where nobody speaks for 0.2 s and longer: frames (first, one after the last)."""
    border = max(loud - 35.0, min(floor + 8.0, loud - 15.0))
    quiet = level < border
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    shortest = round(PAUSE_SECONDS / FRAME_SECONDS)
    return [
        (int(a), int(b))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
        if b - a >= shortest or a == 0 or b == len(level)
    ]


def cut(samples: Float32, rate: int, max_seconds: float) -> list[Span]:
    """Speech cut at its pauses into at most `max_seconds`, silence around it left away.

    At a pause of a second and longer always; else as late as it can be. Where there is no pause within reach, at the
    quietest place.
    """
    level = levels(samples, rate)
    loud, floor = loud_and_floor(level)
    if loud < SILENT_DB:
        return []
    kept = round(KEPT_SECONDS / FRAME_SECONDS)
    found: list[Span] = []
    quiet = pauses(level, loud, floor)
    long = round(LONG_PAUSE_SECONDS / FRAME_SECONDS)
    spoken: list[tuple[int, int]] = []
    start = 0
    for first, stop in quiet:
        if first == 0 or stop == len(level) or stop - first >= long:
            if first > start:
                spoken.append((max(0, start - kept), min(len(level), first + kept)))
            start = stop
    if start < len(level):
        spoken.append((max(0, start - kept), len(level)))
    longest = int(max_seconds / FRAME_SECONDS)
    for start, end in spoken:
        torn = False
        while end - start > longest:
            least = start + min(round(3.0 / FRAME_SECONDS), longest // 2)
            middles = [(a + b) // 2 for a, b in quiet if least <= (a + b) // 2 <= start + longest]
            if middles:
                at, tears = middles[-1], False
            else:
                low = start + longest // 2
                at, tears = low + int(np.argmin(level[low : start + longest])), True
            found.append(Span(start * FRAME_SECONDS, at * FRAME_SECONDS, torn or tears))
            start, torn = at, tears
        found.append(Span(start * FRAME_SECONDS, end * FRAME_SECONDS, torn))
    return found


def held_share(samples: Float32, rate: int) -> float:
    """The share of the voiced time in which the pitch stands still (within a third of a semitone) for a fifth of a
    second and longer: little in speech, much in singing and music."""
    step, size = rate // 100, rate // 20
    count = (len(samples) - 2 * size) // step
    if count < 50:
        return 0.0
    low, high = rate // 500, rate // 70
    starts = np.arange(count) * step
    frames = samples[starts[:, None] + np.arange(2 * size)].astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(frames, 4 * size)
    likeness = np.fft.irfft(np.abs(spectrum) ** 2)[:, : high + 1]
    energy = likeness[:, 0]
    best = low + np.argmax(likeness[:, low:], axis=1)
    strength = likeness[np.arange(count), best] / np.maximum(energy, 1e-9)
    voiced = (strength > 0.45) & (energy > 0.05 * np.percentile(energy, 90))
    pitch = 12 * np.log2(rate / best)
    length, held, told = 20, 0, np.zeros(count, bool)
    for first in range(0, count - length, 2):
        part = slice(first, first + length)
        if voiced[part].all() and np.ptp(np.percentile(pitch[part], [10, 90])) < 0.67:
            told[part] = True
    held = int(told.sum())
    return held / max(1, int(voiced.sum()))


def decay_seconds(level: NDArray[np.float64]) -> float:
    """How long speech takes to fall by 20 dB once it stops: the median of its ends, 0 where there is none."""
    loud, floor = loud_and_floor(level)
    if loud - floor < 30:
        return 0.0
    times = []
    above = np.flatnonzero((level[:-1] > loud - 8) & (level[1:] <= loud - 8))
    for at in above:
        below = np.flatnonzero(level[at : at + 50] < loud - 28)
        if len(below) and not (level[at + 1 : at + below[0]] > loud - 8).any():
            times.append(int(below[0]) * FRAME_SECONDS)
    return float(np.median(times)) if len(times) >= 3 else 0.0


def bandwidth_hz(samples: Float32, rate: int) -> float:
    """Up to which frequency there is anything: within 60 dB of the loudest band of 500 Hz."""
    size = 2048
    count = len(samples) // size
    if not count:
        return float(rate) / 2
    power = np.zeros(size // 2 + 1)
    for block in samples[: count * size].reshape(count, size):
        power += np.abs(np.fft.rfft(block * np.hanning(size))) ** 2
    width = max(1, round(500 * size / rate))
    bands = power[: len(power) // width * width].reshape(-1, width).mean(axis=1)
    present = np.flatnonzero(bands > bands.max() * 1e-6)
    return float((present[-1] + 1) * width * rate / size) if len(present) else 0.0
