"""Singing conversion: the melody and the words of a song, in the voice of a reference.

The parts of speech conversion (world.py, conversion.py) with four differences: F0 is that of melody.py and is only
moved by semitones, statistics and pairs are those of the song itself, the breathiness of the singer stays, and all is
done in pieces so that the length of a song costs little memory. WORLD works at 24 kHz; what the song has above that
stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyworld
import soxr
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import firwin, oaconvolve

from . import conversion, melody, world
from .conversion import Frames, Statistics
from .melody import FRAME
from .world import Analysis, Float32, Float64

PIECE_FRAMES = 6000  # 30 s
FADE_FRAMES = 8
SEEK_FRAMES = 1600  # how far before the end of a piece a quiet place to cut is looked for
PAIR_FRAMES = 9000  # 45 s of singing are paired with the reference; more is no better
BETA = 0.8  # 1 moves the timbre a little further, and loses more of the words and of the dynamics
HIGH_BAND_HZ = 11500.0
SILENCE_RMS = 10 ** (-70 / 20)
GATE_DB = 65.0  # further under the loud parts than this there is nothing to sing
MAX_LEVEL_STEP = 4.0
MIN_VOICED_FRAMES = 40

Tell = Callable[[float], None]


class NoVoice(ValueError):
    """There is nothing voiced to work with: `what` is `song` or `reference`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no voice could be found in the {what}")
        self.what = what


@dataclass(frozen=True)
class Target:
    """The voice of the reference: its statistics and frames."""

    statistics: Statistics
    frames: Frames


def prepare(samples: NDArray[np.float32], sample_rate: int) -> Target:
    """What the reference sounds like: float32 mono (n,), -1..1, up to a minute. Raises NoVoice."""
    x = world.resample(samples, sample_rate)
    count = max(1, round(len(x) / (15 * world.SAMPLE_RATE)))
    if len(x) < world.SAMPLE_RATE // 4 or _rms(x) < SILENCE_RMS:
        raise NoVoice("reference")
    analyses = [world.analyze(part) for part in np.array_split(x, count)]
    if sum(int((a.active & a.voiced).sum()) for a in analyses) < MIN_VOICED_FRAMES:
        raise NoVoice("reference")
    statistics = conversion.measure(analyses, world.bandwidth(x))
    return Target(statistics, conversion.active_frames(analyses, statistics))


def convert(
    vocal: NDArray[np.float32], sample_rate: int, target: Target, semitones: float, tell: Tell = lambda fraction: None
) -> Float32:
    """`vocal`, float32 mono (n,) at any rate from 24 kHz, sung by `target`: float32 (n,) at the same rate.

    semitones moves the melody and leaves the formants. `tell` is called with the fraction done. Raises NoVoice.
    """
    low = world.resample(vocal, sample_rate).astype(np.float32)
    if len(low) < world.SAMPLE_RATE // 20 or _rms(low) < SILENCE_RMS:
        raise NoVoice("song")
    song = _analyze(low, lambda fraction: tell(0.55 * fraction))
    if int((song.active & song.voiced).sum()) < MIN_VOICED_FRAMES:
        raise NoVoice("song")
    difference = _difference(song, target)
    tell(0.65)
    f0 = song.f0 * 2 ** (semitones / 12)
    out = _synthesize(low, song, f0, difference, target.statistics.bandwidth, lambda f: tell(0.65 + 0.3 * f))
    del difference
    out = _follow_level(out, low, song.level)
    full = np.asarray(soxr.resample(out, world.SAMPLE_RATE, sample_rate), np.float32)
    full = np.pad(full, (0, max(0, len(vocal) - len(full))))[: len(vocal)]
    if sample_rate > 2 * HIGH_BAND_HZ:
        full += _above(np.asarray(vocal, np.float32), sample_rate)
    tell(1.0)
    return full


