"""What is spoken of a text: its sentences, each in one language and in words, the pauses, and what was left out.

The one way from what a client sent to what an engine says; all engines get the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from voiceproject.errors import PublicError
from voices.text import identify
from voices.text.characters import plain
from voices.text.languages import (
    HAN,
    LANGUAGE_NAMES,
    OTHER,
    detect_language,
    has_speech,
    is_certainly_chinese,
    script_of,
    spoken_languages,
)
from voices.text.lexicon import Entry, Kept, Lexicon, Match, StandIns, protected
from voices.text.markup import MarkupError, Pause, Run, parse, with_plain_tags
from voices.text.pieces import fit
from voices.text.pronunciation import RESPELLING, SPOKEN_IN, Pronounced, pronounced
from voices.text.sentences import DEFAULT_MAX_CHARS, Sentence, split
from voices.text.spans import ATOM
from voices.text.words import chinese, english, japanese

End = Literal["none", "clause", "sentence", "paragraph"]
MAX_NAMED = 5  # things of one kind that a warning names
MAX_GROWN = 20_000  # characters that a text may have once its lexicons were applied
LETTERS = frozenset({"ipa", "pinyin"})  # what the built-in engine says as it is

_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "en": english.normalize,
    "ja": japanese.normalize,
    "yue": chinese.spell_out,
    "zh": chinese.normalize,
}
_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…", "．", "｡")
_SPACES = re.compile(r"[^\S\n]+")
_ABBREVIATED = re.compile(r"\.(?=\s\S|[^\W\d_A-Za-z])")
_CLOSING = "\"'”’)]」』）】》"


@dataclass(frozen=True)
class Notice:
    """Something that the client should know of its text. code: `left_out`, `language_guessed`, `pronunciation`."""

    code: str
    message: str


@dataclass(frozen=True)
class Spoken:
    """One sentence to speak.

    text: as it was written, without markup, empty for what a lexicon has added; words: what is said, with nothing but
    words, punctuation and what is said in letters (voices.text.pronunciation), empty only for a pause in front of
    everything; end: what it ends; rate: 2 is twice as fast as the request's speed; pause_seconds:
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
    lexicon: Lexicon | None = None,
    letters: Collection[str] = LETTERS,
) -> Reading:
    """What is spoken of a text.

    language: `auto`, or a code that all of it is in; spoken: codes of the languages that can be; early: as in
    voices.text.sentences.split; han: `ja` or `zh`, what Han characters are that could be both; letters: alphabets that
    the engine can say words in, others are read as they are written. Raises PublicError: validation_error (field text)
    for markup that cannot be followed, and where a lexicon makes the text too long; unsupported_language.
    """
    words = _Words(lexicon or Lexicon(), letters)
    parts, dropped, ignored, spoken_in = _parts(text, language, words.kept)
    sentences: list[Spoken] = []
    unread: list[str] = []
    for number, part in enumerate(parts):
        if isinstance(part, Pause):
            last = sentences.pop() if sentences else Spoken("", spoken_in, "")
            sentences.append(replace(last, pause_seconds=last.pause_seconds + part.seconds))
            continue
        again = words.protected(part.text)
        found = split(again, language, early=early and not sentences, japanese=han == "ja")
        if not found and again.strip():
            unread.append(words.kept.restored(again).strip())
        goes_on = number + 1 < len(parts) and not isinstance(parts[number + 1], Pause)
        for sentence in found:
            written = words.kept.restored(sentence.text)
            said = [one for one in words.of(sentence) if has_speech(one)]
            if not said:
                unread.append(written)
                continue
            for place, one in enumerate(said):
                whole = place + 1 == len(said)
                end = _end(sentence, one, found[-1] is sentence and goes_on) if whole else "none"
                if end == "paragraph" and not one.rstrip(_CLOSING).endswith(_SENTENCE_ENDS):
                    one += "." if sentence.language == "en" else "。"  # a heading, an item of a list
                sentences.append(Spoken("" if place else written, sentence.language, one, end, part.rate))
    if not any(sentence.words for sentence in sentences):
        sentences = []
    if strange := [sentence for sentence in sentences if sentence.language not in spoken]:
        raise unsupported([*dict.fromkeys(map(_language_name, strange))], spoken)
    notices = [*_left_out(dropped, ignored, unread), *_guessed(sentences, language, spoken), *words.notices()]
    return Reading(sentences, notices)


def occurring(text: str, lexicons: Sequence[Lexicon]) -> Lexicon:
    """What of these lexicons a text has in it; the first one comes first. Raises as `read` for markup."""
    if not any(lexicons):
        return Lexicon()
    parts, _, _, _ = _parts(text, "en", Kept())
    texts = [part.text for part in parts if not isinstance(part, Pause)]
    return Lexicon(entry for lexicon in lexicons for entry in lexicon.occurring(texts))


def _parts(text: str, language: str, kept: Kept) -> tuple[list[Run | Pause], list[str], list[str], str]:
    """The runs and pauses of a text, what was left out of it (characters, markup), and the language of most of it."""
    characters, dropped = plain(with_plain_tags(text))
    spoken_in = detect_language(ATOM.sub(" ", characters)) if language == "auto" else language
    try:
        parts, ignored = parse(characters, spoken_in, kept)
    except MarkupError as error:
        raise PublicError("validation_error", f"text: {error}", {"text": [str(error)]}) from None
    if "&" in text:  # entities may have made others
        for number, part in enumerate(parts):
            if isinstance(part, Run):
                again, more = plain(part.text, keep_stand_ins=True)
                parts[number] = Run(again, part.rate)
                dropped += more
    return parts, dropped, ignored, spoken_in


