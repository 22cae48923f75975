"""What one stream of text sounds like: the audio of several syntheses as one, and when its characters are said."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import soxr

from voiceproject.media.formats import Encoder, Output, Samples
from voiceproject.provenance.marks import mark_sent
from voices.compat.common import samples_of
from voices.compat.elevenlabs.speech import end_of, spread
from voices.speech.synthesis import SpeechStream
from voices.text.growing import ends_sentence
from voices.text.languages import HAN, KANA, has_speech, script_of

MAX_KEPT_BYTES = 8 * 1024 * 1024  # of encoded audio, before its encoder makes place for a new one


@dataclass(frozen=True)
class Chunk:
    """audio: encoded bytes; alignment: of the sentences that begin in them, None where none does."""

    audio: bytes
    alignment: dict[str, Any] | None


class Track:
    """The audio of one context. Its methods are called by one thread at a time."""

    def __init__(self, output: Output, own_clock: bool) -> None:
        """own_clock: the times of each alignment begin with its chunk; else with the track."""
        self._output = output
        self._own_clock = own_clock
        self._encoder: Encoder | None = None
        self._rate = 0
        self._bytes = 0
        self._ahead = 0.0  # seconds of silence that no alignment has counted yet
        self._pause = 0.0  # seconds that must still follow what was said last
        self._clock = 0.0  # seconds that alignments have told of
        self._settled = False
        self._unspaced = False  # What was said last ends without a space.
        self._hash = hashlib.sha256()
        self._job_id: uuid.UUID | None = None

    def speak(self, stream: SpeechStream, text: str, pauses: tuple[float, float]) -> Iterator[Chunk]:
        """The chunks of one synthesis. text: what is spoken, as it was sent; pauses: seconds of silence behind it, if
        it ends a sentence and if not. Raises as SpeechStream."""
        self._job_id = stream.job_id
        if self._unspaced and not text[0].isspace() and script_of(text[0]) not in (HAN, KANA):
            text = f" {text}"  # Clients find the ends of words by it, also across messages.
        self._unspaced = not text[-1].isspace()
        data = self._renewed(stream.sample_rate)
        aligner = Aligner(text)
        told = 0
        lead, self._pause = self._pause, 0.0
        for samples in samples_of(stream):
            alignment = None
            if len(stream.spoken) > told:
                before = stream.spoken[told - 1][2] if told else 0.0
                sentences, told = stream.spoken[told:], len(stream.spoken)
                pause = sentences[0][1] - before  # of a <break> in front of them
                alignment = self._timed(aligner, sentences, self._ahead + lead + pause)
            data += self._write(samples, stream.sample_rate, lead)
            lead = 0.0
            yield Chunk(data, alignment)
            data = b""
        if (left := aligner.rest(self._offset())) is not None:
            yield Chunk(b"", left)
        self._pause = pauses[0] if ends_sentence(text) else pauses[1]

    def _timed(self, aligner: Aligner, sentences: list[tuple[str, float, float]], lead: float) -> dict[str, Any] | None:
        seconds = lead + sentences[-1][2] - sentences[0][1]
        alignment = aligner.align(sentences, lead, self._offset())
        if alignment is None:
            self._ahead = seconds  # There are no letters to tell it of: it is told with the next ones.
        else:
            self._ahead = 0.0
            self._clock += seconds
        return alignment

    def _offset(self) -> float:
        return 0.0 if self._own_clock else self._clock

    def settle(self) -> bytes:
        """What the encoder still holds back: the client shall hear the end of a sentence, and no other comes now."""
        if self._encoder is None or self._settled:
            return b""
        self._settled = True
        seconds = self._encoder.latency_seconds
        if not seconds:
            return b""
        self._ahead += seconds
        self._pause = max(0.0, self._pause - seconds)
        return self._counted(self._encoder.write(np.zeros(round(seconds * self._rate), np.float32)))

    def close(self) -> bytes:
        """The end of the audio. Remembers what was sent by its hash. May be called twice."""
        data = b""
        if self._encoder is not None:
            data = self._counted(self._encoder.close())
            self._encoder = None
        if self._job_id is not None:
            mark_sent(self._job_id, self._hash.hexdigest(), what="speech")
            self._job_id = None
        return data

    def _renewed(self, rate: int) -> bytes:
        """Makes the encoder, also in place of one that keeps much already, whose end is returned."""
        data = b""
        if self._encoder is not None and self._bytes > MAX_KEPT_BYTES:
            data = self._counted(self._encoder.close())
            self._encoder = None
        if self._encoder is None:
            self._encoder, self._rate, self._bytes = Encoder(rate, self._output), rate, 0
        return data

    def _write(self, samples: Samples, rate: int, lead: float) -> bytes:
        assert self._encoder is not None
        if rate != self._rate:
            samples = soxr.resample(samples, rate, self._rate)
        if lead:
            samples = np.concatenate([np.zeros(round(lead * self._rate), np.float32), samples])
        self._settled = False
        return self._counted(self._encoder.write(samples))

    def _counted(self, data: bytes) -> bytes:
        self._bytes += len(data)
        self._hash.update(data)
        return data


class Aligner:
    """When the characters of a text are said, sentence by sentence: exact for these, estimated within them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def align(self, spoken: list[tuple[str, float, float]], lead: float, offset: float = 0.0) -> dict[str, Any] | None:
        """spoken: the next sentences, as in SpeechStream. The audio of the first of them, with lead seconds of silence
        in front, begins at offset; the last character ends with the last sentence's audio. None: no characters.
        """
        origin = spoken[0][1] - lead - offset
        characters: list[str] = []
        times: list[int] = []
        for sentence, begin, end in spoken:
            # The engine's sentences have single spaces. One that it has changed otherwise is not found in the text:
            # take as many characters as it has.
            words = re.compile(r"\s+".join(map(re.escape, sentence.split())))
            found = words.search(self._text, self._place)
            stop = found.end() if found else end_of(sentence, self._text, self._place)
            if not has_speech(self._text[stop:]):
                stop = len(self._text)
            for character, at, _ in spread(self._text[self._place : stop], begin - origin, end - origin):
                characters.append(character)
                times.append(round(1000 * at))
            self._place = stop
        if not characters:
            return None
        times.append(round(1000 * (spoken[-1][2] - origin)))
        durations = [after - before for before, after in pairwise(times)]
        return {"chars": characters, "charStartTimesMs": times[:-1], "charDurationsMs": durations}

    def rest(self, offset: float = 0.0) -> dict[str, Any] | None:
        """What is left of the text behind the last sentence: of no length, since nobody knows when it was said."""
        characters = list(self._text[self._place :])
        if not characters:
            return None
        starts = [round(1000 * offset)] * len(characters)
        return {"chars": characters, "charStartTimesMs": starts, "charDurationsMs": [0] * len(characters)}
