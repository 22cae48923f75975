"""An aligned phrase synthesized by WORLD: the take's sounds on the singer's time, melody and dynamics."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyworld
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from .frames import (
    F0_FLOOR_HZ,
    FRAME_SECONDS,
    OUTPUT_RATE,
    SILENCE_GATE_DB,
    Bools,
    Float32,
    Float64,
    Frames,
    resample,
    runs,
)
from .windows import Window

SNAP_FRAMES = 12
BEND_FRAMES = 2.0
EDGE_FRAMES = 8  # of a held sound, that keep their rate

BETA = 0.85
BETA_UNVOICED = 0.3
LEVEL_RANGE_DB = 12.0
VOICING_REACH = 6
LONGEST_UNVOICED = 28


def time_map(window: Window, source: Frames) -> Float64:
    """For each sung frame of the window, the frame (a fraction) of the trimmed take that it is made from.

    The path is kept to 10 ms of speech at landmarks, and straight between them. A change of voicing that is sung
    within 60 ms is met exactly. In a held voiced sound the edges keep their rate.
    """
    spoken = window.spoken
    if spoken.path is None:
        raise ValueError("the phrase has not been aligned")
    path, said = spoken.path, spoken.frames
    count, states = len(path), len(said)
    sung_voiced = source.voiced[window.start : window.stop]
    turns: list[tuple[float, float]] = []
    sung_turns = np.flatnonzero(np.diff(sung_voiced.astype(np.int8))) + 1
    frames, centres = _centres(path)
    for turn in np.flatnonzero(np.diff(said.voiced.astype(np.int8))) + 1:
        if not path[0] < turn < path[-1]:
            continue
        at = float(np.interp(turn - 0.5, frames, centres))
        same = sung_turns[sung_voiced[sung_turns] == said.voiced[turn]]
        if len(same):
            nearest = int(same[np.argmin(np.abs(same - at))])
            if abs(nearest - at) <= SNAP_FRAMES:
                at = float(nearest)
        if 0 < at < count - 1 and (not turns or at > turns[-1][0]):
            turns.append((at, float(turn)))
    knots = [(0.0, float(path[0]))]
    bends = [(float(i), float(path[i])) for i in _bends(path)]
    # A change of voicing wins over the landmarks beside it.
    near = [(at, frame) for at, frame in bends if all(abs(at - t) > SNAP_FRAMES / 2 for t, _ in turns)]
    voicing = set(turns)
    for at, frame in sorted([*near, *turns]):
        if (at, frame) in voicing:
            while len(knots) > 1 and knots[-1] not in voicing and knots[-1][1] >= frame:
                knots.pop()
        if at > knots[-1][0] and knots[-1][1] <= frame <= path[-1]:
            knots.append((at, frame))
    if knots[-1][0] < count - 1:
        knots.append((float(count - 1), float(max(path[-1], knots[-1][1]))))
    sung, at_frames = _with_edges(knots, said.voiced)
    return np.clip(np.interp(np.arange(count), sung, at_frames), 0, states - 1)


def _centres(path: NDArray[np.intp]) -> tuple[Float64, Float64]:
    """The spoken frames on the path, and the middle of the sung frames of each."""
    frames, first, counts = np.unique(path, return_index=True, return_counts=True)
    return frames.astype(np.float64), first + (counts - 1) / 2


def _bends(path: NDArray[np.intp]) -> list[int]:
    """Sung frames at which straight lines have to bend to stay close to the path (Ramer, Douglas and Peucker)."""
    kept: list[int] = []
    open_ = [(0, len(path) - 1)]
    while open_:
        first, last = open_.pop()
        if last - first < 2:
            continue
        line = np.linspace(path[first], path[last], last - first + 1)
        away = np.abs(path[first : last + 1] - line)
        middle = int(np.argmax(away))
        if away[middle] > BEND_FRAMES:
            kept.append(first + middle)
            open_ += [(first, first + middle), (first + middle, last)]
    return sorted(kept)


def _with_edges(knots: list[tuple[float, float]], voiced: Bools) -> tuple[list[float], list[float]]:
    """The knots, and two more in each stretched voiced span: within 40 ms of its ends time runs as spoken."""
    at, frames = [knots[0][0]], [knots[0][1]]
    for (a, one), (b, two) in itertools.pairwise(knots):
        spoken, sung = two - one, b - a
        if spoken > 2 and sung > 1.3 * spoken and voiced[int(one) : int(two) + 1].mean() > 0.8:
            edge = min(float(EDGE_FRAMES), 0.3 * spoken)
            at += [a + edge, b - edge]
            frames += [one + edge, two - edge]
        at.append(b)
        frames.append(two)
    return at, frames


def render(window: Window, source: Frames, semitones: float, times: Float64 | None = None) -> tuple[Float32, int]:
    """The phrase, sung: (samples (n,), their rate), from the window's first frame to its last one.

    The melody is the source's moved by `semitones`, the dynamics are the source's, the sounds the take's.
    times: another map than `time_map`, in its form.
    """
    take, rate = window.spoken.take, window.spoken.take.rate
    x = np.ascontiguousarray(take.samples, np.float64)
    said = window.spoken.frames
    # F0 of the analysis at 16 kHz serves here as well.
    f0 = np.zeros(len(x) * 200 // rate + 1)
    f0[window.spoken.start : window.spoken.start + len(said)] = said.f0[: max(0, len(f0) - window.spoken.start)]
    moments = np.arange(len(f0)) * FRAME_SECONDS
    size = pyworld.get_cheaptrick_fft_size(rate, F0_FLOOR_HZ)
    cut = slice(window.spoken.start, window.spoken.start + len(said))
    envelope = np.log(np.maximum(pyworld.cheaptrick(x, f0, moments, rate, fft_size=size)[cut], 1e-14)).astype(
        np.float32
    )
    noise = pyworld.d4c(x, f0, moments, rate, fft_size=size)[cut].astype(np.float32)

    sung = source.cut(window.start, window.stop)
    at = time_map(window, source) if times is None else times
    at = _with_short_consonants(at, said.voiced, sung.voiced)
    at = np.minimum(at, len(envelope) - 1)
    below = at.astype(np.intp)
    above = np.minimum(below + 1, len(envelope) - 1)
    share = (at - below).astype(np.float32)[:, None]
    voiced = said.voiced[np.minimum(np.round(at).astype(np.intp), len(said) - 1)]
    # Between a voiced frame and an unvoiced one the nearer one stands, lest noise creep into the vowel.
    turn = said.voiced[below] != said.voiced[above]
    share[turn] = np.round(share[turn])
    envelope = envelope[below] * (1 - share) + envelope[above] * share
    noise = noise[below] * (1 - share) + noise[above] * share

    melody, near = _held_f0(source, window)
    voiced = voiced & near
    new_f0 = np.where(voiced, melody * 2 ** (semitones / 12), 0.0)
    new_f0[new_f0 > rate / 4] = 0.0
    gain = _gain_db(sung, said, at, voiced, source.loud)
    envelope += (gain * (math.log(10) / 10)).astype(np.float32)[:, None]
    noise[~voiced] = 1.0
    out = pyworld.synthesize(
        new_f0, np.exp(envelope.astype(np.float64)), noise.astype(np.float64), rate, FRAME_SECONDS * 1000
    )
    return out.astype(np.float32), rate


def _held_f0(source: Frames, window: Window) -> tuple[Float64, Bools]:
    """(F0 of the window in Hz, held where it is unvoiced; whether sung voicing is within 30 ms)."""
    first, last = max(0, window.start - VOICING_REACH), window.stop + VOICING_REACH
    f0 = source.f0[first:last]
    voiced = np.flatnonzero(f0 > 0)
    index = np.arange(len(f0))
    right = np.clip(np.searchsorted(voiced, index), 0, len(voiced) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(voiced[left] - index) <= np.abs(voiced[right] - index), voiced[left], voiced[right])
    cut = slice(window.start - first, window.start - first + window.stop - window.start)
    return f0[nearest][cut], (np.abs(nearest - index) <= VOICING_REACH)[cut]


def _with_short_consonants(at: Float64, said_voiced: Bools, sung_voiced: Bools) -> Float64:
    """An unvoiced sound that would fill more than 140 ms of a sung note gives the note's beginning to what was before.

    Its last 140 ms stay, for a consonant belongs to the vowel that follows; the vowel before it is held longer.
    """
    out = at.copy()
    unvoiced = ~said_voiced[np.round(at).astype(np.intp)]
    for start, stop in runs(unvoiced & sung_voiced):
        extra = stop - start - LONGEST_UNVOICED
        if extra <= 0:
            continue
        before, after = out[start - 1] if start else None, out[stop] if stop < len(out) else None
        first, last = out[start], out[stop - 1]
        if before is not None and not unvoiced[start - 1]:
            out[start : start + extra] = before
            out[start + extra : stop] = np.linspace(first, last, stop - start - extra)
        elif after is not None and not unvoiced[stop]:
            out[stop - extra : stop] = after
            out[start : stop - extra] = np.linspace(first, last, stop - start - extra)
    return out


def _gain_db(sung: Frames, said: Frames, at: Float64, voiced: Bools, loud: float) -> Float64:
    """(n,) dB that bring the take's level to the singer's, as far as dynamics go, and to nothing where none is sung."""
    own = np.interp(at, np.arange(len(said)), said.level)
    offset = float(np.median((sung.level - own)[voiced])) if voiced.any() else 0.0
    wanted = uniform_filter1d(sung.level - own - offset, 5)
    gain = np.clip(np.where(voiced, BETA, BETA_UNVOICED) * wanted, -LEVEL_RANGE_DB, LEVEL_RANGE_DB)
    gain = gaussian_filter1d(gain, 1.5)
    gate = np.clip((loud - SILENCE_GATE_DB - sung.level) / 6, 0, 1)
    return gain - 60.0 * uniform_filter1d(gate, 5)


def place(out: Float32, window: Window, samples: Float32, rate: int, source_rms: float) -> None:
    """Writes a rendered phrase into `out` (44.1 kHz, the whole vocal), as loud as `source_rms` over its window."""
    start = round(window.start * FRAME_SECONDS * OUTPUT_RATE)
    length = min(round((window.stop - window.start) * FRAME_SECONDS * OUTPUT_RATE), len(out) - start)
    piece = resample(samples, rate, OUTPUT_RATE)[:length].copy()
    fade = min(round(0.008 * OUTPUT_RATE), len(piece) // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        piece[:fade] *= ramp
        piece[-fade:] *= ramp[::-1]
    rms = float(np.sqrt(np.sum(np.square(piece, dtype=np.float64)) / max(1, length)))
    if rms > 0:
        piece *= source_rms / rms
    out[start : start + len(piece)] += piece