class _Words:
    """Writes out the sentences of one text."""

    def __init__(self, lexicon: Lexicon, letters: Collection[str]) -> None:
        self.kept = Kept()
        self._lexicon = lexicon
        self._letters = letters
        self._as_written: dict[str, None] = {}
        self._grown = 0

    def protected(self, text: str) -> str:
        return protected(_SPACES.sub(" ", text), self._lexicon, self.kept) if self._lexicon else text

    def of(self, sentence: Sentence) -> list[str]:
        """What is said of a sentence, in several pieces where a lexicon has made it too long for one."""
        text = self.kept.without_phrases(sentence.text)
        names = StandIns(text)
        matches = [_with_stop(text, *match) for match in self._lexicon.matches(text, sentence.language)]
        if not self._lexicon:
            return [names.resolved(_normalized(self._pronounced(text, sentence.language, names), sentence.language))]
        grown = sum(len(entry.say) - (end - start) for start, end, entry in matches if entry.alphabet == RESPELLING)
        length = len(text) + grown
        self._grown += length
        if self._grown > MAX_GROWN:
            message = f"With the lexicon it has more than {MAX_GROWN} characters, which are not spoken at once."
            raise PublicError("validation_error", f"text: {message}", {"text": [message]})
        limit = DEFAULT_MAX_CHARS.get(sentence.language, DEFAULT_MAX_CHARS["en"])
        if length <= 2 * limit and (words := self._in_context(text, matches, sentence.language, names)):
            return [names.resolved(words)]
        applied = self._applied(text, matches, sentence.language, names)
        pieces = [applied] if len(applied) <= 2 * limit else [piece.strip() for piece in fit(applied, limit)]
        return [names.resolved(_normalized(piece, sentence.language)) for piece in pieces]

    def _in_context(self, text: str, matches: Sequence[Match], language: str, names: StandIns) -> str:
        """The sentence in words, in which the lexicon's words are replaced behind the rules, so that these know what
        stands beside a number: the name of a king, `PIN`. Empty where the rules do not leave those words as they are.
        """
        found = [text[start:end] for start, end, _ in matches]
        if not found or any(char.isdigit() for word in found for char in word):
            return ""
        pattern = _occurrences(frozenset(found))
        if pattern.findall(text) != found:
            return ""
        words = _normalized(self._pronounced(text, language, names), language)
        if pattern.findall(words) != found:
            return ""
        said = iter(matches)

        def replaced(match: re.Match[str]) -> str:
            _, _, entry = next(said)
            return _normalized(self._said(entry, match[0], language, names), language)

        return pattern.sub(replaced, words)

    def _applied(self, text: str, matches: Sequence[Match], language: str, names: StandIns) -> str:
        out: list[str] = []
        position = 0
        for start, end, entry in matches:
            out += [text[position:start], self._said(entry, text[start:end], language, names)]
            position = end
        return self._pronounced("".join(out) + text[position:], language, names)

    def _pronounced(self, text: str, language: str, names: StandIns) -> str:
        """With names for what tags say in letters."""
        return self.kept.restored(text, lambda entry: self._letters_of(entry, language, names))

    def _said(self, entry: Entry, word: str, language: str, names: StandIns) -> str:
        if entry.alphabet == RESPELLING:
            return plain(entry.say)[0]
        return self._letters_of(pronounced(word, entry.alphabet, entry.say), language, names)

    def _letters_of(self, entry: Pronounced, language: str, names: StandIns) -> str:
        known = language in SPOKEN_IN.get(entry.alphabet, (language,))
        if known and entry.alphabet == "kana":
            return entry.letters
        if known and entry.alphabet in self._letters:
            return names.name(entry)
        self._as_written[entry.word] = None
        return entry.word

    def notices(self) -> list[Notice]:
        if not self._as_written:
            return []
        named = ", ".join(f'"{word[:40]}"' for word in [*self._as_written][:MAX_NAMED])
        more = f" and {len(self._as_written) - MAX_NAMED} more" if len(self._as_written) > MAX_NAMED else ""
        message = f"Read as written, since their pronunciation cannot be followed here: {named}{more}."
        return [Notice("pronunciation", message)]


def _language_name(sentence: Spoken) -> str:
    """The language, or of an unknown one the alphabet."""
    if sentence.language in LANGUAGE_NAMES:
        return LANGUAGE_NAMES[sentence.language]
    letter = next((char for char in sentence.text if script_of(char) == OTHER), None)
    name = unicodedata.name(letter, "") if letter else ""
    return f"the {name.split()[0].title()} alphabet" if name else "another alphabet"


@lru_cache(maxsize=256)
def _occurrences(words: frozenset[str]) -> re.Pattern[str]:
    """What finds these words, the longest first; those that begin or end with a letter of ASCII, not within others."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(
        ("(?<![A-Za-z0-9])" if word[:1].isascii() else "") + re.escape(word)
        + ("(?![A-Za-z0-9])" if word[-1:].isascii() else "")
        for word in longest_first
    ))  # fmt: skip


def _with_stop(text: str, start: int, end: int, entry: Entry) -> Match:
    """The match with the full stop behind it that ends no sentence, but an abbreviation."""
    return start, end + bool(_ABBREVIATED.match(text, end)), entry


def _normalized(text: str, language: str) -> str:
    normalize = _NORMALIZERS.get(language)
    return normalize(text) if normalize else text


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
    written = any(script_of(char) == HAN for char in han)  # not pinyin alone
    if language == "auto" and written and not is_certainly_chinese(han):
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
