"""Lexicons: words and phrases that are said as somebody has laid down. Pure Python.

A lexicon comes before every other rule of reading. Where several entries match, the longest does; what an entry says is
read as any text, but never looked up again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voices.text.characters import plain
from voices.text.languages import (
    DIGIT,
    FIRST_STAND_IN,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    NEUTRAL,
    OTHER,
    STAND_IN_SCRIPTS,
    STAND_INS,
    script_of,
)
from voices.text.pronunciation import RESPELLING, SPOKEN_IN, Pronounced, said

_ALIKE = str.maketrans({"’": "'", "‘": "'", "\n": " ", "\t": " ", "‑": "-", "‐": "-"})
_SPACED = (LATIN, DIGIT, OTHER, HANGUL)  # scripts with spaces between words


@dataclass(frozen=True, slots=True)
class Entry:
    """word: as it is written; say: how it is said, in the alphabet (of voices.text.pronunciation.ALPHABETS).

    language: the only one in whose sentences it counts, empty for all; whole_word: False matches inside words too.
    """

    word: str
    say: str
    alphabet: str = RESPELLING
    language: str = ""
    case_sensitive: bool = False
    whole_word: bool = True

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def counts_in(self, language: str) -> bool:
        return self.language in ("", language) and language in SPOKEN_IN.get(self.alphabet, (language,))


Match = tuple[int, int, Entry]  # where a word begins and ends


class Lexicon:
    """Entries that can be looked up fast. Of two that match alike, the one that comes first counts."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._by_key: dict[str, list[tuple[Entry, str]]] = {}
        lengths: dict[str, set[int]] = defaultdict(set)
        self._inside = False  # whether some match inside words
        for entry in self.entries:
            exact = written_plainly(entry.word)
            key = _folded(exact)
            if not key:
                continue  # Nothing is left of it in a text whose characters are plain.
            self._by_key.setdefault(key, []).append((entry, exact if entry.case_sensitive else ""))
            lengths[key[:2]].add(len(key))
            self._inside |= not entry.whole_word
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        self._first = frozenset(start[0] for start in self._lengths)

    @classmethod
    def of_json(cls, rows: Iterable[dict[str, Any]]) -> Lexicon:
        """Of what `Entry.as_json` gave. Raises TypeError."""
        return cls(Entry(**row) for row in rows)

    def as_json(self) -> list[dict[str, Any]]:
        return [entry.as_json() for entry in self.entries]

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lexicon) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def occurring(self, texts: Iterable[str]) -> list[Entry]:
        """The entries that these texts have in them: reading with them alone gives the same."""
        found: dict[Entry, None] = {}
        for text in texts:
            exact, folded = _compared(text)
            keys: dict[str, bool] = {}  # whether all entries of a key were found
            for start in self._starts(text, folded):
                for length in self._lengths_at(folded, start):
                    key = folded[start : start + length]
                    if key in self._by_key and not keys.get(key):
                        entries = self._matching(text, exact, start, start + length, key)
                        found.update(dict.fromkeys(entries))
                        keys[key] = len(entries) == len(self._by_key[key])
        return [entry for entry in self.entries if entry in found]

    def matches(self, text: str, language: str | None = None) -> Iterator[Match]:
        """Where words begin and end, from left to right, the longest at each place. language: None looks at no
        language."""
        exact, folded = _compared(text) if self.entries else ("", "")
        position = 0
        for start in self._starts(text, folded):
            if start < position:
                continue
            for length in self._lengths_at(folded, start):
                key = folded[start : start + length]
                if key not in self._by_key:
                    continue
                entries = self._matching(text, exact, start, start + length, key)
                entry = next((one for one in entries if language is None or one.counts_in(language)), None)
                if entry is not None:
                    position = start + length
                    yield start, position, entry
                    break

    def _starts(self, text: str, folded: str) -> Iterator[int]:
        """Where a word may begin."""
        first, inside = self._first, self._inside
        for start, char in enumerate(folded):
            if char in first and (inside or not start or not _joined(text[start - 1], text[start])):
                yield start

    def _lengths_at(self, folded: str, start: int) -> Sequence[int]:
        """How long the words may be that begin there, the longest first."""
        # A key of one character stands under that; one that is longer, under its first two.
        longer, single = self._lengths.get(folded[start : start + 2], ()), self._lengths.get(folded[start], ())
        left = len(folded) - start
        found = [*longer, *single] if longer and single and longer is not single else longer or single
        return [length for length in found if length <= left] if found and found[0] > left else found

    def _matching(self, text: str, exact: str, start: int, end: int, key: str) -> list[Entry]:
        """The entries of a key that match there."""
        whole = not (start and _joined(text[start - 1], text[start])) and not _goes_on(text, end)
        return [
            entry
            for entry, written in self._by_key[key]
            if (whole or not entry.whole_word) and (not written or written == exact[start:end])
        ]


