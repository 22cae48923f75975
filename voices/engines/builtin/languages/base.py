"""What a base voice is: a synthesiser of one language, whose speech is then converted to the reference's voice."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from voiceproject.errors import PublicError

from ..world import Float32

# Of a text that has letters; one without any is refused before an engine sees it.
ONLY_MARKUP = (
    "There is nothing to speak in this text: markup such as <b> and bare signs are not read aloud. Write some words."
)


def nothing_spoken() -> PublicError:
    return PublicError("validation_error", ONLY_MARKUP, {"text": [ONLY_MARKUP]})


class BaseVoice(Protocol):
    """One voice of one synthesiser. Loading its model is done once, in the constructor.

    name: unique over all languages, stable over processes (statistics are kept on disk under it);
    language: `en`, `ja`, `zh`; version: changes whenever the sound of the voice changes (package version, settings);
    beta, beta_aligned: the share of the mapping by pairs, without and with the reference's transcript (more is nearer
    to the reference, and loses more words); usual_tempo: how fast people read, against this voice.
    """

    name: str
    language: str
    version: str
    beta: float
    beta_aligned: float
    usual_tempo: float

    def speak(self, text: str, speed: float, rng: np.random.Generator, temperature: float) -> tuple[Float32, int]:
        """One sentence: float32 mono (n,) in -1..1 and its sample rate in Hz.

        speed: 2 is twice as fast, pitch unchanged. rng decides every random choice, so that an equal state gives equal
        samples; temperature 0.1-1 scales how much is left to chance.
        Raises PublicError validation_error (field `text`) where nothing in the text can be spoken.
        """
        ...

    def calibration(self) -> list[str]:
        """Sentences in the voice's language, about 45 s of speech in all, that cover its sounds."""
        ...

    def prose(self) -> list[str]:
        """Ten sentences or so as texts have them: lists are read in another melody.

        Empty where the calibration sentences are such themselves.
        """
        ...


class Language(Protocol):
    """A module of this package (english, japanese, chinese) offers these names."""

    NAMES: tuple[str, ...]
    """Names of its voices as presets, a female one first and a male one last (one voice alone stands for both)."""

    SOURCES: tuple[str, ...]
    """Names of the base voices that are converted to a reference's, in the same order."""

    def load(self, name: str) -> BaseVoice:
        """The base voice of that name. Costs up to seconds and the model's memory: callers keep it."""
        ...
