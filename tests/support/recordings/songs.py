"""Small songs that anyone may use: base speech put on a melody with WORLD, over a band of plain oscillators.

Everything is float: mono (n,), stereo (n, 2), -1..1, at `RATE` unless a rate is named. A seed gives the same audio.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyloudnorm
import pyworld
import soxr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, fftconvolve, sosfilt

Audio = NDArray[np.float64]

RATE = 44100
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)
LINES = (
    "Over the hills the morning comes, and all the water turns to gold.",
    "I will remember every word we said before the world grew old.",
    "Follow the river down to the sea, where nobody knows your name.",
    "Light up the window, open the door, and nothing will be the same.",
)


@lru_cache(maxsize=8)
def speech(text: str, seed: int = 1) -> Audio:
    """The English base voice saying `text`: mono, 24 kHz."""
    return np.asarray(_hibari()(text, seed=seed), np.float64)


@lru_cache(maxsize=1)
def _hibari() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


def other_speaker(samples: Audio, sample_rate: int, *, pitch: float = 0.58, tract: float = 1.2) -> Audio:
    """The same words from another throat: F0 times `pitch`, formants divided by `tract` (WORLD)."""
    x = np.ascontiguousarray(samples, np.float64)
    f0, times = pyworld.harvest(x, sample_rate)
    spectrum = pyworld.cheaptrick(x, f0, times, sample_rate)
    aperiodicity = pyworld.d4c(x, f0, times, sample_rate)
    bins = np.arange(spectrum.shape[1], dtype=np.float64)
    source = np.minimum(bins * tract, bins[-1])
    below = source.astype(int)
    above = np.minimum(below + 1, len(bins) - 1)
    share = source - below
    logs = np.log(spectrum)
    warped = np.exp(logs[:, below] * (1 - share) + logs[:, above] * share)
    out = pyworld.synthesize(f0 * pitch, np.ascontiguousarray(warped), aperiodicity, sample_rate)[: len(x)]
    return out * (np.sqrt(np.mean(x**2)) / np.sqrt(np.mean(out**2)))


def melody(seconds: float, root_hz: float, seed: int, step: float = 0.005) -> Audio:
    """F0 in Hz every `step` seconds: notes of a major scale of 0.3-0.7 s, small glides, vibrato."""
    rng = np.random.default_rng(seed)
    frames = int(np.ceil(seconds / step)) + 1
    semitones = np.zeros(frames)
    at, degree = 0, 2
    while at < frames:
        length = int(rng.uniform(0.3, 0.7) / step)
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, len(MAJOR) - 1))
        semitones[at : at + length] = MAJOR[degree]
        at += length
    semitones = gaussian_filter1d(semitones, 4)
    vibrato = 0.35 * np.sin(2 * np.pi * 5.5 * step * np.arange(frames))
    return root_hz * 2 ** ((semitones + vibrato) / 12)


def sing(samples: Audio, sample_rate: int, seed: int, *, stretch: float = 1.6, root_hz: float | None = None) -> Audio:
    """Speech, `stretch` times as long and on a melody: mono at `RATE`. By default around the voice's own median."""
    x = np.ascontiguousarray(samples, np.float64)
    f0, times = pyworld.harvest(x, sample_rate)
    spectrum = pyworld.cheaptrick(x, f0, times, sample_rate)
    aperiodicity = pyworld.d4c(x, f0, times, sample_rate)
    index = np.clip((np.arange(int(len(f0) * stretch)) / stretch).round().astype(int), 0, len(f0) - 1)
    root = float(np.median(f0[f0 > 0])) * 0.94 if root_hz is None else root_hz
    notes = melody(len(index) * 0.005, root, seed)[: len(index)]
    sung = pyworld.synthesize(
        np.where(f0[index] > 0, notes, 0.0),
        np.ascontiguousarray(spectrum[index]),
        np.ascontiguousarray(aperiodicity[index]),
        sample_rate,
    )
    return np.asarray(soxr.resample(sung, sample_rate, RATE), np.float64)


