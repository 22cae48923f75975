"""Several voices in one recording: each turn is a request to the engine, all of them are one synthesis."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voices.engines.interface import Engine, Model, Piece, Reference, SynthesisRequest, pause_of
from voices.speech.loudness import block_powers, loudness
from voices.text.lexicon import Lexicon
from voices.text.reading import Reading

TARGET_LUFS = -20.0  # as loud as most speech is published, with room for its peaks
MAX_GAIN_DB = 15.0
CEILING = 0.97
BUSY_SECONDS = 1.0

Spoken = list[tuple[str, float, float]]  # sentences, each with the seconds at which it begins and ends


@dataclass(frozen=True)
class Line:
    """One turn. speaker: names whose voice it is; pause_seconds: of silence behind it, which nothing follows at the
    end."""

    request: SynthesisRequest
    speaker: str
    pause_seconds: float


def line_of(
    turn: dict[str, Any],
    reference: Reference,
    model_id: str,
    model: Model | None,
    tenant: str,
    *,
    early: bool,
    reading: Reading | None = None,
) -> Line:
    """turn: as `Synthesis.turns` keeps it; early, reading: as in SynthesisRequest."""
    request = SynthesisRequest(
        turn["text"],
        turn["language"],
        reference,
        turn["speed"],
        turn["temperature"],
        turn["seed"],
        model_id or None,
        early=early,
        tenant=tenant,
        model=model,
        lexicon=Lexicon.of_json(turn.get("lexicon") or []),
        reading=reading,
    )
    return Line(request, turn["voice_id"] or f"preset:{turn['preset']}", turn["pause_seconds"])


def preset_reference(preset: str) -> Reference:
    """One of the engine's own voices."""
    return Reference(np.zeros(0, np.float32), 24_000, f"preset:{preset}", preset=preset)


def voice_file(folder: str, content_hash: str) -> str:
    """Where the folder of a waiting dialogue has a copy of a saved voice's reference."""
    return f"{folder}/0-voice-{content_hash}.flac"


class Dialogue:
    """One recording of several voices, to be spoken once. early: somebody listens already."""

    def __init__(self, lines: list[Line], *, early: bool) -> None:
        self.lines = lines
        self.early = early
        self._sentences: list[int] = []  # so many of each turn that was begun

    def pieces(self, engine: Engine, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        """As Engine.synthesize, at one loudness. Raises as that; where the engine is busy between two turns, that is
        waited for."""
        levels = Levels()
        self._sentences = []
        for number, line in enumerate(self.lines):
            self._sentences.append(0)
            spoken = _patiently(engine, line.request, deadline, canceled, patient=number > 0)
            pause = line.pause_seconds if number < len(self.lines) - 1 else 0.0
            # What nobody hears yet is judged as a whole, and its last pause is exact.
            turn = spoken if self.early else _with_pause(list(spoken), pause)
            for piece in levels.even(turn, line.speaker, whole=not self.early):
                self._sentences[-1] += bool(piece.text)
                yield piece
            if canceled():
                return
            if self.early and pause:
                yield pause_of(pause)

    def times(self, spoken: Spoken) -> list[tuple[float, float]]:
        """When each turn begins and ends, in seconds. spoken: the sentences of all of them."""
        found, at, end = [], 0, 0.0
        for count in self._sentences:
            said = spoken[at : at + count]
            at += count
            begin, end = (said[0][1], said[-1][2]) if said else (end, end)
            found.append((round(begin, 3), round(end, 3)))
        return found

    def by_turn(self, spoken: Spoken) -> list[Spoken]:
        """The sentences of each turn that was begun, as far as they are in `spoken`."""
        ends = np.cumsum([0, *self._sentences])
        return [spoken[start:end] for start, end in pairwise(ends)]


def speak(
    engine: Engine, request: SynthesisRequest | Dialogue, deadline: float, canceled: Callable[[], bool]
) -> Iterator[Piece]:
    """What the engine makes of one text, or of all turns of a dialogue."""
    if isinstance(request, Dialogue):
        return request.pieces(engine, deadline, canceled)
    return engine.synthesize(request, deadline, canceled)


def _patiently(
    engine: Engine, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool], *, patient: bool
) -> Iterator[Piece]:
    begun = False
    while True:
        try:
            for piece in engine.synthesize(request, deadline, canceled):
                begun = True
                yield piece
            return
        except PublicError as error:
            busy = error.code == "engine_busy" and patient and not begun
            if not busy or canceled() or time.monotonic() + BUSY_SECONDS > deadline:
                raise
        time.sleep(BUSY_SECONDS)


def _with_pause(pieces: list[Piece], seconds: float) -> list[Piece]:
    if seconds and pieces:
        pieces[-1] = replace(pieces[-1], pause_seconds=pieces[-1].pause_seconds + seconds)
    return pieces


class Levels:
    """Makes all speakers of one recording equally loud: each has one gain a turn, from all that it has said."""

    def __init__(self) -> None:
        self._powers: dict[str, list[NDArray[np.float64]]] = defaultdict(list)

    def even(self, turn: Iterable[Piece], speaker: str, *, whole: bool) -> Iterator[Piece]:
        """whole: the turn is a list, and judged by all of it; else by its first sentence."""
        gain = None
        if whole:
            turn = list(turn)
            gain = self._gain(speaker, turn)
        for piece in turn:
            if not len(piece.samples):
                yield piece
                continue
            gain = self._gain(speaker, [piece]) if gain is None else gain
            peak = float(np.abs(piece.samples).max())
            yield replace(piece, samples=piece.samples * np.float32(min(gain, CEILING / peak if peak else gain)))

    def _gain(self, speaker: str, pieces: list[Piece]) -> float:
        """A factor."""
        known = self._powers[speaker]
        known += [block_powers(piece.samples, piece.sample_rate) for piece in pieces if len(piece.samples)]
        level = loudness(np.concatenate(known)) if known else None
        decibels = 0.0 if level is None else float(np.clip(TARGET_LUFS - level, -MAX_GAIN_DB, MAX_GAIN_DB))
        return float(10 ** (decibels / 20))
