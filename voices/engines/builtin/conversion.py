"""Voice conversion on WORLD's mel cepstrum: pseudo-parallel nearest-neighbour mapping as a differential filter.

One speaker's frames are paired with another's that sound alike (one pass of INCA: D. Erro, A. Moreno, A. Bonafonte,
"INCA algorithm for training voice conversion systems from nonparallel corpora", IEEE TASLP 18(5), 2010). A new frame
of the first speaker is matched only against frames of that *same* speaker, and moved by what their pairs say: since
the match stays within one speaker, the words survive. The result filters the original spectrum (K. Kobayashi, T. Toda,
"Implementation of F0 transformation for statistical singing voice conversion based on direct waveform modification",
ICASSP 2016), so that nothing of its fine structure is lost.

All frames are 5 ms at 24 kHz (see world.py). Cepstra are float32 (frames, 40), c0 first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from . import world
from .world import Analysis, Float32, Float64

Bool = NDArray[np.bool_]

MATCH_SIZE = 25
CONTEXT_SIZE = 13
CONTEXT_FRAMES = 6
CONTEXT_WEIGHT = 0.6
VOICED_WEIGHT = 3.0
BLOCK_ROWS = 2048
PAIR_NEIGHBOURS = 6
MAP_NEIGHBOURS = 12
SMOOTH_FRAMES = 4.0
MAX_FILTER_NEPERS = 6.0


@dataclass(frozen=True)
class Statistics:
    """How one speaker sounds on average.

    mean, deviation: float32 (2, 40), row 0 unvoiced and row 1 voiced active frames; log_f0_mean, log_f0_deviation of
    voiced frames, natural log of Hz; bandwidth in Hz; movement as prosody.py has it, 0 if not measured; pauses: the
    length of the speaker's own against usual ones.
    """

    mean: Float32
    deviation: Float32
    log_f0_mean: float
    log_f0_deviation: float
    bandwidth: float = world.SAMPLE_RATE / 2
    movement: float = 0.0
    pauses: float = 1.0

    @property
    def median_hz(self) -> float:
        return float(np.exp(self.log_f0_mean))


@dataclass(frozen=True)
class Frames:
    """The active frames of one speaker: cepstrum (n, 40), voiced (n,), match vectors (n, d)."""

    cepstrum: Float32
    voiced: Bool
    match: Float32

    def first(self, count: int) -> Frames:
        return Frames(self.cepstrum[:count], self.voiced[:count], self.match[:count])

    def __len__(self) -> int:
        return len(self.cepstrum)


@dataclass(frozen=True)
class Pairs:
    """Frames of a source speaker (match vectors, (n, d)) and how far to move each: delta, (n, 40)."""

    match: Float32
    delta: Float32

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, f.name).nbytes for f in fields(self))


def measure(analyses: Sequence[Analysis], bandwidth: float = world.SAMPLE_RATE / 2) -> Statistics:
    """Statistics over all of `analyses`. A class of frames with too few members borrows those of all frames.

    Raises ValueError where there is no active or no voiced frame at all.
    """
    cepstrum = np.concatenate([a.cepstrum[a.active] for a in analyses])
    voiced = np.concatenate([a.voiced[a.active] for a in analyses])
    log_f0_mean, log_f0_deviation = melody(analyses)
    mean = np.empty((2, cepstrum.shape[1]), np.float32)
    deviation = np.empty_like(mean)
    for row, members in enumerate((cepstrum[~voiced], cepstrum[voiced])):
        used = members if len(members) >= 20 else cepstrum
        mean[row], deviation[row] = used.mean(axis=0), np.maximum(used.std(axis=0), 1e-3)
    return Statistics(
        mean=mean,
        deviation=deviation,
        log_f0_mean=log_f0_mean,
        log_f0_deviation=log_f0_deviation,
        bandwidth=bandwidth,
    )


def melody(analyses: Sequence[Analysis]) -> tuple[float, float]:
    """Mean and deviation of the natural log of F0 (Hz). Raises ValueError where nothing is voiced."""
    f0 = np.concatenate([a.f0[a.active & a.voiced] for a in analyses])
    if not len(f0):
        raise ValueError("no voiced speech in the audio")
    log_f0 = _without_outliers(np.log(f0))
    return float(log_f0.mean()), float(max(log_f0.std(), 0.02))


def with_melody(statistics: Statistics, analyses: Sequence[Analysis]) -> Statistics:
    """The same statistics with the melody of other speech of the speaker."""
    mean, spread = melody(analyses)
    return replace(statistics, log_f0_mean=mean, log_f0_deviation=spread)


def map_f0(f0: Float64, source: Statistics, target: Statistics) -> Float64:
    """Moves the log-normal distribution of a speaker's F0 (Hz, 0 unvoiced) to another's, within 60-800 Hz."""
    # Some people speak with half the melody of a base voice, which is part of how they sound.
    scale = np.clip(target.log_f0_deviation / source.log_f0_deviation, 0.4, 1.6)
    voiced = f0 > 0
    out = np.zeros_like(f0)
    moved = np.exp((np.log(f0[voiced]) - source.log_f0_mean) * scale + target.log_f0_mean)
    out[voiced] = np.clip(moved, world.F0_FLOOR_HZ, world.F0_CEILING_HZ)
    return out


def statistics_map(
    cepstrum: Float32, voiced: Bool, source: Statistics, target: Statistics, mean_only: bool = False
) -> Float32:
    """Moves mean and deviation of each coefficient, voiced and unvoiced frames apart (pauses count as unvoiced)."""
    scale = np.ones((2, 1)) if mean_only else np.clip(target.deviation / source.deviation, 0.6, 1.7)
    row = voiced.astype(np.intp)
    return ((cepstrum - source.mean[row]) * scale[row] + target.mean[row]).astype(np.float32)


def match_vectors(cepstrum: Float32, voiced: Bool, statistics: Statistics) -> Float32:
    """What frames are compared by: (frames, 52), of consecutive frames (the context needs the neighbours).

    c0-c24 normalised by the speaker's own statistics, voicing, and the smoothed c0-c12 30 ms before and after.
    """
    row = voiced.astype(np.intp)
    normal = (cepstrum - statistics.mean[row]) / statistics.deviation[row]
    weights = np.ones(MATCH_SIZE, np.float32)
    weights[0], weights[CONTEXT_SIZE:] = 0.5, 0.5
    near = normal[:, :MATCH_SIZE] * weights
    smooth = gaussian_filter1d(near[:, :CONTEXT_SIZE], 1.0, axis=0, mode="nearest") * CONTEXT_WEIGHT
    padded = np.pad(smooth, ((CONTEXT_FRAMES, CONTEXT_FRAMES), (0, 0)), mode="edge")
    before, after = padded[: len(smooth)], padded[2 * CONTEXT_FRAMES :]
    return np.hstack([near, VOICED_WEIGHT * voiced[:, None], before, after]).astype(np.float32)


def active_frames(analyses: Sequence[Analysis], statistics: Statistics) -> Frames:
    """The active frames of one speaker, ready to be matched."""
    voiced = [a.voiced & a.active for a in analyses]
    match = [match_vectors(a.cepstrum, v, statistics)[a.active] for a, v in zip(analyses, voiced, strict=True)]
    return Frames(
        cepstrum=np.concatenate([a.cepstrum[a.active] for a in analyses]),
        voiced=np.concatenate([v[a.active] for a, v in zip(analyses, voiced, strict=True)]),
        match=np.concatenate(match),
    )


def nearest(queries: Float32, keys: Float32, count: int) -> tuple[Float32, NDArray[np.intp]]:
    """The `count` nearest keys of each query: squared Euclidean distances and indices, both (queries, count).

    Blocked matrix products: a k-d tree is far slower in 52 dimensions. Order within a row is not sorted.
    """
    count = min(count, len(keys))
    key_norms = np.einsum("ij,ij->i", keys, keys)
    distances = np.empty((len(queries), count), np.float32)
    indices = np.empty((len(queries), count), np.intp)
    for start in range(0, len(queries), BLOCK_ROWS):
        block = queries[start : start + BLOCK_ROWS]
        squared = key_norms - 2 * (block @ keys.T)
        chosen = np.argpartition(squared, count - 1, axis=1)[:, :count]
        norms = np.einsum("ij,ij->i", block, block)[:, None]
        distances[start : start + len(block)] = np.take_along_axis(squared, chosen, axis=1) + norms
        indices[start : start + len(block)] = chosen
    return np.maximum(distances, 0), indices


def neighbour_mean(queries: Float32, keys: Float32, values: Float32, count: int) -> Float32:
    """Mean of the values of each query's nearest keys, weighted by 1 / squared distance: (queries, columns)."""
    distances, indices = nearest(queries, keys, count)
    weights = 1 / (distances + 1e-3)
    weights /= weights.sum(axis=1, keepdims=True)
    out = np.empty((len(queries), values.shape[1]), np.float32)
    for start in range(0, len(queries), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        out[rows] = np.einsum("ij,ijk->ik", weights[rows], values[indices[rows]])
    return out


def pair_unaligned(source: Frames, target: Frames, neighbours: int = PAIR_NEIGHBOURS) -> Pairs:
    """Pairs each source frame with the mean of the target's most similar frames, whatever either of them says."""
    partner = neighbour_mean(source.match, target.match, target.cepstrum, neighbours)
    return Pairs(source.match, partner - source.cepstrum)


def pair_aligned(source: Frames, target: Frames) -> tuple[Pairs, float]:
    """Pairs frames of two speakers who say the same words, by dynamic time warping on the static match dimensions.

    Pairs that differ in voicing, and the fifth of them that are furthest apart, are left out. Also the mean distance
    along the path, over all of it: what tells the same words from others.
    """
    dimensions = MATCH_SIZE + 1
    rows, columns = warp(source.match[:, :dimensions], target.match[:, :dimensions])
    distance = np.sqrt(np.square(source.match[rows, :dimensions] - target.match[columns, :dimensions]).sum(axis=1))
    mean = float(distance.mean())
    keep = (source.voiced[rows] == target.voiced[columns]) & (distance <= np.percentile(distance, 80))
    rows, columns = rows[keep], columns[keep]
    return Pairs(source.match[rows], target.cepstrum[columns] - source.cepstrum[rows]), mean


def warp(first: Float32, second: Float32, band: float = 0.15) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Dynamic time warping: the path's indices into `first` and `second`, from (0, 0) to both ends.

    Steps (1, 0), (0, 1), (1, 1) inside a band around the diagonal, `band` of the longer length (at least 200 frames)
    to either side: time and memory grow with length squared times `band`.
    """
    n, m = len(first), len(second)
    half = max(200, int(band * max(n, m)))
    norms = np.einsum("ij,ij->i", second, second)
    steps = np.zeros((n, min(m, 2 * half + 1)), np.uint8)  # 0 diagonal, 1 from the row before, 2 along the row
    starts = np.clip((np.arange(n) * (m - 1) // max(1, n - 1)) - half, 0, max(0, m - steps.shape[1]))
    width = steps.shape[1]
    previous = np.full(m + 1, np.inf)  # cost of row i-1 at column j, shifted by one
    previous[0] = 0.0
    for i in range(n):
        low = int(starts[i])
        columns = slice(low, low + width)
        own = float(first[i] @ first[i])
        cost = np.sqrt(np.maximum(norms[columns] - 2 * (second[columns] @ first[i]) + own, 0)).astype(np.float64)
        diagonal, above = previous[low : low + width], previous[low + 1 : low + width + 1]
        entry = np.minimum(diagonal, above)
        # Moving along the row costs the sum of the cells passed: a running minimum of entry minus that sum.
        passed = np.cumsum(cost)
        total = passed + np.minimum.accumulate(entry - (passed - cost))
        along = np.concatenate(([False], total[:-1] < entry[1:]))
        steps[i] = np.where(along, 2, np.where(above < diagonal, 1, 0))
        previous = np.full(m + 1, np.inf)
        previous[low + 1 : low + width + 1] = total
    rows, columns_of = [], []
    i, j = n - 1, m - 1
    while i >= 0 and j >= 0:
        rows.append(i)
        columns_of.append(j)
        step = steps[i, j - starts[i]] if starts[i] <= j < starts[i] + width else 0
        i -= step != 2
        j -= step != 1
    return np.array(rows[::-1], np.intp), np.array(columns_of[::-1], np.intp)


def convert_cepstrum(
    cepstrum: Float32,
    voiced: Bool,
    source: Statistics,
    target: Statistics,
    pairs: Pairs | None,
    beta: float,
    mean_only: bool = False,
) -> Float32:
    """The cepstrum that the target would have had: (frames, 40). c0, the loudness, stays the source's.

    pairs None gives the statistics map alone. beta in 0..1 is the share of the mapping by pairs. mean_only:
    the statistics map moves means and leaves deviations alone.
    """
    out = statistics_map(cepstrum, voiced, source, target, mean_only)
    if pairs is not None and beta > 0:
        query = match_vectors(cepstrum, voiced, source)
        delta = neighbour_mean(query, pairs.match, pairs.delta, MAP_NEIGHBOURS)
        # Only the movement is smoothed, so that the source's own transitions between sounds stay as sharp as they were.
        delta = gaussian_filter1d(delta, SMOOTH_FRAMES, axis=0, mode="nearest")
        out = (1 - beta) * out + beta * (cepstrum + delta)
    out[:, 0] = cepstrum[:, 0]
    return out.astype(np.float32)


def differential_filter(difference: Float32, bandwidth: float) -> Float32:
    """Log-power gain (frames, 513) of a cepstral difference (frames, 40), to be added to the original log spectrum.

    Above 0.97 of the target's bandwidth (Hz) the target says nothing of value: the gain is held constant from there.
    """
    gain = world.log_envelope(difference)
    edge = int(0.97 * bandwidth / (world.SAMPLE_RATE / 2) * (world.BINS - 1))
    if edge < world.BINS - 1:
        gain[:, edge:] = gain[:, edge : edge + 1]
    gain = gaussian_filter1d(gain, 1.0, axis=0, mode="nearest")
    return np.clip(gain, -MAX_FILTER_NEPERS, MAX_FILTER_NEPERS)


def match_level(samples: Float64, level: float, peak: float = 0.97) -> Float32:
    """Audio at the given root mean square, or at the given peak where that would be passed."""
    own = float(np.sqrt(np.mean(samples**2)))
    gain = level / own if own > 0 else 1.0
    top = float(np.max(np.abs(samples), initial=0.0)) * gain
    return (samples * (gain * min(1.0, peak / top) if top > 0 else gain)).astype(np.float32)


def _without_outliers(log_f0: Float64) -> Float64:
    """Log F0 without octave errors: values further than 0.6 (about an octave) from the median are dropped."""
    kept = log_f0[np.abs(log_f0 - np.median(log_f0)) < 0.6]
    return kept if len(kept) else log_f0