def _compared(text: str) -> tuple[str, str]:
    """A text as it is compared with words, with its case and without."""
    exact = text.translate(_ALIKE)
    return exact, _folded(exact)


def written_plainly(word: str) -> str:
    """A word as it looks in a text that was made plain (voices.text.characters)."""
    if not (word.isascii() and word.isprintable()):
        word = plain(word)[0]
    return " ".join(word.translate(_ALIKE).split())


def _folded(text: str) -> str:
    """In lower case, as long as before."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _joined(before: str, after: str) -> bool:
    """Whether both are of one word, in a script that has spaces between words."""
    return script_of(before) in _SPACED and script_of(after) in _SPACED


def _goes_on(text: str, end: int) -> bool:
    if end >= len(text) or not _joined(text[end - 1], text[end]):
        return False
    # Korean particles are written onto their word.
    return not script_of(text[end - 1]) == script_of(text[end]) == HANGUL


# --- words that are kept out of the rules ----------------------------------------------------------------------------


class Kept:
    """Words of one text that no rule may touch or cut, each behind a private character of its script."""

    def __init__(self) -> None:
        self._words: list[str | Pronounced] = []

    def keep(self, word: str | Pronounced, script: str) -> str:
        """The character that stands for the word; the word itself where there are too many."""
        number = len(self._words)
        if number >= STAND_INS:
            return _written(word)
        self._words.append(word)
        return chr(FIRST_STAND_IN + STAND_IN_SCRIPTS.index(script) * STAND_INS + number)

    def restored(self, text: str, say: Callable[[Pronounced], str] | None = None) -> str:
        """The text with all words as they are written; say: gives what stands for those that are pronounced."""
        if not self._words:
            return text
        return "".join(self._restored(char, say) if ord(char) >= FIRST_STAND_IN else char for char in text)

    def without_phrases(self, text: str) -> str:
        """The text in which what is pronounced is still kept, and nothing else."""
        if not self._words:
            return text
        parts = []
        for char in text:
            if ord(char) >= FIRST_STAND_IN and not isinstance(self._word(char), Pronounced):
                char = self._restored(char, None)
            parts.append(char)
        return "".join(parts)

    def _word(self, char: str) -> str | Pronounced:
        return self._words[(ord(char) - FIRST_STAND_IN) % STAND_INS]

    def _restored(self, char: str, say: Callable[[Pronounced], str] | None) -> str:
        word = self._word(char)
        return say(word) if say is not None and isinstance(word, Pronounced) else _written(word)


def _written(word: str | Pronounced) -> str:
    return word if isinstance(word, str) else word.word


def script_of_word(word: str) -> str:
    """Of its first letter, or digit."""
    return next((script for char in word if (script := script_of(char))), NEUTRAL)


def protected(text: str, lexicon: Lexicon, kept: Kept) -> str:
    """The text with the phrases of a lexicon kept, so that no cut between sentences or languages goes through them."""
    out: list[str] = []
    position = 0
    for start, end, _ in lexicon.matches(text):
        word = text[start:end]
        if end - start < 2 or (word.isascii() and word.isalpha()):
            continue  # Nothing cuts a single word.
        out += [text[position:start], kept.keep(" ".join(word.split()), script_of_word(word))]
        position = end
    return "".join(out) + text[position:]


# Characters that neither Chinese nor Japanese has in its everyday sets.
_RARE = (
    "丆丠丩丷乆乊乛乤乥乧乪乫乬乭乮乯乲乶乷乸乺乻乼乽亁亇亐亣亪亱亴亷亸亼亽亾仌仒仦仧仸仹仺伆伇伡伣伨伩佄佅佊佦佨佭佲侢侤侰侱侴侸俕俧俫"
    "俹俻倂倃倴"
)
_PARTS = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru")


class StandIns:
    """Names that stand for the words of one sentence which are said in letters, while rules write out what is around
    them: those let a name pass."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        self._rare = iter(_RARE)
        self._number = 0
        self._words: dict[str, Pronounced] = {}

    def name(self, entry: Pronounced) -> str:
        """What is written instead of the word; the word itself where no name is left."""
        if script_of_word(entry.word) in (HAN, KANA):
            name = next((char for char in self._rare if char not in self._sentence), "")
        else:
            name = self._latin(entry.word[:1].islower())
        if not name:
            return entry.word
        self._words[name] = entry
        return name

    def _latin(self, lower: bool) -> str:
        while True:
            name = "q" + "".join(_PARTS[int(digit)] for digit in f"{self._number:03}") + "q"
            self._number += 1
            if name not in self._sentence.lower():
                return name if lower else name.capitalize()

    def resolved(self, words: str) -> str:
        """The sentence, written out, with its words as they are said."""
        for name, entry in self._words.items():
            words = words.replace(name, said(entry))
        return words
