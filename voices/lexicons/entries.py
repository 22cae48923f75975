"""Entries as clients send them, made into those that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from voiceproject.errors import PublicError
from voices.text import ipa
from voices.text.languages import LANGUAGE_NAMES, has_speech, language_code, spoken_languages
from voices.text.lexicon import Entry, written_plainly
from voices.text.pronunciation import ALPHABETS, RESPELLING, SPOKEN_IN, alphabet_called, pronounced

MAX_ENTRIES = 10_000
MAX_WORD_CHARACTERS = 100
MAX_SAY_CHARACTERS = 200
MAX_MESSAGES = 10

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NAMES = tuple(one.name for one in fields(Entry))
_DEFAULTS = {one.name: one.default for one in fields(Entry)}


@dataclass
class Checked:
    """entries: that are well; refused: what is wrong with others; warnings: what should be known of some."""

    entries: list[Entry] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def checked(self, name: str) -> list[Entry]:
        """The entries. Raises PublicError validation_error for the field of this name where any is refused."""
        if self.refused:
            more = len(self.refused) - MAX_MESSAGES
            messages = [*self.refused[:MAX_MESSAGES], *([f"And {more} more."] if more > 0 else [])]
            raise PublicError("validation_error", f"{name}: {messages[0]}", {name: messages})
        return self.entries


def check(rows: Any, name: str = "entries", *, repeated: bool = False) -> Checked:
    """Checks entries as JSON has them. repeated: of two that match alike the first one counts, with a warning; else
    the second one is refused."""
    found = Checked()
    if not isinstance(rows, list):
        found.refused.append("Must be a list of entries.")
        return found
    if len(rows) > MAX_ENTRIES:
        found.refused.append(f"A lexicon has at most {MAX_ENTRIES} entries; these are {len(rows)}.")
        return found
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows):
        try:
            entry = _entry(row)
        except ValueError as error:
            found.refused.append(f"{name}[{number}]: {error}.")
            continue
        key = _matched_by(entry)
        if key in seen and entry != found.entries[seen[key]]:
            where = f'{name}[{number}]: "{entry.word}" is there already'
            if not repeated:
                found.refused.append(f"{where}, as {name}[{seen[key]}].")
                continue
            found.warnings.append(f"{where}; the first one counts.")
        if key in seen:
            continue
        seen[key] = len(found.entries)
        found.entries.append(entry)
        if (near := _approximated(entry)) and len(found.warnings) < MAX_MESSAGES:
            found.warnings.append(f'{name}[{number}]: "{entry.word}": {near}.')
    return found


def _entry(row: Any) -> Entry:
    """Raises ValueError."""
    if not isinstance(row, dict):
        raise ValueError('it is no object such as {"word": "SQL", "say": "sequel"}')
    if strange := [str(name)[:50] for name in row if name not in _NAMES]:
        raise ValueError(f"unknown field {strange[0]}; known are: {', '.join(_NAMES)}")
    word, say = _text(row, "word", MAX_WORD_CHARACTERS), _text(row, "say", MAX_SAY_CHARACTERS)
    alphabet = alphabet_called(str(row.get("alphabet") or RESPELLING))
    if alphabet is None:
        raise ValueError(f'"{str(row["alphabet"])[:50]}" is no alphabet that is known here: {", ".join(ALPHABETS)}')
    entry = Entry(word, say, alphabet, _language(row, alphabet), _flag(row, "case_sensitive"), _flag(row, "whole_word"))
    if not written_plainly(word):
        raise ValueError(f'nothing is left of "{word}" once pictures and controls are taken out')
    try:
        if alphabet != RESPELLING:
            pronounced(word, alphabet, say)
        elif not has_speech(say):
            raise ValueError("there is nothing to speak in it")
    except ValueError as error:
        raise ValueError(f'"{word}" cannot be said as "{say[:50]}" ({alphabet}): {error}') from None
    return entry


def _text(row: dict[str, Any], name: str, most: int) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is missing")
    value = " ".join(value.split())
    if len(value) > most:
        raise ValueError(f"{name} has {len(value)} characters, at most {most} are taken")
    if _CONTROL.search(value):
        raise ValueError(f"{name} has control characters")
    return value


def _flag(row: dict[str, Any], name: str) -> bool:
    value = row.get(name)
    if value is None:
        return bool(_DEFAULTS[name])
    if not isinstance(value, bool):
        raise ValueError(f"{name} is true or false")
    return value


def _language(row: dict[str, Any], alphabet: str) -> str:
    """One that is spoken, or empty for all. Pinyin and kana have one of their own."""
    own = SPOKEN_IN.get(alphabet, frozenset())
    name = row.get("language") or ""
    code = language_code(str(name)) if name else "auto"
    if code is None:
        raise ValueError(f'"{str(name)[:50]}" is no language that is known here: {spoken_languages(LANGUAGE_NAMES)}')
    if code == "auto":
        return next(iter(own), "")
    if own and code not in own:
        raise ValueError(f"{alphabet} cannot say a word of {LANGUAGE_NAMES[code]}")
    return code


def _matched_by(entry: Entry) -> tuple[Any, ...]:
    word = written_plainly(entry.word)
    return word if entry.case_sensitive else word.casefold(), entry.case_sensitive, entry.language


def _approximated(entry: Entry) -> str:
    if entry.alphabet != "ipa":
        return ""
    near = ipa.approximated(ipa.clean(entry.say))
    return ", ".join(f"{sound} is said as {said}" for sound, said in near.items())


def rows(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """As they are kept: without defaults."""
    return [{name: value for name, value in entry.as_json().items() if value != _DEFAULTS[name]} for entry in entries]
