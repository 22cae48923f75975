"""What a recording sounds like, as numbers that survive re-encoding and cutting: landmarks of its spectrogram.

The method is A. Wang's ("An Industrial-Strength Audio Search Algorithm", 2003), with three peaks to a landmark instead
of two: where a peak lies in frequency, and how far two later ones are from it in time and frequency. A landmark depends
on a second and a half of sound and on nothing before or after it, so a part of a recording has that part's landmarks;
and hardly anything else has them, so that an index finds one recording among very many by a few of them. Samples are
float32 mono (n,), nominally within [-1, 1].
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import soxr
from numpy.typing import NDArray

SAMPLE_RATE = 11_025
FFT_SIZE, HOP = 1024, 256
FRAMES_PER_SECOND = SAMPLE_RATE / HOP
# A peak is the highest point within so many bins (of 10.8 Hz) and frames (of 23 ms) to each side.
NEAR_BINS, NEAR_FRAMES = 12, 4
# 60 dB below the loudest point within a second: what is softer is not the same after MP3.
FLOOR, FLOOR_FRAMES = 1e-3, 43
LOWEST_BIN = 3
# The other two peaks are of the first so many that follow within so many frames and bins.
NEIGHBOURS = 5
MIN_DISTANCE, MAX_DISTANCE, MAX_BINS = 2, 60, 96
# One landmark of so many is kept, told by its hash, and so the same ones in every recording: some 13 a second are left.
KEPT = 32
# A song's spectrogram is looked at in pieces, which bounds the memory.
PIECE_FRAMES = 4096

# One recording is part of another when so many landmarks lie in both at the same distance in time, in so many different
# seconds of any eight. bench/provenance.py tells how far speech in the same voice stays below, and MP3 above.
MIN_MATCHES, MIN_SECONDS, WINDOW_SECONDS = 6, 3, 8
# A cut recording's frames begin between those of the whole one: it is asked for with its start moved by so much.
SHIFTS = (0, 64, 128, 192)


def resampled(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    samples = np.ascontiguousarray(samples, np.float32)
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")


def landmarks(samples: NDArray[np.float32], rate: int) -> NDArray[np.int64]:
    """What is kept of a recording: int64 (k, 2), each row a hash of 32 bits and the frame it begins in."""
    return _landmarks(_peaks(resampled(samples, rate)))


def query(samples: NDArray[np.float32], rate: int) -> NDArray[np.int64]:
    """What is asked of a recording that may be cut and re-encoded: rows as those of `landmarks`, about four times as
    many."""
    samples = resampled(samples, rate)
    return np.concatenate([_landmarks(_peaks(samples[shift:])) for shift in SHIFTS])


def without(marks: NDArray[np.int64], *others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those landmarks whose hashes are in none of the others."""
    known = np.concatenate([other[:, 0] for other in others]) if others else np.zeros(0, np.int64)
    return marks[~np.isin(marks[:, 0], known)]


def matches(asked: NDArray[np.int64], found: Iterable[tuple[int, int, int]]) -> dict[int, tuple[int, int]]:
    """How well the recordings of an index fit a query.

    found: (recording, hash, frame) of every landmark of the index whose hash was asked for. Returns recording ->
    (landmarks, different seconds) in the eight seconds, and at the distance in time, that have most of them.
    """
    frames = defaultdict(list)
    for value, frame in asked.tolist():
        frames[value].append(frame)
    # recording -> distance in frames -> hash -> frame of the query
    aligned: dict[int, dict[int, dict[int, int]]] = defaultdict(lambda: defaultdict(dict))
    for recording, value, frame in found:
        for asked_frame in frames[value]:
            aligned[recording][frame - asked_frame][value] = asked_frame
    return {recording: _densest(distances) for recording, distances in aligned.items()}


