"""An engine that is quick: a tone, a tenth of a second for each character of a sentence up to thirty."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from voices.engines.interface import EngineHealth, Piece, SynthesisRequest, pause_of
from voices.text.lexicon import Lexicon
from voices.text.reading import Reading, read


class FakeEngine:
    name = "builtin"
    languages = frozenset({"auto", "en", "zh", "ja"})
    sample_rate = 24_000

    def __init__(self) -> None:
        self.requests: list[SynthesisRequest] = []
        self.failure: BaseException | None = None
        self.before_piece: Callable[[int], None] = lambda index: None

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        self.requests.append(request)
        for index, sentence in enumerate(self.check(request.text, request.language, lexicon=request.lexicon).sentences):
            self.before_piece(index)
            if self.failure:
                raise self.failure
            if not sentence.words:
                yield pause_of(sentence.pause_seconds)
                continue
            seconds = min(3.0, 0.1 * len(sentence.text)) / request.speed
            time = np.arange(int(seconds * self.sample_rate)) / self.sample_rate
            tone = (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)
            yield Piece(tone, self.sample_rate, sentence.text, sentence.pause_seconds)

    def check(
        self, text: str, language: str, *reference: object, early: bool = False, lexicon: Lexicon | None = None
    ) -> Reading:
        return read(text, language, self.languages, lexicon=lexicon)

    def health(self) -> EngineHealth:
        return EngineHealth(self.name, available=True)
