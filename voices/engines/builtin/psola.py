"""Speech filtered and given another melody in its own waveform, pitch period by pitch period, without a vocoder.

TD-PSOLA (E. Moulines and F. Charpentier, "Pitch-synchronous waveform processing techniques for text-to-speech synthesis
using diphones", Speech Communication 9, 1990): the waveform is cut into grains around one mark in each period, and the
grains are added up again at the distances of the new pitch. Here each grain also passes a zero-phase filter. Grains
reach from the mark before to the mark after, so that speech whose pitch and filter stay comes out as it went in.

A vocoder would make the sound anew from pulses and noise, which is heard as a buzz. What this cannot change is how
breathy the voice is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from . import world
from .world import Float32, Float64

HOP = round(world.FRAME_SECONDS * world.SAMPLE_RATE)
FFT_SIZE = 2048  # a grain of 60 Hz has 800 samples; the rest is room for what the filter rings
BATCH = 256
SEARCH = 0.15  # of a period: how far a mark may be from where the last one expects it
PEAK_PULL = 0.05
MIN_PERIOD = world.SAMPLE_RATE / world.F0_CEILING_HZ * 0.7
MARK_BAND_HZ = (60.0, 1200.0)
MAX_GAP = 1.2 * world.SAMPLE_RATE / world.F0_FLOOR_HZ  # half a grain


def pitch_marks(samples: Float64, f0: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    """One mark in each period of voiced speech, every 5 ms elsewhere: positions in samples, and which are of periods.

    f0: Hz a frame of 5 ms, 0 unvoiced. Within a voiced stretch each mark is where the wave looks most like it did at
    the mark before, with a slight pull to the peak, so that the marks do not drift.
    """
    band = scipy.signal.sosfiltfilt(_band(), samples, padlen=min(len(samples) - 1, HOP * 10))
    if np.sum(band**3) < 0:
        band = -band
    marks: list[float] = []
    voiced: list[bool] = []
    position, last_period = 0.0, 0.0
    while position < len(samples) - 1:
        hz = _at(f0, position)
        if hz <= 0:
            marks.append(position)
            voiced.append(False)
            position, last_period = position + HOP, 0.0
            continue
        period = world.SAMPLE_RATE / hz
        if last_period:
            expected = marks[-1] + period
            mark = _most_alike(band, marks[-1], period, expected - SEARCH * period, expected + SEARCH * period)
        else:
            # The first of a stretch: its highest peak within a period.
            window = band[int(position) : int(position + period) + 1]
            mark = position + float(np.argmax(window)) if len(window) > 1 else position
        if mark >= len(samples) - 1:
            break
        if marks and mark - marks[-1] < MIN_PERIOD:
            # Behind an unvoiced mark the period's own takes its place.
            if voiced[-1]:
                mark = marks[-1] + period
            else:
                marks.pop()
                voiced.pop()
        is_voiced = _at(f0, mark) > 0
        marks.append(mark)
        voiced.append(is_voiced)
        if not is_voiced:
            position, last_period = mark + HOP, 0.0
        elif _at(f0, mark + period) > 0:
            position, last_period = mark + period, period
        else:
            position, last_period = mark + min(period, HOP), 0.0
    return np.array(marks), np.array(voiced, np.bool_)


def render(samples: Float64, f0: Float64, new_f0: Float64, gain: Float32, speed: float | Float64 = 1.0) -> Float64:
    """`samples` (24 kHz) with another pitch, filtered: float64, as long as they were divided by `speed`.

    f0, new_f0: (frames,) of 5 ms, Hz, 0 where unvoiced. gain: (frames, 513), log power to be added. speed: of all, or
    (frames,) of each frame.
    """
    marks, voiced = pitch_marks(samples, f0)
    gaps = np.clip(np.diff(marks), 1.0, MAX_GAP)
    left, right = np.concatenate([[HOP], gaps]), np.concatenate([gaps, [HOP]])
    frames = np.clip(np.rint(marks / HOP).astype(np.intp), 0, len(f0) - 1)
    ratio = np.ones(len(marks))
    moved = voiced & (f0[frames] > 0) & (new_f0[frames] > 0)
    ratio[moved] = f0[frames[moved]] / new_f0[frames[moved]]
    source, target = _time_map(speed, len(samples))
    count = round(target[-1])
    places, chosen = _places(np.interp(marks, source, target), right * ratio, count)
    # Noise that is said twice would hum: every second time it is said backwards.
    backwards = np.zeros(len(chosen), np.bool_)
    for n in range(1, len(chosen)):
        backwards[n] = chosen[n] == chosen[n - 1] and not voiced[chosen[n]] and not backwards[n - 1]
    out = np.zeros(count + 2 * FFT_SIZE)
    for start in range(0, len(places), BATCH):
        rows = slice(start, start + BATCH)
        k = chosen[rows]
        grains, centre, fraction = _grains(samples, marks[k], left[k], right[k], backwards[rows])
        whole = np.floor(places[rows])
        grains *= np.sqrt(ratio[k])[:, None]  # as much power as before, from more or fewer periods
        shift = places[rows] - whole - fraction
        for row, at in zip(_filtered(grains, gain[frames[k]], shift), whole.astype(np.intp), strict=True):
            begin = at - centre + FFT_SIZE
            out[begin : begin + FFT_SIZE] += row
    return out[FFT_SIZE : FFT_SIZE + count]


def _time_map(speed: float | Float64, count: int) -> tuple[Float64, Float64]:
    """Places in the old audio, and where they are in the new one, in samples."""
    edges = np.minimum(np.arange(count // HOP + 2) * float(HOP), count)
    each = np.resize(np.asarray(speed, np.float64), len(edges) - 1) if np.ndim(speed) == 0 else np.asarray(speed)
    each = np.pad(each, (0, max(0, len(edges) - 1 - len(each))), mode="edge")[: len(edges) - 1]
    return edges, np.concatenate([[0.0], np.cumsum(np.diff(edges) / each)])


def _places(targets: Float64, steps: Float64, count: int) -> tuple[Float64, NDArray[np.intp]]:
    """Where grains go in the new audio, and of which mark each is: the one that comes nearest.

    targets: where the marks themselves would go.
    """
    places: list[float] = []
    chosen: list[int] = []
    place, index = float(targets[0]), 0
    while place < count:
        while index + 1 < len(targets) and abs(targets[index + 1] - place) <= abs(targets[index] - place):
            index += 1
        places.append(place)
        chosen.append(index)
        place += float(steps[index])
    return np.array(places), np.array(chosen, np.intp)


def _grains(
    samples: Float64, marks: Float64, left: Float64, right: Float64, backwards: NDArray[np.bool_]
) -> tuple[Float32, int, Float64]:
    """Windowed grains (n, 2048), the column of their marks, and what each mark is behind that column's sample."""
    half = int(np.ceil(max(left.max(), right.max()))) + 1
    whole = np.rint(marks).astype(np.intp)
    fraction = marks - whole
    offset = np.arange(-half, half + 1)
    index = whole[:, None] + offset
    inside = (index >= 0) & (index < len(samples))
    taken = np.where(inside, samples[np.clip(index, 0, len(samples) - 1)], 0.0)
    time = offset - fraction[:, None]
    reach = np.where(time < 0, left[:, None], right[:, None])
    windowed = taken * (0.5 + 0.5 * np.cos(np.pi * np.clip(time / reach, -1, 1)))
    windowed[backwards] = windowed[backwards, ::-1]
    grains = np.zeros((len(marks), FFT_SIZE), np.float32)
    first = FFT_SIZE // 2 - half
    grains[:, first : first + len(offset)] = windowed
    return grains, FFT_SIZE // 2, fraction