def _densest(distances: dict[int, dict[int, int]]) -> tuple[int, int]:
    best = (0, 0)
    for distance in distances:
        near: dict[int, int] = {}
        for off in (-1, 1, 0):  # Rounding to frames puts some of them one off.
            near |= distances.get(distance + off, {})
        if len(near) < best[0]:
            continue
        seconds = sorted(int(frame / FRAMES_PER_SECOND) for frame in near.values())
        for first in range(len(seconds)):
            window = seconds[first : bisect_left(seconds, seconds[first] + WINDOW_SECONDS)]
            if len(window) >= best[0]:
                best = max(best, (len(window), len(set(window))))
    return best


def is_match(score: tuple[int, int], fewest: int = MIN_MATCHES) -> bool:
    return score[0] >= fewest and score[1] >= MIN_SECONDS


def _peaks(samples: NDArray[np.float32]) -> NDArray[np.int64]:
    """(k, 2): frame and bin of each peak, in order of time."""
    from scipy.ndimage import maximum_filter, maximum_filter1d  # which takes long to load

    if len(samples) < FFT_SIZE:
        return np.zeros((0, 2), np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(samples, FFT_SIZE)[::HOP]
    shape = np.hanning(FFT_SIZE).astype(np.float32)
    margin = FLOOR_FRAMES + NEAR_FRAMES
    found = []
    for start in range(0, len(windows), PIECE_FRAMES):
        first = max(0, start - margin)
        piece = windows[first : start + PIECE_FRAMES + margin]
        spectrum = np.abs(np.fft.rfft(piece * shape, axis=1)[:, : FFT_SIZE // 2]).astype(np.float32)
        highest = maximum_filter(spectrum, (2 * NEAR_FRAMES + 1, 2 * NEAR_BINS + 1), mode="constant")
        floor = FLOOR * maximum_filter1d(spectrum.max(axis=1), 2 * FLOOR_FRAMES + 1, mode="constant")
        peaks = np.argwhere((spectrum == highest) & (spectrum > floor[:, np.newaxis]))
        peaks[:, 0] += first
        inside = (peaks[:, 0] >= start) & (peaks[:, 0] < start + PIECE_FRAMES) & (peaks[:, 1] >= LOWEST_BIN)
        found.append(peaks[inside])
    return np.concatenate(found)


def _landmarks(peaks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every peak with each two of its neighbours, as hashes, thinned out."""
    frame, bin_ = peaks[:, 0], peaks[:, 1]
    count = len(peaks)
    # neighbour[k, i]: the k-th peak in the reach of peak i, or -1.
    neighbour = np.full((NEIGHBOURS, count), -1)
    filled = np.zeros(count, np.int64)
    for step in range(1, count):
        other = np.arange(step, count)
        base = other - step
        distance = frame[other] - frame[base]
        open_ = (distance < MAX_DISTANCE) & (filled[base] < NEIGHBOURS)
        if not open_.any():
            break
        fits = open_ & (distance >= MIN_DISTANCE) & (np.abs(bin_[other] - bin_[base]) < MAX_BINS)
        neighbour[filled[base[fits]], base[fits]] = other[fits]
        filled[base[fits]] += 1
    rows = [np.zeros((0, 2), np.int64)]
    for first in range(NEIGHBOURS):
        for second in range(first + 1, NEIGHBOURS):
            base = np.flatnonzero(neighbour[second] >= 0)
            one, two = neighbour[first, base], neighbour[second, base]
            mixed = np.zeros(len(base), np.uint64)
            for part in (
                bin_[base],
                bin_[one] - bin_[base] + MAX_BINS,
                frame[one] - frame[base],
                bin_[two] - bin_[base] + MAX_BINS,
                frame[two] - frame[base],
            ):
                mixed = (mixed + part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
                mixed ^= mixed >> np.uint64(29)
            mixed >>= np.uint64(16)
            kept = mixed % np.uint64(KEPT) == 0
            hashes = (mixed[kept] // np.uint64(KEPT)) & np.uint64(0xFFFFFFFF)
            rows.append(np.stack([hashes.astype(np.int64), frame[base[kept]]], axis=1))
    return np.unique(np.concatenate(rows), axis=0)
