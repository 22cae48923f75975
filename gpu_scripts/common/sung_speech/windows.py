"""Where a phrase is sung in the vocal, and what the engine has spoken for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .frames import (
    FRAME_SECONDS,
    RATE,
    SUNG_TRIM_DB,
    VOICING_GATE_DB,
    Frames,
    Phrase,
    Take,
    Unsingable,
    clean_f0,
    closed,
    f0_and_bands,
    level_db,
    resample,
    runs,
)

SPOKEN_CEILING_HZ = 600.0
WINDOW_MARGIN_SECONDS = 0.25
SPOKEN_TRIM_DB = 38.0
SHORTEST_WINDOW_SECONDS = 0.05
STRETCH_LIMIT = 3.5  # a phrase that is sung longer needs word times to be sung well


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
    """rough: see f0_and_bands. Raises Unsingable where nothing is said in it."""
    x = resample(take.samples, take.rate, RATE)
    if len(x) < RATE // 20 or not np.isfinite(x).all() or float(np.abs(x).max()) < 1e-3:
        raise Unsingable("the engine said nothing")
    f0, bands = f0_and_bands(x.astype(np.float64), SPOKEN_CEILING_HZ, rough)
    level = level_db(x, len(f0))
    loud = float(np.percentile(level, 98))
    active = np.flatnonzero(level > loud - SPOKEN_TRIM_DB)
    f0 = clean_f0(f0, level > loud - VOICING_GATE_DB)
    start, stop = int(active[0]), int(active[-1]) + 1
    if (stop - start) * FRAME_SECONDS < SHORTEST_WINDOW_SECONDS or not f0[start:stop].any():
        raise Unsingable("the engine said nothing")
    return Spoken(take, Frames(f0, bands, level).cut(start, stop), start, rough)


def anchored(window: Window, spoken: Spoken | None = None) -> bool:
    """Whether at least half of its words are known in time, both sung and in this take (its best one by default)."""
    spoken = spoken or window.spoken
    words, said = window.phrase.words, spoken.take.words
    known = sum(one is not None and two is not None for one, two in zip(words, said, strict=False))
    return len(words) == len(said) > 0 and 2 * known >= len(words)


def voiced_share(frames: Frames) -> float:
    """The share of the loud frames, vowels mostly, in which a voice is found."""
    loud = frames.level > frames.loud - 15
    return float(frames.voiced[loud].mean()) if loud.any() else 0.0
