"""Each phrase of a song on what was spoken for it: dynamic programming over frames, in rounds that also estimate how
the speaker's sounds differ from the singer's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from .frames import (
    FRAME_SECONDS,
    SILENCE_GATE_DB,
    SUNG_TRIM_DB,
    Float32,
    Frames,
    Phrase,
    Span,
    Take,
    Tell,
    Unsingable,
    closed,
    runs,
)
from .matching import CEPSTRA, Features, cepstra_of, delta, distance, lifter, steadied, viterbi
from .windows import Spoken, Window, analyze_take, anchored, check_phrases, find_window

Locate = Callable[[Phrase, Take], tuple[Span | None, ...]]

BORDER_PAUSE_FRAMES = 24
RIDGE = 0.05
EM_ROUNDS = 3
VOWEL_REACH = 41  # frames
FLUX_REACH = 4
ANCHOR_TOLERANCE_SECONDS = (0.05, 0.06)
CORRIDOR_FRAMES = 8


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
        the vowel late or cuts it short. So what is held is compared with the surroundings of a frame (`steadied`).
        That makes short words dear: where no word times keep the path in place, the path found without it does.
        """
        self._map = None
        self._normalize()
        self._trust = np.ones(CEPSTRA, np.float32)
        for round_ in range(EM_ROUNDS + 1):
            for number, window in enumerate(self.windows):
                chosen = window.takes if round_ == 0 else [window.spoken]
                for spoken in chosen:
                    by_words = anchored(window, spoken)
                    last = round_ == EM_ROUNDS
                    spoken.cost, spoken.path = self._fit(
                        window, spoken, steady=by_words or last, near=None if by_words or not last else spoken.path
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
        sung = np.concatenate([cepstra_of(self.source.bands[w.start : w.stop]) for w in self.windows])
        active = np.concatenate([self.source.level[w.start : w.stop] for w in self.windows])
        sung = sung[active > self.source.loud - SUNG_TRIM_DB]
        takes = [spoken.frames for w in self.windows for spoken in w.takes]
        said = np.concatenate([cepstra_of(f.bands)[f.level > f.loud - SUNG_TRIM_DB] for f in takes])
        self._sung = sung.mean(axis=0), sung.std(axis=0) + 1e-3
        self._said = said.mean(axis=0), said.std(axis=0) + 1e-3

    def _features(self, frames: Frames, loud: float, sung: bool) -> Features:
        mean, deviation = self._sung if sung else self._said
        cepstra = np.clip((cepstra_of(frames.bands) - mean) / deviation, -4, 4).astype(np.float32)
        padded = np.pad(gaussian_filter1d(cepstra, 1.0, axis=0), [(FLUX_REACH, FLUX_REACH), (0, 0)], mode="edge")
        flux = np.linalg.norm(padded[2 * FLUX_REACH :] - padded[: -2 * FLUX_REACH], axis=1) / math.sqrt(CEPSTRA)
        if sung and self._map is not None:
            cepstra = (np.concatenate([cepstra, np.ones((len(cepstra), 1), np.float32)], axis=1) @ self._map).astype(
                np.float32
            )
        cepstra = cepstra * lifter() * self._trust
        level = (np.clip(frames.level - loud, -SILENCE_GATE_DB, 6) / 10).astype(np.float32)
        return Features(cepstra, delta(cepstra), level, delta(level), frames.voiced, flux.astype(np.float32))

    def _pair(self, window: Window, spoken: Spoken) -> tuple[Features, Features]:
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
        """(mean cost, path). steady: see `steadied`; near: a path that is not to be left by more than 40 ms."""
        w = self.weights
        sung, said = self._pair(window, spoken)
        count, states = len(sung.voiced), len(said.voiced)
        local = w.cepstrum * distance(sung.cepstra, said.cepstra)
        local += w.delta * distance(sung.delta, said.delta)
        local += w.level * np.abs(sung.level[:, None] - said.level)
        local += w.delta_level * np.abs(sung.delta_level[:, None] - said.delta_level)
        local += np.float32(w.voicing) * (sung.voiced[:, None] != said.voiced)
        at = (np.arange(count, dtype=np.float32) * FRAME_SECONDS)[:, None]
        uniform = np.arange(states, dtype=np.float32) * np.float32(FRAME_SECONDS * count / states)
        local += w.uniform_per_second * np.abs(at - uniform)
        if steady:
            local = steadied(local, sung)
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
        return viterbi(local, stay.astype(np.float32), w.skip, w.end)

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
            sung = np.clip((cepstra_of(part.bands) - self._sung[0]) / self._sung[1], -4, 4)
            said = np.clip((cepstra_of(spoken.frames.bands) - self._said[0]) / self._said[1], -4, 4)
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
        self._trust = (lifter().mean() / (left * np.mean(lifter() / left))).astype(np.float32)
        return found.astype(np.float32)


def unsung_seconds(song: Song) -> float:
    """How long there is singing outside of all phrases."""
    source = song.source
    sung = source.voiced & (source.level > source.loud - SUNG_TRIM_DB)
    for window in song.windows:
        sung[max(0, window.start - 20) : window.stop + 20] = False
    return float(sum(stop - start for start, stop in runs(sung) if stop - start > 40) * FRAME_SECONDS)
