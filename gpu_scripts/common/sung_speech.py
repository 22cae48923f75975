"""Speech made to sing: the words of a speaking engine on the time and the melody of a vocal.

    source = analyze(vocal, rate)
    song = Song(source, phrases)
    for phrase in song.phrases: song.add(...)         # what the engine said, up to a few takes of each phrase
    song.align(); out = song.render(semitones, ...)

Each phrase is spoken by the engine, aligned with the singing frame by frame (dynamic programming on cepstra that an
iterated linear map brings from the singer's to the speaker's), and synthesized again by WORLD with the singer's F0 and
dynamics. M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system for real-time
applications", IEICE Trans. Inf. & Syst. E99-D(7), 2016.

Needs numpy, scipy and pyworld; knows no engine, no recogniser and no files. Frames are 5 ms apart throughout, times
are seconds of the vocal, audio is mono float in -1..1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import pyworld
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter, uniform_filter1d
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
SPOKEN_CEILING_HZ = 600.0
BANDS = 32
BAND_RANGE_HZ = (90.0, 7300.0)
CEPSTRA = 11

PIECE_FRAMES = 6000  # of the vocal, analysed at a time
CONTEXT_FRAMES = 60
VOICING_GATE_DB = 45.0
SHORTEST_VOICING = 5  # frames
LONGEST_HOLE = 8
LONGEST_SLIP = 20
MEDIAN_FRAMES = 9

WINDOW_MARGIN_SECONDS = 0.25
SUNG_TRIM_DB = 36.0
SPOKEN_TRIM_DB = 38.0
SHORTEST_WINDOW_SECONDS = 0.05
STRETCH_LIMIT = 3.5
BORDER_PAUSE_FRAMES = 24

LIFTER = 0.3
RIDGE = 0.05
EM_ROUNDS = 3
VOWEL_REACH = 41  # frames
FLUX_REACH = 4
ANCHOR_TOLERANCE_SECONDS = (0.05, 0.06)
HOLD_FRAMES = 9  # of speech, that have to fit a held sound together
HOLD_FLUX = 1.5  # times the median: from there on nothing is held
CORRIDOR_FRAMES = 8

SNAP_FRAMES = 12
BEND_FRAMES = 2.0
EDGE_FRAMES = 8  # of a held sound, that keep their rate

BETA = 0.85
BETA_UNVOICED = 0.3
LEVEL_RANGE_DB = 12.0
SILENCE_GATE_DB = 42.0
VOICING_REACH = 6
LONGEST_UNVOICED = 28


@dataclass(frozen=True)
class Weights:
    """What a path through the spoken frames costs for each sung frame."""

    cepstrum: float = 1.0
    delta: float = 0.5
    level: float = 0.5
    delta_level: float = 1.0
    voicing: float = 1.2
    uniform_per_second: float = 0.2
    stay: float = 0.02
    stay_unvoiced: float = 0.4
    stay_flux: float = 0.3
    stay_quiet: float = 0.4  # for each 10 dB under the loudest sound within 100 ms
    skip: float = 0.5
    end: float = 0.6
    anchor_per_second: float = 24.0
    corridor: float = 1.0  # a frame


WEIGHTS = Weights()


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


Locate = Callable[[Phrase, Take], tuple[Span | None, ...]]


# --- analysis -------------------------------------------------------------------------------------------------


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
        found, power = _f0_and_bands(np.pad(part, (0, max(0, RATE // 10 - len(part)))), F0_CEILING_HZ)
        f0[start:stop] = found[start - first : stop - first]
        bands[start:stop] = power[start - first : stop - first]
        tell(stop / count)
    level = _level(x, count)
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


def _f0_and_bands(samples: Float64, ceiling_hz: float, rough: bool = False) -> tuple[Float64, Float32]:
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


def _level(samples: Float32, count: int) -> Float64:
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


# --- alignment ------------------------------------------------------------------------------------------------


@dataclass
class Spoken:
    """A take, taken apart and trimmed. start: the first of its frames in the take; rough: its F0 comes from DIO."""

    take: Take
    frames: Frames
    start: int
    rough: bool = False
    cost: float = math.inf
    path: NDArray[np.intp] | None = None


@dataclass
class Window:
    """The frames of the vocal from start to stop in which a phrase is sung, and what is spoken for them."""

    phrase: Phrase
    start: int
    stop: int
    takes: list[Spoken] = field(default_factory=list)
    best: int = 0

    @property
    def spoken(self) -> Spoken:
        return self.takes[self.best]

    @property
    def seconds(self) -> float:
        return (self.stop - self.start) * FRAME_SECONDS

    @property
    def stretch(self) -> float:
        """How many times longer it is sung than spoken."""
        return (self.stop - self.start) / max(1, len(self.spoken.frames))


def check_phrases(phrases: Sequence[Phrase], seconds: float) -> None:
    """Raises Unsingable where times overlap, are out of order, or are not within the vocal."""
    before = 0.0
    for number, phrase in enumerate(phrases):
        if not 0 <= phrase.start < phrase.end <= seconds + 0.5:
            raise Unsingable(f"the times {phrase.start:.2f} to {phrase.end:.2f} s are not within the vocal", number)
        if phrase.start < before - 1e-6:
            raise Unsingable(f"the phrase at {phrase.start:.2f} s overlaps the one before it", number)
        before = phrase.end


def find_window(source: Frames, phrases: Sequence[Phrase], number: int) -> Window:
    """Where the phrase is sung: its times, 0.25 s around them, without silence and breaths. Raises Unsingable."""
    phrase = phrases[number]
    low, high = phrase.start - WINDOW_MARGIN_SECONDS, phrase.end + WINDOW_MARGIN_SECONDS
    if number:
        low = max(low, (phrases[number - 1].end + phrase.start) / 2)
    if number + 1 < len(phrases):
        high = min(high, (phrase.end + phrases[number + 1].start) / 2)
    first, last = max(0, round(low / FRAME_SECONDS)), min(len(source), round(high / FRAME_SECONDS))
    active = source.level[first:last] > source.loud - SUNG_TRIM_DB
    inside = (round(phrase.start / FRAME_SECONDS) - first, round(phrase.end / FRAME_SECONDS) - first)
    islands = [(start, stop) for start, stop in runs(closed(active, 10)) if stop > inside[0] and start < inside[1]]
    heard = sum(stop - start for start, stop in islands) * FRAME_SECONDS
    if heard < SHORTEST_WINDOW_SECONDS:
        raise Unsingable(f"nothing is heard from {phrase.start:.2f} to {phrase.end:.2f} s", number)
    start, stop = first + islands[0][0], first + islands[-1][1]
    if not source.voiced[start:stop].any():
        raise Unsingable(f"nothing is sung from {phrase.start:.2f} to {phrase.end:.2f} s", number)
    return Window(phrase, start, stop)


def analyze_take(take: Take, rough: bool = False) -> Spoken:
    """rough: see _f0_and_bands. Raises Unsingable where nothing is said in it."""
    x = resample(take.samples, take.rate, RATE)
    if len(x) < RATE // 20 or not np.isfinite(x).all() or float(np.abs(x).max()) < 1e-3:
        raise Unsingable("the engine said nothing")
    f0, bands = _f0_and_bands(x.astype(np.float64), SPOKEN_CEILING_HZ, rough)
    level = _level(x, len(f0))
    loud = float(np.percentile(level, 98))
    active = np.flatnonzero(level > loud - SPOKEN_TRIM_DB)
    f0 = clean_f0(f0, level > loud - VOICING_GATE_DB)
    start, stop = int(active[0]), int(active[-1]) + 1
    if (stop - start) * FRAME_SECONDS < SHORTEST_WINDOW_SECONDS or not f0[start:stop].any():
        raise Unsingable("the engine said nothing")
    return Spoken(take, Frames(f0, bands, level).cut(start, stop), start, rough)


def anchored(window: Window) -> bool:
    """Whether at least half of its words are known in time, both sung and spoken."""
    return _anchored(window, window.spoken)


def _anchored(window: Window, spoken: Spoken) -> bool:
    words, said = window.phrase.words, spoken.take.words
    known = sum(one is not None and two is not None for one, two in zip(words, said, strict=False))
    return len(words) == len(said) > 0 and 2 * known >= len(words)


def voiced_share(frames: Frames) -> float:
    """The share of the loud frames, vowels mostly, in which a voice is found."""
    loud = frames.level > frames.loud - 15
    return float(frames.voiced[loud].mean()) if loud.any() else 0.0


def unsung_seconds(song: Song) -> float:
    """How long there is singing outside of all phrases."""
    source = song.source
    sung = source.voiced & (source.level > source.loud - SUNG_TRIM_DB)
    for window in song.windows:
        sung[max(0, window.start - 20) : window.stop + 20] = False
    return float(sum(stop - start for start, stop in runs(sung) if stop - start > 40) * FRAME_SECONDS)


def closed(mask: Bools, holes: int) -> Bools:
    """The mask with its short holes filled."""
    out = mask.copy()
    for start, stop in runs(~mask):
        if start > 0 and stop < len(mask) and stop - start <= holes:
            out[start:stop] = True
    return out


@dataclass(frozen=True)
class _Features:
    """What frames are compared by: cepstra (n, 11), their deltas, level in tens of dB under the loud parts."""

    cepstra: Float32
    delta: Float32
    level: Float32
    delta_level: Float32
    voiced: Bools
    flux: Float32


def _cepstra(bands: Float32) -> Float32:
    return np.asarray(scipy.fft.dct(bands, axis=1, norm="ortho")[:, 1 : CEPSTRA + 1], np.float32)


def _lifter() -> Float32:
    return (1 / (1 + LIFTER * np.arange(1, CEPSTRA + 1))).astype(np.float32)


def _delta(values: Float32) -> Float32:
    """Slope over 5 frames, scaled to be about as large as the values."""
    padded = np.pad(values, [(2, 2)] + [(0, 0)] * (values.ndim - 1), mode="edge")
    slope = 2 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]
    return np.asarray(slope / 4, np.float32)


class Song:
    """The phrases of a vocal, spoken and sung.

    source: the vocal (`analyze`); phrases: in order, not overlapping. Raises Unsingable. `windows` has one entry for
    each phrase.
    """

    def __init__(self, source: Frames, phrases: Sequence[Phrase], weights: Weights = WEIGHTS) -> None:
        check_phrases(phrases, len(source) * FRAME_SECONDS)
        self.source = source
        self.weights = weights
        self.windows = [find_window(source, phrases, number) for number in range(len(phrases))]
        self._map: Float32 | None = None
        self._trust = np.ones(CEPSTRA, np.float32)

    def add(self, number: int, take: Take) -> None:
        """One more take of a phrase. Raises Unsingable where nothing is said in it."""
        try:
            self.windows[number].takes.append(analyze_take(take, rough=True))
        except Unsingable as error:
            raise Unsingable(f"{error} for {self.windows[number].phrase.text!r}", number) from error

    def align(self, tell: Tell = lambda fraction: None, locate: Locate | None = None) -> None:
        """Finds for each sung frame the spoken one, and keeps of each phrase the take that fits best.

        locate: finds the words in a take that has been chosen, as in Take.words.

        The one spoken frame that is most like a held vowel may lie on the edge of the spoken vowel: to hold it makes
        the vowel late or cuts it short. So what is held is compared with the surroundings of a frame (`_steadied`).
        That makes short words dear: where no word times keep the path in place, the path found without it does.
        """
        self._map = None
        self._normalize()
        self._trust = np.ones(CEPSTRA, np.float32)
        for round_ in range(EM_ROUNDS + 1):
            for number, window in enumerate(self.windows):
                chosen = window.takes if round_ == 0 else [window.spoken]
                for spoken in chosen:
                    anchored = _anchored(window, spoken)
                    last = round_ == EM_ROUNDS
                    spoken.cost, spoken.path = self._fit(
                        window, spoken, steady=anchored or last, near=None if anchored or not last else spoken.path
                    )
                if round_ == 0:
                    window.best = int(np.argmin([spoken.cost for spoken in window.takes]))
                    if window.spoken.rough:
                        window.takes[window.best] = replace(
                            analyze_take(window.spoken.take), cost=window.spoken.cost, path=window.spoken.path
                        )
                    if locate is not None and any(window.phrase.words):
                        window.spoken.take = replace(
                            window.spoken.take, words=locate(window.phrase, window.spoken.take)
                        )
                tell((round_ + (number + 1) / len(self.windows)) / (EM_ROUNDS + 1))
            if round_ < EM_ROUNDS:
                self._map = self._estimate_map()

    def margin(self, number: int) -> float | None:
        """How much better the phrase fits its own words than those of two other phrases of the song, as a share.

        Under 0.05 the words may well be others than those sung. None where there are not two others.
        """
        window = self.windows[number]
        others = [w for w in self.windows if w is not window and w.phrase.text != window.phrase.text]
        if len(others) < 2:
            return None
        length = len(window.spoken.frames)
        others.sort(key=lambda w: abs(math.log(len(w.spoken.frames) / length)))
        own = self._fit(window, window.spoken, anchored=False)[0]
        decoys = [self._fit(window, other.spoken, anchored=False)[0] for other in others[:2]]
        return float((np.mean(decoys) - own) / np.mean(decoys))

    def improve_borders(self, tell: Tell = lambda fraction: None) -> None:
        """For phrases whose times are a guess: moves the border of two to a pause beside it where both then fit better.

        All takes have to be there, `align` still has to be called.
        """
        self._normalize()
        rounds = 2
        for number in range(rounds * (len(self.windows) - 1)):
            self._move_border(number % (len(self.windows) - 1))
            tell((number + 1) / (rounds * (len(self.windows) - 1)))

    def _move_border(self, number: int) -> None:
        pair = self.windows[number : number + 2]
        active = self.source.level[pair[0].start : pair[1].stop] > self.source.loud - SUNG_TRIM_DB
        islands = [(pair[0].start + a, pair[0].start + b) for a, b in runs(closed(active, BORDER_PAUSE_FRAMES))]
        best, chosen = sum(self._fit(w, w.takes[0], False)[0] * (w.stop - w.start) for w in pair), None
        at = next((n for n, (a, b) in enumerate(islands) if a >= pair[1].start - BORDER_PAUSE_FRAMES), len(islands))
        for border in (at - 2, at - 1, at + 1, at + 2):
            if not 0 < border < len(islands):
                continue
            moved = [
                replace(pair[0], stop=islands[border - 1][1]),
                replace(pair[1], start=islands[border][0]),
            ]
            if any(w.stop - w.start < 0.35 * len(w.takes[0].frames) for w in moved):
                continue
            cost = sum(self._fit(w, w.takes[0], False)[0] * (w.stop - w.start) for w in moved)
            if cost < 0.98 * best:
                best, chosen = cost, moved
        if chosen is not None:
            self.windows[number : number + 2] = chosen

    # --- inside ---

    def _normalize(self) -> None:
        sung = np.concatenate([_cepstra(self.source.bands[w.start : w.stop]) for w in self.windows])
        active = np.concatenate([self.source.level[w.start : w.stop] for w in self.windows])
        sung = sung[active > self.source.loud - SUNG_TRIM_DB]
        takes = [spoken.frames for w in self.windows for spoken in w.takes]
        said = np.concatenate([_cepstra(f.bands)[f.level > f.loud - SUNG_TRIM_DB] for f in takes])
        self._sung = sung.mean(axis=0), sung.std(axis=0) + 1e-3
        self._said = said.mean(axis=0), said.std(axis=0) + 1e-3

    def _features(self, frames: Frames, loud: float, sung: bool) -> _Features:
        mean, deviation = self._sung if sung else self._said
        cepstra = np.clip((_cepstra(frames.bands) - mean) / deviation, -4, 4).astype(np.float32)
        padded = np.pad(gaussian_filter1d(cepstra, 1.0, axis=0), [(FLUX_REACH, FLUX_REACH), (0, 0)], mode="edge")
        flux = np.linalg.norm(padded[2 * FLUX_REACH :] - padded[: -2 * FLUX_REACH], axis=1) / math.sqrt(CEPSTRA)
        if sung and self._map is not None:
            cepstra = (np.concatenate([cepstra, np.ones((len(cepstra), 1), np.float32)], axis=1) @ self._map).astype(
                np.float32
            )
        cepstra = cepstra * _lifter() * self._trust
        level = (np.clip(frames.level - loud, -SILENCE_GATE_DB, 6) / 10).astype(np.float32)
        return _Features(cepstra, _delta(cepstra), level, _delta(level), frames.voiced, flux.astype(np.float32))

    def _pair(self, window: Window, spoken: Spoken) -> tuple[_Features, _Features]:
        part = self.source.cut(window.start, window.stop)
        sung = self._features(part, max(part.loud, self.source.loud - 20), True)
        return sung, self._features(spoken.frames, spoken.frames.loud, False)

    def _fit(
        self,
        window: Window,
        spoken: Spoken,
        anchored: bool = True,
        steady: bool = False,
        near: NDArray[np.intp] | None = None,
    ) -> tuple[float, NDArray[np.intp]]:
        """(mean cost, path). steady: see `_steadied`; near: a path that is not to be left by more than 40 ms."""
        w = self.weights
        sung, said = self._pair(window, spoken)
        count, states = len(sung.voiced), len(said.voiced)
        local = w.cepstrum * _distance(sung.cepstra, said.cepstra)
        local += w.delta * _distance(sung.delta, said.delta)
        local += w.level * np.abs(sung.level[:, None] - said.level)
        local += w.delta_level * np.abs(sung.delta_level[:, None] - said.delta_level)
        local += np.float32(w.voicing) * (sung.voiced[:, None] != said.voiced)
        at = (np.arange(count, dtype=np.float32) * FRAME_SECONDS)[:, None]
        uniform = np.arange(states, dtype=np.float32) * np.float32(FRAME_SECONDS * count / states)
        local += w.uniform_per_second * np.abs(at - uniform)
        if steady:
            local = _steadied(local, sung)
        if near is not None:
            away = np.abs(np.arange(states) - near[:, None]) - CORRIDOR_FRAMES
            local += np.float32(w.corridor) * np.maximum(away, 0).astype(np.float32)
        if anchored:
            self._anchor(local, window, spoken)
        silent = said.level < -3.6
        excess = np.maximum(said.flux / (np.median(said.flux) + 1e-6) - 1.5, 0)
        # What singers hold are vowels, the loudest sounds around.
        quieter = maximum_filter1d(said.level, VOWEL_REACH) - said.level
        stay = w.stay + w.stay_unvoiced * ~said.voiced + w.stay_flux * excess + w.stay_quiet * quieter
        stay = np.where(silent, 0.0, stay)
        return _viterbi(local, stay.astype(np.float32), w.skip, w.end)

    def _anchor(self, local: Float32, window: Window, spoken: Spoken) -> None:
        """Makes it dear to sing a word's frames far from where the word is known to be sung."""
        words = window.phrase.words
        if not words or len(words) != len(spoken.take.words):
            return
        times = (window.start + np.arange(len(local))) * FRAME_SECONDS
        for span, said in zip(words, spoken.take.words, strict=True):
            if span is None or said is None:
                continue
            tolerance = float(np.clip(0.2 * (span.end - span.start), *ANCHOR_TOLERANCE_SECONDS))
            beyond = np.maximum(span.start - tolerance - times, times - span.end - tolerance)
            first = max(0, round(said.start / FRAME_SECONDS) - spoken.start)
            last = max(first, round(said.end / FRAME_SECONDS) - spoken.start)
            penalty = self.weights.anchor_per_second * np.maximum(beyond, 0)
            local[:, first:last] += penalty.astype(np.float32)[:, None]

    def _estimate_map(self) -> Float32:
        """(12, 11): sung cepstra, normalized, with a one, to those spoken at the same time (ridge regression)."""
        ones, twos = [], []
        for window in self.windows:
            spoken = window.spoken
            if spoken.path is None:
                continue
            part = self.source.cut(window.start, window.stop)
            sung = np.clip((_cepstra(part.bands) - self._sung[0]) / self._sung[1], -4, 4)
            said = np.clip((_cepstra(spoken.frames.bands) - self._said[0]) / self._said[1], -4, 4)
            both = part.voiced & spoken.frames.voiced[spoken.path]
            ones.append(sung[both])
            twos.append(said[spoken.path[both]])
        x = np.concatenate(ones).astype(np.float64)
        y = np.concatenate(twos).astype(np.float64)
        identity = np.eye(CEPSTRA + 1, CEPSTRA)
        if len(x) < 20 * CEPSTRA:
            return identity.astype(np.float32)
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        ridge = RIDGE * len(x) * np.eye(CEPSTRA + 1)
        found = np.linalg.solve(x.T @ x + ridge, x.T @ y + ridge @ identity)
        # Cepstra that the map foretells well tell more.
        left = np.std(y - x @ found, axis=0)
        self._trust = (_lifter().mean() / (left * np.mean(_lifter() / left))).astype(np.float32)
        return found.astype(np.float32)


def _steadied(local: Float32, sung: _Features) -> Float32:
    """Costs (n, m) in which steady voiced sung frames pay for the 45 ms around a spoken frame, not for it alone."""
    change = gaussian_filter1d(sung.flux, 1.0) / (np.median(sung.flux) + 1e-6)
    share = (np.clip(HOLD_FLUX - change, 0, 1) * sung.voiced).astype(np.float32)[:, None]
    around = uniform_filter1d(local, HOLD_FRAMES, axis=1, mode="nearest")
    return np.asarray((1 - share) * local + share * around, np.float32)


def _distance(one: Float32, two: Float32) -> Float32:
    """(n, m): Euclidean distances of rows."""
    squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1) - 2 * (one @ two.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def _viterbi(local: Float32, stay: Float32, skip: float, end: float) -> tuple[float, NDArray[np.intp]]:
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


# --- the map from sung to spoken time -------------------------------------------------------------------------


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


# --- rendering ------------------------------------------------------------------------------------------------


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