def _filtered(grains: Float32, gain: Float32, shift: Float64) -> Float32:
    """Each grain with its own gain (log power, 513 bins) at zero phase, and `shift` samples later."""
    amplitude = np.empty((len(grains), FFT_SIZE // 2 + 1), np.float32)
    amplitude[:, ::2] = np.exp(0.5 * gain)
    amplitude[:, 1::2] = np.sqrt(amplitude[:, :-1:2] * amplitude[:, 2::2])
    turn = np.exp((-2j * np.pi / FFT_SIZE) * shift[:, None] * np.arange(FFT_SIZE // 2 + 1)).astype(np.complex64)
    filtered: Float32 = scipy.fft.irfft(scipy.fft.rfft(grains, axis=1) * amplitude * turn, n=FFT_SIZE, axis=1)
    return filtered


def _most_alike(band: Float64, last: float, period: float, low: float, high: float) -> float:
    """The position between `low` and `high` around which the wave is most like that around `last`, to a fraction."""
    half = int(period / 2)
    at, first, stop = round(last), int(low), int(high) + 1
    if at - half < 0 or first - half < 0 or stop + half >= len(band):
        return (low + high) / 2
    pattern = band[at - half : at + half]
    windows = np.lib.stride_tricks.sliding_window_view(band[first - half : stop + half - 1], 2 * half)
    norms = np.sqrt(np.einsum("ij,ij->i", windows, windows)) * np.sqrt(pattern @ pattern)
    likeness = windows @ pattern / (norms + 1e-12)
    peak = band[first:stop]
    likeness = likeness + PEAK_PULL * peak / (np.abs(peak).max() + 1e-12)
    best = int(np.argmax(likeness))
    fraction = 0.0
    if 0 < best < len(likeness) - 1:
        before, here, after = likeness[best - 1 : best + 2]
        bend = before - 2 * here + after
        fraction = float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return first + best + fraction


def _at(f0: Float64, position: float) -> float:
    return float(f0[min(len(f0) - 1, round(position / HOP))])


@lru_cache(maxsize=1)
def _band() -> Float64:
    sections: Float64 = scipy.signal.butter(2, MARK_BAND_HZ, "bandpass", fs=world.SAMPLE_RATE, output="sos")
    return sections