def _analyze(samples: Float32, tell: Tell) -> Analysis:
    """F0, cepstra and activity of the whole song, by pieces. The big matrix is left empty: see _synthesize."""
    count = len(samples) // FRAME + 1
    f0 = melody.track(samples, lambda fraction: tell(0.7 * fraction))
    cepstrum = np.zeros((count, world.CEPSTRUM_SIZE), np.float32)
    energy = np.zeros(count)
    for start in range(0, count, PIECE_FRAMES // 2):
        stop = min(start + PIECE_FRAMES // 2, count)
        part, offset = melody.excerpt(samples, start, stop)
        found = _around(f0, start - offset, len(part) // FRAME + 1)
        times = np.arange(len(found)) * world.FRAME_SECONDS
        power = pyworld.cheaptrick(part, found, times, world.SAMPLE_RATE, fft_size=world.FFT_SIZE)
        log_spectrum = np.log(np.maximum(power[offset : offset + stop - start], world.LOG_FLOOR)).astype(np.float32)
        cepstrum[start:stop] = world.mel_cepstrum(log_spectrum)
        energy[start:stop] = power[offset : offset + stop - start].mean(axis=1)
        tell(0.7 + 0.3 * stop / count)
    level_db = 10 * np.log10(np.maximum(energy, world.LOG_FLOOR))
    active = level_db > np.percentile(level_db[level_db > level_db.max() - 60], 95) - world.ACTIVE_RANGE_DB
    return Analysis(
        f0=f0,
        log_spectrum=np.zeros((count, 0), np.float32),
        cepstrum=cepstrum,
        active=active,
        sample_count=len(samples),
        level=_rms(samples),
    )


def _difference(song: Analysis, target: Target) -> Float32:
    """How far each frame's cepstrum has to move: (frames, 40). The loudness, c0, stays."""
    source = conversion.measure([song])
    frames = conversion.active_frames([song], source)
    kept = np.linspace(0, len(frames) - 1, min(len(frames), PAIR_FRAMES)).astype(int)
    some = Frames(frames.cepstrum[kept], frames.voiced[kept], frames.match[kept])
    pairs = conversion.pair_unaligned(some, target.frames)
    voiced = song.voiced & song.active
    return conversion.convert_cepstrum(song.cepstrum, voiced, source, target.statistics, pairs, BETA) - song.cepstrum


def _synthesize(
    samples: Float32, song: Analysis, f0: Float64, difference: Float32, bandwidth: float, tell: Tell
) -> Float32:
    """The song again, its spectrum filtered by `difference` and its F0 replaced: float32 at 24 kHz, as long.

    Pieces are cut where the song is quiet: WORLD starts each with a phase of its own, and cross-fading two of them in
    the middle of a note would thin it out.
    """
    out = np.zeros(len(samples), np.float32)
    count = len(song)
    start = 0
    while start < count:
        stop = _quiet_cut(song, start)
        first, last = max(0, start - FADE_FRAMES), min(stop + FADE_FRAMES, count)
        part, offset = melody.excerpt(samples, first, last)
        begin = first - offset
        frames = len(part) // FRAME + 1
        own_f0 = _around(song.f0, begin, frames)
        times = np.arange(frames) * world.FRAME_SECONDS
        power = pyworld.cheaptrick(part, own_f0, times, world.SAMPLE_RATE, fft_size=world.FFT_SIZE)
        log_spectrum = np.log(np.maximum(power, world.LOG_FLOOR)).astype(np.float32)
        del power
        aperiodicity = pyworld.d4c(part, own_f0, times, world.SAMPLE_RATE, fft_size=world.FFT_SIZE).astype(np.float32)
        gain = conversion.differential_filter(difference[begin : begin + frames], bandwidth)
        log_spectrum[: len(gain)] += gain
        sung = world.synthesize(_around(f0, begin, frames), log_spectrum, aperiodicity, len(part))
        del log_spectrum, aperiodicity, gain
        at, end = first * FRAME, min(last * FRAME, len(samples))
        piece = sung[offset * FRAME : offset * FRAME + end - at]
        fade = 2 * FADE_FRAMES * FRAME
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
        if start > 0:
            piece[:fade] *= ramp[: len(piece)]
        if stop < count:
            piece[-fade:] *= ramp[::-1][-len(piece) :]
        out[at:end] += piece.astype(np.float32)
        start = stop
        tell(start / count)
    return out


def _quiet_cut(song: Analysis, start: int) -> int:
    """The frame at which a piece from `start` ends: the quietest place in the last seconds of 30."""
    stop = start + PIECE_FRAMES
    if stop + SEEK_FRAMES >= len(song):
        return len(song) if stop >= len(song) else _quietest(song, stop - SEEK_FRAMES, stop)
    return _quietest(song, stop - SEEK_FRAMES, stop)


def _quietest(song: Analysis, start: int, stop: int) -> int:
    loudness = song.cepstrum[start:stop, 0] + 5 * song.voiced[start:stop]
    return start + int(np.argmin(uniform_filter1d(loudness, 2 * FADE_FRAMES, mode="nearest")))


def _around(f0: Float64, begin: int, count: int) -> Float64:
    """(count,) from frame `begin` on, 0 behind the end."""
    part = f0[begin : begin + count]
    return np.pad(part, (0, count - len(part)))


def _follow_level(samples: Float32, original: Float32, level: float) -> Float32:
    """Gives each moment the loudness it had, within 12 dB, and silence where there was silence."""
    width = 8 * FRAME
    # The running sum of uniform_filter1d may come out a hair under zero where silence follows sound.
    powers = [np.maximum(uniform_filter1d(np.square(x), width, mode="nearest"), 0) for x in (samples, original)]
    own, wanted = np.sqrt(powers[0]), np.sqrt(powers[1])
    floor = level * 10 ** (-GATE_DB / 20)
    gain = np.clip((wanted + floor) / (own + floor), 1 / MAX_LEVEL_STEP, MAX_LEVEL_STEP)
    gain *= np.clip(2 * wanted / floor - 1, 0, 1)
    return samples * uniform_filter1d(gain, width // 2, mode="nearest")


def _above(samples: Float32, sample_rate: int) -> Float32:
    """What is above the band of WORLD, in phase with the input."""
    taps = firwin(255, HIGH_BAND_HZ, fs=sample_rate, pass_zero=False).astype(np.float32)
    return oaconvolve(samples, taps, mode="same").astype(np.float32)


def _rms(samples: NDArray[np.float32] | NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