def room(mono: Audio, seed: int = 5, wet: float = 0.12, seconds: float = 0.35) -> Audio:
    """A centred voice in a small stereo room: (n, 2), as long as `mono`."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    decay = np.exp(-6.9 * np.arange(n) / n)[:, None] * rng.standard_normal((n, 2))
    decay *= wet / np.sqrt(np.sum(decay**2, axis=0))
    decay[: int(0.012 * RATE)] = 0
    return np.stack([mono + fftconvolve(mono, decay[:, side])[: len(mono)] for side in (0, 1)], axis=1)


def _note(hz: float, seconds: float, partials: tuple[float, ...], decay: float) -> Audio:
    t = np.arange(int(seconds * RATE)) / RATE
    tone = sum(a * np.sin(2 * np.pi * hz * (i + 1) * t) for i, a in enumerate(partials) if hz * (i + 1) < RATE / 2.2)
    return np.asarray(tone * np.exp(-t * decay) * np.minimum(1, t / 0.006) * np.minimum(1, (t[-1] - t) / 0.02))


def band(seconds: float, seed: int = 3, root_hz: float = 110.0) -> Audio:
    """Bass, two panned chord parts, an arpeggio and drums over four chords: (n, 2)."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    out = np.zeros((n + 4 * RATE, 2))
    beat = 0.5
    hat_shape = sosfilt(butter(2, 7000, "highpass", fs=RATE, output="sos"), rng.standard_normal(int(0.08 * RATE)))
    hat = hat_shape * np.exp(-np.arange(len(hat_shape)) / RATE * 60)
    snare = rng.standard_normal(int(0.2 * RATE)) * np.exp(-np.arange(int(0.2 * RATE)) / RATE * 22)
    t = np.arange(int(0.25 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (50 * t + 6 * (1 - np.exp(-t * 30)))) * np.exp(-t * 14)

    def add(part: Audio, at: float, gain: float, pan: float) -> None:
        start = int(at * RATE)
        stop = min(start + len(part), len(out))
        sides = np.array([np.cos((pan + 1) * np.pi / 4), np.sin((pan + 1) * np.pi / 4)])
        out[start:stop] += gain * part[: stop - start, None] * sides

    for b in range(int(np.ceil(seconds / beat))):
        at = b * beat
        chord = ((0, 4, 7), (-3, 0, 4), (5, 9, 12), (7, 11, 14))[(b // 4) % 4]
        add(_note(root_hz / 2 * 2 ** (chord[0] / 12), beat, (1, 0.5, 0.2), 3), at, 0.5, 0.0)
        add(kick if b % 2 == 0 else snare * 0.4, at, 0.6, 0.0)
        for half in (0.0, 0.25):
            add(hat, at + half, 0.12, 0.35)
        if b % 4 == 0:
            for semitone in chord:
                partials = (1, 0.6, 0.4, 0.3, 0.2, 0.15)
                add(_note(root_hz * 2 ** (semitone / 12), 4 * beat, partials, 0.5), at, 0.16, -0.7)
                add(_note(root_hz * 2.004 * 2 ** (semitone / 12), 4 * beat, partials, 0.7), at, 0.12, 0.7)
        for half in (0, 1):
            picked = chord[(2 * b + half) % 3] + 24
            add(_note(root_hz * 2 ** (picked / 12), 0.4, (1, 0.3, 0.3, 0.1), 6), at + half * 0.25, 0.14, 0.5)
    return out[:n] * 0.5


def at_loudness(samples: Audio, lufs: float, rate: int = RATE) -> Audio:
    """The audio brought to `lufs` (BS.1770)."""
    return samples * 10 ** ((lufs - pyloudnorm.Meter(rate).integrated_loudness(samples)) / 20)


@lru_cache(maxsize=4)
def song(seconds: float = 12.0, seed: int = 1) -> tuple[Audio, Audio, Audio]:
    """(mix, vocal, accompaniment), each (n, 2), both parts at -20 LUFS, the mix under full scale."""
    spoken = np.concatenate([speech(line) for line in LINES])
    needed = int(seconds / 1.6 * 24000)
    spoken = np.tile(spoken, needed // len(spoken) + 1)[:needed]
    vocal = at_loudness(room(sing(spoken, 24000, seed)), -20)
    n = min(len(vocal), int(seconds * RATE))
    backing = at_loudness(band(seconds + 1, seed + 2), -20)[:n]
    vocal = vocal[:n]
    scale = min(1.0, 0.98 / np.max(np.abs(vocal + backing)))
    return (vocal + backing) * scale, vocal * scale, backing * scale


def sdr(reference: Audio, estimate: Audio) -> float:
    """Signal to distortion ratio in dB: energy of the reference over energy of the difference."""
    return float(10 * np.log10(np.sum(reference**2) / (np.sum((reference - estimate) ** 2) + 1e-20)))


def leftover_db(vocal: Audio, got: Audio) -> float:
    """How much of the true `vocal` is missing in the separated one, and so stays in the accompaniment: dB of its own
    level, by its share in the difference; both (n, 2)."""
    share = np.sum((vocal - got) * vocal) / np.sum(vocal**2)
    return float(20 * np.log10(abs(share) + 1e-4))


def pitch_track(samples: Audio, sample_rate: int) -> Audio:
    """Harvest F0 in Hz every 5 ms, 0 where unvoiced."""
    return np.asarray(pyworld.harvest(np.ascontiguousarray(samples, np.float64), sample_rate)[0])
