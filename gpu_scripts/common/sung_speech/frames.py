"""Speech and singing taken apart: F0, loudness and the spectrum's shape, a frame each 5 ms; and the words for what is
sung and spoken when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyworld
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import resample_poly

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Tell = Callable[[float], None]

FRAME_SECONDS = 0.005
RATE = 16000  # of the analysis that alignment works on
OUTPUT_RATE = 44100
FFT_SIZE = 1024
F0_FLOOR_HZ = 65.0
F0_CEILING_HZ = 1000.0
BANDS = 32
BAND_RANGE_HZ = (90.0, 7300.0)

PIECE_FRAMES = 6000  # of the vocal, analysed at a time
CONTEXT_FRAMES = 60
VOICING_GATE_DB = 45.0
SHORTEST_VOICING = 5  # frames
LONGEST_HOLE = 8
LONGEST_SLIP = 20
MEDIAN_FRAMES = 9
SUNG_TRIM_DB = 36.0  # so far under the loud parts nothing is sung
SILENCE_GATE_DB = 42.0


class Unsingable(ValueError):
    """This phrase cannot be sung: `phrase` is its number from 0, or None where it is the whole song."""

    def __init__(self, message: str, phrase: int | None = None) -> None:
        super().__init__(message)
        self.phrase = phrase


@dataclass(frozen=True)
class Span:
    """From `start` to `end`, seconds."""

    start: float
    end: float


@dataclass(frozen=True)
class Phrase:
    """What is sung from `start` to `end`, seconds of the vocal. words: where each word is sung, None where unknown."""

    text: str
    start: float
    end: float
    words: tuple[Span | None, ...] = ()


@dataclass(frozen=True)
class Take:
    """One phrase as the engine spoke it: mono (n,), float. words: as in Phrase, in seconds of the take."""

    samples: Float32
    rate: int
    words: tuple[Span | None, ...] = ()


@dataclass(frozen=True)
class Frames:
    """f0: (n,) Hz, 0 where unvoiced; bands: (n, 32) natural log of power on mel bands; level: (n,) dB, RMS of 20 ms."""

    f0: Float64
    bands: Float32
    level: Float64

    def __len__(self) -> int:
        return len(self.f0)

    @property
    def voiced(self) -> Bools:
        return self.f0 > 0

    @property
    def loud(self) -> float:
        """The level of its loud parts, dB: the 98th percentile."""
        return float(np.percentile(self.level, 98)) if len(self.level) else -120.0

    def cut(self, start: int, stop: int) -> Frames:
        return Frames(self.f0[start:stop], self.bands[start:stop], self.level[start:stop])


def analyze(samples: NDArray[np.floating], rate: int, tell: Tell = lambda fraction: None) -> Frames:
    """The vocal taken apart, by pieces of 30 s. tell: is told the fraction done. Raises Unsingable: no voice in it."""
    x = resample(samples, rate, RATE)
    count = len(x) * 200 // RATE + 1
    step = round(FRAME_SECONDS * RATE)
    f0, bands = np.zeros(count), np.zeros((count, BANDS), np.float32)
    for start in range(0, count, PIECE_FRAMES):
        stop = min(start + PIECE_FRAMES, count)
        first = max(0, start - CONTEXT_FRAMES)
        part = np.ascontiguousarray(x[first * step : (stop + CONTEXT_FRAMES) * step], np.float64)
        found, power = f0_and_bands(np.pad(part, (0, max(0, RATE // 10 - len(part)))), F0_CEILING_HZ)
        f0[start:stop] = found[start - first : stop - first]
        bands[start:stop] = power[start - first : stop - first]
        tell(stop / count)
    level = level_db(x, count)
    loud = float(np.percentile(level, 98))
    if loud < -70:
        raise Unsingable("the vocal is silent")
    f0 = clean_f0(f0, level > loud - VOICING_GATE_DB)
    if not f0.any():
        raise Unsingable("nothing is sung in the vocal")
    return Frames(without_spikes(f0), bands, level)


def resample(samples: NDArray[np.floating], rate: int, to_rate: int) -> Float32:
    """Mono audio at `to_rate`, float32."""
    x = np.ascontiguousarray(samples, np.float32)
    if rate == to_rate:
        return x
    divisor = math.gcd(rate, to_rate)
    return np.asarray(resample_poly(x, to_rate // divisor, rate // divisor), np.float32)


def clean_f0(f0: Float64, audible: Bools) -> Float64:
    """F0 without what is too quiet or too short to be sung, short slips to the octave and short holes."""
    out = np.where(audible, f0, 0.0)
    for start, stop in runs(out > 0):
        if stop - start < SHORTEST_VOICING:
            out[start:stop] = 0.0
    for start, stop in runs(out > 0):
        _undo_octave_slips(out[start:stop])
    for start, stop in runs(out == 0):
        if start > 0 and stop < len(out) and stop - start <= LONGEST_HOLE:
            out[start:stop] = np.exp(np.linspace(math.log(out[start - 1]), math.log(out[stop]), stop - start + 2)[1:-1])
    return out


def without_spikes(f0: Float64) -> Float64:
    """F0 as the median over 45 ms, each voiced stretch by itself: what goes and returns faster is the tracker's error.

    Three in ten of the frames that are over 50 cents off are so. A vibrato loses 6 % of its depth.
    """
    out = f0.copy()
    for start, stop in runs(f0 > 0):
        out[start:stop] = median_filter(f0[start:stop], MEDIAN_FRAMES, mode="nearest")
    return out


def _undo_octave_slips(f0: Float64) -> None:
    """In place: a short stretch an octave from what is on both sides of it moves there."""
    logs = np.log2(f0)
    cuts = [0, *(np.flatnonzero(np.abs(np.diff(logs)) > 0.7) + 1).tolist(), len(f0)]
    for before, start, stop in zip(cuts, cuts[1:], cuts[2:], strict=False):
        if stop - start > LONGEST_SLIP or stop == len(f0) or start == before:
            continue
        jump = logs[start] - logs[start - 1]
        back = logs[stop] - logs[stop - 1]
        if abs(abs(jump) - 1) < 0.25 and abs(jump + back) < 0.4:
            f0[start:stop] *= 2.0 ** -round(jump)
            logs[start:stop] -= round(jump)


def f0_and_bands(samples: Float64, ceiling_hz: float, rough: bool = False) -> tuple[Float64, Float32]:
    """rough: by DIO, in a twentieth of the time that Harvest takes and with more mistakes."""
    track = pyworld.dio if rough else pyworld.harvest
    f0, times = track(samples, RATE, f0_floor=F0_FLOOR_HZ, f0_ceil=ceiling_hz, frame_period=FRAME_SECONDS * 1000)
    # Harvest finds an F0 in fricatives too; D4C tells them apart, and calls them noise in every band.
    noise = pyworld.d4c(samples, f0, times, RATE, fft_size=FFT_SIZE)[:, : FFT_SIZE // 8].min(axis=1)
    f0[noise > 0.9] = 0.0
    power = pyworld.cheaptrick(samples, f0, times, RATE, fft_size=FFT_SIZE)
    return f0, np.log(np.maximum(power @ _mel_bands(), 1e-14)).astype(np.float32)


@lru_cache(maxsize=1)
def _mel_bands() -> Float64:
    """(513, 32): column b averages the power under band b's triangle."""
    frequency = np.linspace(0, RATE / 2, FFT_SIZE // 2 + 1)
    mel = 2595 * np.log10(1 + frequency / 700)
    low, high = (2595 * math.log10(1 + f / 700) for f in BAND_RANGE_HZ)
    edges = np.linspace(low, high, BANDS + 2)
    weights = np.maximum(0, 1 - np.abs(mel[:, None] - edges[None, 1:-1]) / (edges[1] - edges[0]))
    return np.asarray(weights / np.maximum(weights.sum(axis=0), 1e-9))


def level_db(samples: Float32, count: int) -> Float64:
    """(count,) dB: root mean square of the 20 ms around each frame, at 16 kHz."""
    step = round(FRAME_SECONDS * RATE)
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    centre = np.arange(count) * step
    low, high = (np.clip(centre + d * step, 0, len(samples)) for d in (-2, 2))
    return 10 * np.log10((power[high] - power[low]) / np.maximum(high - low, step) + 1e-12)


def runs(mask: Bools) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return iter(list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)))


def closed(mask: Bools, holes: int) -> Bools:
    """The mask with its short holes filled."""
    out = mask.copy()
    for start, stop in runs(~mask):
        if start > 0 and stop < len(mask) and stop - start <= holes:
            out[start:stop] = True
    return out
