"""What is spoken of a text: its sentences, each in one language and in words, the pauses, and what was left out.

The one way from what a client sent to what an engine says; all engines get the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Literal

from voiceproject.errors import PublicError
from voices.text import identify
from voices.text.characters import plain
from voices.text.languages import (
    LANGUAGE_NAMES,
    OTHER,
    detect_language,
    has_speech,
    is_certainly_chinese,
    script_of,
    spoken_languages,
)
from voices.text.markup import MarkupError, Pause, parse
from voices.text.sentences import Sentence, split
from voices.text.spans import ATOM
from voices.text.words import chinese, english, japanese

End = Literal["none", "clause", "sentence", "paragraph"]
MAX_NAMED = 5  # things of one kind that a warning names

_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "en": english.normalize,
    "ja": japanese.normalize,
    "yue": chinese.spell_out,
    "zh": chinese.normalize,
}
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…", "．", "｡")
_CLOSING = "\"'”’)]」』）】》"


@dataclass(frozen=True)
class Notice:
    """Something that the client should know of its text. code: `left_out`, `language_guessed`."""

    code: str
    message: str


@dataclass(frozen=True)
class Spoken:
    """One sentence to speak.

    text: as it was written, without markup; words: what is said, with nothing but words and punctuation, empty only for
    a pause in front of everything; end: what it ends; rate: 2 is twice as fast as the request's speed; pause_seconds:
    of the exact pause behind it that the text asks for, 0 where it does not.
    """

    text: str
    language: str
    words: str
    end: End = "sentence"
    rate: float = 1.0
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Reading:
    """sentences: empty where there is nothing to speak."""

    sentences: list[Spoken] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    @property
    def languages(self) -> list[str]:
        return sorted({sentence.language for sentence in self.sentences if sentence.words})


def read(
    text: str,
    language: str = "auto",
    spoken: Collection[str] = tuple(LANGUAGE_NAMES),
    *,
    early: bool = False,
    han: str = "zh",
) -> Reading:
    """What is spoken of a text.

    language: `auto`, or a code that all of it is in; spoken: codes of the languages that can be; early: as in
    voices.text.sentences.split; han: `ja` or `zh`, what Han characters are that could be both. Raises PublicError:
    validation_error (field text) for markup that cannot be followed, unsupported_language.
    """
    characters, dropped = plain(text)
    spoken_in = detect_language(ATOM.sub(" ", characters)) if language == "auto" else language
    try:
        parts, ignored = parse(characters, spoken_in)
    except MarkupError as error:
        raise PublicError("validation_error", f"text: {error}", {"text": [str(error)]}) from None
    sentences: list[Spoken] = []
    unread: list[str] = []
    for number, part in enumerate(parts):
        if isinstance(part, Pause):
            last = sentences.pop() if sentences else Spoken("", spoken_in, "")
            sentences.append(replace(last, pause_seconds=last.pause_seconds + part.seconds))
            continue
        again, more = plain(part.text) if "&" in text else (part.text, [])  # entities may have made others
        dropped += more
        found = split(again, language, early=early and not sentences, japanese=han == "ja")
        if not found and again.strip():
            unread.append(again.strip())
        goes_on = number + 1 < len(parts) and not isinstance(parts[number + 1], Pause)
        for sentence in found:
            words = _words(sentence)
            if not has_speech(words):
                unread.append(sentence.text)
                continue
            end = _end(sentence, words, found[-1] is sentence and goes_on)
            if end == "paragraph" and not words.rstrip(_CLOSING).endswith(_SENTENCE_ENDS):
                words += "." if sentence.language == "en" else "。"  # a heading, an item of a list
            sentences.append(Spoken(sentence.text, sentence.language, words, end, part.rate))
    if not any(sentence.words for sentence in sentences):
        sentences = []
    if strange := [sentence for sentence in sentences if sentence.language not in spoken]:
        raise unsupported([*dict.fromkeys(map(_language_name, strange))], spoken)
    notices = [*_left_out(dropped, ignored, unread), *_guessed(sentences, language, spoken)]
    return Reading(sentences, notices)


def _language_name(sentence: Spoken) -> str:
    """The language, or of an unknown one the alphabet."""
    if sentence.language in LANGUAGE_NAMES:
        return LANGUAGE_NAMES[sentence.language]
    letter = next((char for char in sentence.text if script_of(char) == OTHER), None)
    name = unicodedata.name(letter, "") if letter else ""
    return f"the {name.split()[0].title()} alphabet" if name else "another alphabet"


def _words(sentence: Sentence) -> str:
    normalize = _NORMALIZERS.get(sentence.language)
    return normalize(sentence.text) if normalize else sentence.text


def _end(sentence: Sentence, words: str, goes_on: bool) -> End:
    if sentence.ends_paragraph:
        return "paragraph"
    if words.rstrip(_CLOSING).endswith(_SENTENCE_ENDS):
        return "sentence"
    return "none" if goes_on else "clause"


def _left_out(dropped: list[str], ignored: list[str], unread: list[str]) -> list[Notice]:
    named = [unicodedata.name(char, "").lower() or f"U+{ord(char):04X}" for char in dict.fromkeys(dropped)]
    named += dict.fromkeys(ignored)
    named += [f'"{part[:40]}"' for part in dict.fromkeys(unread) if re.search(r"\w", part)]
    if not named:
        return []
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return [Notice("left_out", f"Left out, since it is not read: {', '.join(named[:MAX_NAMED])}{more}.")]


def _guessed(sentences: list[Spoken], language: str, spoken: Collection[str]) -> list[Notice]:
    """Raises PublicError unsupported_language where `auto` finds a language that is certainly none of ours."""
    latin = " ".join(sentence.text for sentence in sentences if sentence.language == "en" and sentence.words)
    notices = []
    if (found := identify.foreign(latin)) is not None:
        name, likely = found
        if language == "auto" and likely >= identify.SURE:
            raise unsupported([name], spoken)
        verb = "is" if likely >= identify.SURE else "may be"
        notices.append(Notice("language_guessed", f"This text {verb} {name}; it was read as English."))
    han = "".join(sentence.text for sentence in sentences if sentence.language == "zh" and sentence.words)
    if language == "auto" and han and not is_certainly_chinese(han):
        notices.append(Notice("language_guessed", "Read as Chinese; say so if it is Japanese (language=ja)."))
    return notices


def unsupported(found: list[str], spoken: Collection[str]) -> PublicError:
    """found: names of languages; spoken: codes of those that are."""
    supported = sorted(set(spoken) & set(LANGUAGE_NAMES))
    message = (
        f"This text has {' and '.join(found)} in it, which is not spoken here. Spoken: {spoken_languages(supported)}."
    )
    return PublicError(
        "unsupported_language",
        f"text: {message}",
        {"field": "text", "text": [message], "found": found, "supported": supported},
    )
