"""What is sung, and when: phrases with times, from lyrics, from a recogniser, or from both.

With lyrics and a recogniser the lyrics say the words and the recogniser the times. With lyrics alone their lines are
laid on the vocal's phrases by its pauses and by length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

from common.recognition import Heard, units

from .frames import FRAME_SECONDS, SUNG_TRIM_DB, Frames, Phrase, Span, closed, runs

PHRASE_GAP_SECONDS = 0.35
LONG_PHRASE_SECONDS = 8.0
LONG_PHRASE_GAP_SECONDS = 0.12
MAX_UNITS = 24
PAUSE_SECONDS = 0.18
SEGMENT_SECONDS = 0.12

_VOWELS = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ]+")
_SECTION = re.compile(r"^\s*(\[[^\]]*\]|\([^)]*\))\s*$")
_LRC = re.compile(r"\[\d+:\d+(?:[.:]\d+)?\]")


def lines_of(text: str) -> list[str]:
    """The lines to be sung: without empty ones, without headings such as [Chorus], without times of an .lrc file."""
    lines = [_LRC.sub("", line).strip() for line in text.splitlines()]
    return [line for line in lines if units(line) and not _SECTION.match(line)]


def syllables(text: str) -> int:
    """About how many syllables a text has."""
    return sum(1 if not unit.isascii() and len(unit) == 1 else _of_word(unit) for unit in units(text)) or 1


def _of_word(word: str) -> int:
    count = len(_VOWELS.findall(word))
    return max(1, count - (count > 1 and word.endswith("e") and not word.endswith("le")))


def spans(wanted: Sequence[str], heard: Sequence[Heard]) -> tuple[Span | None, ...]:
    """When each of the wanted units was heard, None where it was not."""
    said, times = _units_heard(heard)
    found: list[Span | None] = [None] * len(wanted)
    for block in SequenceMatcher(None, list(wanted), said, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            found[block.a + offset] = times[block.b + offset]
    return tuple(found)


def _units_heard(heard: Sequence[Heard]) -> tuple[list[str], list[Span]]:
    said: list[str] = []
    times: list[Span] = []
    for word in heard:
        parts = units(word.text)
        step = (word.end - word.start) / len(parts)
        for number, part in enumerate(parts):
            said.append(part)
            times.append(Span(word.start + number * step, word.start + (number + 1) * step))
    return said, times


# --- phrases --------------------------------------------------------------------------------------------------


def from_heard(heard: Sequence[Heard], seconds: float) -> list[Phrase]:
    """What was recognised, cut into phrases at its pauses."""
    groups: list[list[Heard]] = []
    for word in heard:
        if groups:
            last = groups[-1]
            gap = word.start - last[-1].end
            long = last[-1].end - last[0].start > LONG_PHRASE_SECONDS or len(last) >= MAX_UNITS
            if gap < (LONG_PHRASE_GAP_SECONDS if long or word.gap else PHRASE_GAP_SECONDS) and not (
                long and len(last) >= 2 * MAX_UNITS
            ):
                last.append(word)
                continue
        groups.append([word])
    phrases = []
    for group in groups:
        text = "".join(word.text for word in group).strip()
        phrases.append(Phrase(text, group[0].start, group[-1].end, spans(units(text), group)))
    return in_order(phrases, seconds)


def in_order(phrases: Sequence[Phrase], seconds: float) -> list[Phrase]:
    """The phrases without overlaps and within the vocal; one of which nothing is left goes."""
    kept: list[Phrase] = []
    for phrase in sorted(phrases, key=lambda p: p.start):
        start, end = max(phrase.start, 0.0), min(phrase.end, seconds)
        if kept and start < kept[-1].end:
            middle = (start + kept[-1].end) / 2
            if middle > kept[-1].start + 0.05:
                kept[-1] = replace(kept[-1], end=middle)
            start = kept[-1].end
        if end - start > 0.05:
            kept.append(replace(phrase, start=start, end=end))
    return kept


def from_lyrics_and_heard(lines: Sequence[str], heard: Sequence[Heard], source: Frames) -> list[Phrase]:
    """The lines at the times at which their words were heard. Lines of which too little was heard are laid into what
    is sung between their neighbours; [] where hardly anything matches."""
    wanted = [units(line) for line in lines]
    found = spans([unit for line in wanted for unit in line], heard)
    placed: list[Phrase | None] = []
    first = 0
    for line, parts in zip(lines, wanted, strict=True):
        own = found[first : first + len(parts)]
        first += len(parts)
        known = [number for number, span in enumerate(own) if span is not None]
        if len(known) < max(1, math.ceil(0.25 * len(parts))):
            placed.append(None)
            continue
        times = [span for span in own if span is not None]
        pace = sum(span.end - span.start for span in times) / len(times)
        start = times[0].start - known[0] * pace
        end = times[-1].end + (len(parts) - 1 - known[-1]) * pace
        placed.append(Phrase(line, start, end, own))
    if not any(placed):
        return []
    seconds = len(source) * FRAME_SECONDS
    number = 0
    phrases = [phrase for phrase in placed if phrase is not None]
    while number < len(placed):
        stop = number
        while stop < len(placed) and placed[stop] is None:
            stop += 1
        if stop > number:
            before = placed[number - 1].end if number else 0.0  # type: ignore[union-attr]
            after = placed[stop].start if stop < len(placed) else seconds  # type: ignore[union-attr]
            phrases += lay_out(lines[number:stop], source, before, after)
        number = stop + 1
    return in_order(phrases, seconds)


# --- lyrics without a recogniser ------------------------------------------------------------------------------


def segments(source: Frames, low: float = 0.0, high: float = math.inf) -> list[Span]:
    """What is sung between two times, cut at pauses."""
    step = FRAME_SECONDS
    first, last = round(low / step), len(source) if high == math.inf else round(high / step)
    sung = (source.level > source.loud - SUNG_TRIM_DB)[first:last]
    found = []
    for start, stop in runs(closed(sung, round(PAUSE_SECONDS / step))):
        if (stop - start) * step >= SEGMENT_SECONDS and source.voiced[first + start : first + stop].mean() > 0.25:
            found.append(Span((first + start) * step, (first + stop) * step))
    return found


def lay_out(lines: Sequence[str], source: Frames, low: float = 0.0, high: float = math.inf) -> list[Phrase]:
    """The lines one after another on what is sung between two times: by length, cut at pauses where it can be.

    Dynamic programming over the vocal's segments: a line takes one or more; its length should be in proportion to its
    syllables, and the pauses should be between lines. [] where nothing is sung.
    """
    parts = segments(source, low, high)
    if not parts or not lines:
        return []
    while len(parts) < len(lines):
        parts = _with_longest_split(parts, source)
    counts = np.asarray([syllables(line) for line in lines], float)
    pace = sum(part.end - part.start for part in parts) / counts.sum()
    best = np.full((len(lines) + 1, len(parts) + 1), math.inf)
    came = np.zeros(best.shape, int)
    best[0, 0] = 0.0
    sung = np.concatenate([[0.0], np.cumsum([part.end - part.start for part in parts])])
    pauses = [0.0, *(b.start - a.end for a, b in pairwise(parts))]
    for line in range(1, len(lines) + 1):
        for stop in range(line, len(parts) - (len(lines) - line) + 1):
            inner = 0.0
            for start in range(stop - 1, line - 2, -1):
                if stop - start > 24:
                    break
                duration = sung[stop] - sung[start]
                cost = best[line - 1, start] + 2 * math.log(duration / (pace * counts[line - 1])) ** 2 + inner
                if cost < best[line, stop]:
                    best[line, stop], came[line, stop] = cost, start
                inner += 2.0 * min(pauses[start], 1.0)
    stop = len(parts)
    if not math.isfinite(best[len(lines), stop]):
        # Far more segments than the lines can take: by length alone.
        edges = np.searchsorted(sung, np.concatenate([[0.0], np.cumsum(counts)]) * pace)
        bounds = np.maximum.accumulate(
            np.clip(edges, np.arange(len(edges)), len(parts) - len(lines) + np.arange(len(edges)))
        )
    else:
        bounds = np.zeros(len(lines) + 1, int)
        for line in range(len(lines), 0, -1):
            bounds[line] = stop
            stop = int(came[line, stop])
    return [
        Phrase(line, parts[first].start, parts[last - 1].end)
        for line, first, last in zip(lines, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]


def _with_longest_split(parts: list[Span], source: Frames) -> list[Span]:
    """The longest segment in two, where it is quietest in its middle half."""
    number = int(np.argmax([part.end - part.start for part in parts]))
    part, step = parts[number], FRAME_SECONDS
    length = part.end - part.start
    first, last = round((part.start + length / 4) / step), round((part.end - length / 4) / step)
    cut = (first + int(np.argmin(source.level[first : last + 1] + 6.0 * source.voiced[first : last + 1]))) * step
    cut = min(max(cut, part.start + length / 4), part.end - length / 4)
    return [*parts[:number], Span(part.start, cut), Span(cut, part.end), *parts[number + 1 :]]
