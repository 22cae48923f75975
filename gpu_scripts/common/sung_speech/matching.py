"""How alike sung and spoken frames are, and the cheapest way through the spoken ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from .frames import Bools, Float32

CEPSTRA = 11
LIFTER = 0.3
HOLD_FRAMES = 9  # of speech, that have to fit a held sound together
HOLD_FLUX = 1.5  # times the median: from there on nothing is held


@dataclass(frozen=True)
class Features:
    """What frames are compared by: cepstra (n, 11), their deltas, level in tens of dB under the loud parts."""

    cepstra: Float32
    delta: Float32
    level: Float32
    delta_level: Float32
    voiced: Bools
    flux: Float32


def cepstra_of(bands: Float32) -> Float32:
    return np.asarray(scipy.fft.dct(bands, axis=1, norm="ortho")[:, 1 : CEPSTRA + 1], np.float32)


def lifter() -> Float32:
    return (1 / (1 + LIFTER * np.arange(1, CEPSTRA + 1))).astype(np.float32)


def delta(values: Float32) -> Float32:
    """Slope over 5 frames, scaled to be about as large as the values."""
    padded = np.pad(values, [(2, 2)] + [(0, 0)] * (values.ndim - 1), mode="edge")
    slope = 2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]
    return np.asarray(slope / 4, np.float32)


def steadied(local: Float32, sung: Features) -> Float32:
    """Costs (n, m) in which steady voiced sung frames pay for the 45 ms around a spoken frame, not for it alone."""
    change = gaussian_filter1d(sung.flux, 1.0) / (np.median(sung.flux) + 1e-6)
    share = (np.clip(HOLD_FLUX - change, 0, 1) * sung.voiced).astype(np.float32)[:, None]
    around = uniform_filter1d(local, HOLD_FRAMES, axis=1, mode="nearest")
    return np.asarray((1 - share) * local + share * around, np.float32)


def distance(one: Float32, two: Float32) -> Float32:
    """(n, m): Euclidean distances of rows."""
    squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1) - 2 * (one @ two.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def viterbi(local: Float32, stay: Float32, skip: float, end: float) -> tuple[float, NDArray[np.intp]]:
    """The cheapest monotone path through local (n, m), advancing 0 to 3 columns a row: (mean cost, columns (n,))."""
    count, states = local.shape
    ahead = np.arange(states, dtype=np.float32) * np.float32(end)
    total = local[0] + ahead
    moves = np.zeros((count, states), np.uint8)
    options = np.full((4, states), np.inf, np.float32)
    for i in range(1, count):
        np.add(total, stay, out=options[0])
        options[1, 1:] = total[:-1]
        options[2, 2:] = total[:-2] + np.float32(skip)
        options[3, 3:] = total[:-3] + np.float32(2 * skip)
        best = options.argmin(axis=0)
        moves[i] = best
        total = options[best, np.arange(states)] + local[i]
    total = total + ahead[::-1]
    path = np.empty(count, np.intp)
    path[-1] = int(np.argmin(total))
    cost = float(total[path[-1]]) / count
    for i in range(count - 1, 0, -1):
        path[i - 1] = path[i] - moves[i, path[i]]
    return cost, path
