"""A song's spectrogram: its frames, what repeats in it, and what lies on a singer's partials.

Frames are of 4096 points every 1024 at 44.1 kHz, square-root Hann window. Some functions also take every second frame
and the lowest bins only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from common.audio import RATE

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]

FFT = 4096
HOP = 1024
SIMILAR_FRAMES = 20
NOT_NEARER_SECONDS = 1.0  # repetitions are looked for at least so far away
APART_SECONDS = 0.8  # and so far from each other, lest all of them are one moment
COMB_SHARE = 0.85

PARTIALS = 12
F0_GRID_HZ = 90 * 2 ** (np.arange(0, 1200 * np.log2(700 / 90), 20) / 1200)
BIN_HZ = np.arange(FFT // 2 + 1) * RATE / FFT
WINDOW = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
EPSILON = 1e-9


def stft(samples: Float32, threads: int = 1, hop: int = HOP) -> Complex64:
    """(n,) -> (frames, 2049)."""
    padded = np.pad(samples, (FFT, FFT + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::hop]
    return rfft(frames * WINDOW, axis=1, workers=threads)


def istft(spectrum: Complex64, length: int, threads: int = 1) -> Float32:
    """The inverse of `stft`: (frames, 2049) -> (length,)."""
    frames = irfft(spectrum, axis=1, workers=threads) * WINDOW
    steps = FFT // HOP
    out = np.zeros((len(frames) + steps, HOP), np.float32)
    for step in range(steps):
        out[step : step + len(frames)] += frames[:, step * HOP : (step + 1) * HOP]
    gain = (WINDOW**2).reshape(steps, HOP).sum(axis=0)
    return (out / gain).reshape(-1)[FFT : FFT + length]


def repeating_magnitude(magnitude: Float32, hop: int, tell: Callable[[float], None] = lambda _: None) -> Float32:
    """The part of a spectrogram (frames, bins) that recurs: per frame the median of up to 20 frames that sound alike.

    Frames are compared by the cosine of their square-rooted magnitudes.
    """
    features = np.sqrt(magnitude)
    features /= np.linalg.norm(features, axis=1, keepdims=True) + EPSILON
    likeness = features @ features.T
    del features
    gap, apart = round(NOT_NEARER_SECONDS * RATE / hop), round(APART_SECONDS * RATE / hop)
    out = magnitude.copy()
    count = len(magnitude)
    for frame in range(count):
        free = np.ones(count, bool)
        free[max(0, frame - gap) : frame + gap + 1] = False
        alike: list[int] = []
        for candidate in np.argsort(-likeness[frame]).tolist():
            if free[candidate]:
                alike.append(candidate)
                free[max(0, candidate - apart) : candidate + apart + 1] = False
                if len(alike) == SIMILAR_FRAMES:
                    break
        if alike:
            np.minimum(magnitude[frame], _median(magnitude[alike]), out=out[frame])
        elif count > 1:
            out[frame] = 0
        if frame % 64 == 0:
            tell(frame / count)
    return out


def _median(rows: Float32) -> Float32:
    """np.median(rows, axis=0), which takes four times as long: it sorts without SIMD."""
    ordered = np.sort(rows, axis=0)
    middle = len(rows) // 2
    return ordered[middle] if len(rows) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def comb_mask(mask: Float32, magnitude: Float32) -> Float32:
    """Gives the bins on the singer's partials more of the mask, and those between them less: (frames, bins) each.

    The lowest bins alone will do.
    """
    salience = harmonic_salience(np.sqrt(magnitude * mask))
    path = viterbi(salience)
    strength = salience[np.arange(len(path)), path]
    sure = np.clip(strength / (0.5 * np.percentile(strength, 90) + EPSILON), 0, 1)[:, None].astype(np.float32)
    f0 = F0_GRID_HZ[path][:, None]
    hz = BIN_HZ[: mask.shape[1]]
    nearest = np.maximum(np.round(hz / f0), 1) * f0
    comb = np.exp(-0.5 * ((hz - nearest) / (15 + 0.004 * hz)) ** 2).astype(np.float32)
    refined = comb * sure * np.sqrt(mask) + (1 - comb) * 0.35 * mask
    return (1 - COMB_SHARE) * mask + COMB_SHARE * refined


def harmonic_salience(spectrum: Float32) -> Float32:
    """(frames, bins) -> (frames, F0 candidates): energy at 12 partials less half of that between them."""
    salience = np.zeros((len(spectrum), len(F0_GRID_HZ)), np.float32)
    for partial in range(1, PARTIALS + 1):
        for place, weight in ((partial, 1.0), (partial - 0.5, -0.5)):
            position = place * F0_GRID_HZ * FFT / RATE
            low = position.astype(int)
            share = (position - low).astype(np.float32)
            low = np.minimum(low, spectrum.shape[1] - 2)
            at = spectrum[:, low] * (1 - share) + spectrum[:, low + 1] * share
            salience += np.float32(weight * 0.9 ** (partial - 1)) * at
    return salience


def viterbi(salience: Float32, reach: int = 12, step_cost: float = 0.125, leap_cost: float = 4.0) -> NDArray[np.intp]:
    """The smoothest strong path through (frames, candidates): a candidate a frame. All leaps cost the same."""
    scores = salience / (salience.std() + EPSILON)
    frames, candidates = scores.shape
    steps = np.arange(-reach, reach + 1)
    cost = step_cost * np.abs(steps)
    came_from = np.zeros((frames, candidates), np.intp)
    total = scores[0].astype(np.float64)
    own = np.arange(candidates)
    for frame in range(1, frames):
        padded = np.pad(total, reach, constant_values=-1e18)
        options = np.lib.stride_tricks.sliding_window_view(padded, len(steps)) - cost
        choice = options.argmax(axis=1)
        best, source = options[own, choice], own + choice - reach
        top = int(total.argmax())
        leap = total[top] - leap_cost > best
        came_from[frame] = np.where(leap, top, source)
        total = np.where(leap, total[top] - leap_cost, best) + scores[frame]
    path = np.empty(frames, np.intp)
    path[-1] = total.argmax()
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path
