"""The built-in speech engine: clones voices on the CPU with Python packages alone. Imports no Django."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from voiceproject.errors import EngineTimeout, PublicError
from voices.engines.interface import EngineHealth, Model, OwnModel, Piece, Reference, SynthesisRequest, pause_of
from voices.text.languages import detect_language
from voices.text.lexicon import Lexicon
from voices.text.reading import Reading, Spoken, read

from .languages.base import nothing_spoken
from .pool import Pool
from .turns import Canceled, Deadline

LANGUAGES = frozenset({"en", "ja", "zh"})
PRESETS = ("female", "male")
CLEAR = OwnModel(
    "builtin-clear",
    "Built-in, words first",
    "Words first: clearer speech, less alike. Only the reference's pitch and average timbre are copied.",
)
PAUSE_SECONDS = {"none": 0.0, "clause": 0.12, "sentence": 0.35, "paragraph": 0.6}
# Behind a mark other than a full stop, as long as the sentence ends no paragraph.
MARKS_PAUSE_SECONDS = {"?": 0.4, "？": 0.4, "…": 0.5, ":": 0.25, "：": 0.25, ";": 0.25, "；": 0.25, ",": 0.12}
MAX_CHILD_BYTES = 1200 << 20
LATE = "The text could not be spoken in time. Send a shorter text, or several."


class BuiltinEngine:
    """The engine of voices.engines.interface.Engine, with its synthesis in child processes.

    WORLD holds the interpreter's lock and may take long: in a process of its own it neither stops the web server's
    other threads nor outlives a time-out, and a crash costs one request. cache_dir: kept statistics of base voices.
    concurrency: children at most, started when needed; each sentence waits its turn in one line, in which tenants take
    turns, so that neither a long text nor many hold up another's. max_child_bytes: a child with more memory is
    replaced; queue_seconds: the longest wait for a first turn; max_waiting: how many may wait for one.
    """

    name = "builtin"
    languages = LANGUAGES
    presets = PRESETS
    pauses = PAUSE_SECONDS["sentence"], PAUSE_SECONDS["clause"]
    models = (CLEAR,)

    def __init__(
        self,
        cache_dir: Path | str | None = None,
        concurrency: int = 1,
        max_child_bytes: int = MAX_CHILD_BYTES,
        queue_seconds: float = 60.0,
        max_waiting: int = 8,
    ) -> None:
        self._pool = Pool(Path(cache_dir) if cache_dir else None, concurrency, max_child_bytes, max_waiting)
        self._queue_seconds = queue_seconds

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        return cls(
            settings.CACHE_DIR / "builtin",
            concurrency=settings.BUILTIN_CONCURRENCY,
            queue_seconds=settings.BUILTIN_QUEUE_SECONDS,
            max_waiting=settings.BUILTIN_MAX_WAITING,
        )

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        """A Piece a sentence, at 24 kHz. See voices.engines.interface.Engine for the arguments.

        Raises PublicError validation_error (field text) where there is nothing to speak or a language that the engine
        does not speak, invalid_audio where no voice is in the reference; EngineBusy, EngineTimeout, EngineError,
        EngineUnavailable.
        """
        reference = request.reference
        reading = request.reading or self.check(
            request.text, request.language, reference.transcript, reference.language,
            early=request.early, lexicon=request.lexicon,
        )  # fmt: skip
        sentences = reading.sentences
        seed = secrets.randbits(63) if request.seed is None else request.seed % (1 << 64)
        spoken = 0
        wait_until = time.monotonic() + self._queue_seconds
        for number, sentence in enumerate(sentences):
            if canceled():
                return
            if not sentence.words:
                yield pause_of(sentence.pause_seconds)
                continue
            last = number == len(sentences) - 1
            pause = 0.0 if last or sentence.pause_seconds else pause_after(sentence)
            order = {
                "text": sentence.words,
                "language": sentence.language,
                "speed": min(2.0, max(0.5, request.speed * sentence.rate)),
                "temperature": request.temperature,
                "seed": [seed, number],
                "pause_seconds": pause,
                "clear": request.model is not None and request.model.id == CLEAR.id,
            }
            try:
                with self._pool.turns.turn(request.tenant, deadline, wait_until=wait_until, canceled=canceled):
                    wait_until = math.inf  # Only the first sentence may be refused.
                    piece = self._pool.speak(order, request.reference, deadline)
            except Canceled:
                return
            except Deadline as error:
                raise EngineTimeout(LATE) from error
            except PublicError as error:
                # A sentence of signs among others is passed over, a text of nothing else is an error.
                if "text" not in error.details or (last and not spoken):
                    raise
                if sentence.pause_seconds:
                    yield pause_of(sentence.pause_seconds)
                continue
            spoken += 1
            yield replace(piece, text=sentence.text, pause_seconds=sentence.pause_seconds)

    @staticmethod
    def check(
        text: str,
        language: str,
        transcript: str | None = None,
        transcript_language: str = "auto",
        model: Model | None = None,
        early: bool = False,
        lexicon: Lexicon | None = None,
    ) -> Reading:
        """What is spoken of a text. Raises PublicError validation_error (field text), unsupported_language.

        transcript and its language tell what Han characters are that could be both; model is for engines that have to
        refuse some.
        """
        han = detect_language(transcript) if transcript and transcript_language == "auto" else transcript_language
        reading = read(text, language, LANGUAGES, early=early, han="ja" if han == "ja" else "zh", lexicon=lexicon)
        if not reading.sentences:
            raise nothing_spoken()
        return reading

    def prepare(self, reference: Reference, language: str, deadline: float) -> None:
        """Computes now the data that this language needs of a saved voice. Raises as `synthesize`."""
        order = {"prepare": True, "text": "", "language": language}
        try:
            # All voices that are prepared take turns as one tenant's sentences.
            with self._pool.turns.turn("", deadline, wait_until=time.monotonic() + self._queue_seconds):
                self._pool.speak(order, reference, deadline)
        except Deadline as error:
            raise EngineTimeout(LATE) from error

    def health(self) -> EngineHealth:
        state = self._pool.state()
        return EngineHealth(self.name, state["open"], 0.0, f"{state['children']} running", state)

    def close(self) -> None:
        """Ends all children. A request that is still running gets EngineUnavailable."""
        self._pool.close()


def pause_after(sentence: Spoken) -> float:
    """Seconds of silence behind a sentence by what it ends and with which mark, at speed 1 and of a usual speaker."""
    pause = PAUSE_SECONDS[sentence.end]
    if sentence.end != "sentence":
        return pause
    closing = sentence.words.rstrip(" \"'”’»)）]】」』")
    return MARKS_PAUSE_SECONDS.get(closing[-1:], pause)
