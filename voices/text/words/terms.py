"""Tables of words: terms.tsv has what signs are called in each language, words.tsv what the rules know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

COLUMNS = ("en", "zh", "ja")
NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|(?<![A-Za-z\d_])\.\d+|\d+"
ROMAN = r"(?=[IVXLCDM]+(?![A-Za-z]))M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?<=[IVXLCDM])"
Said = str | Callable[[re.Match[str]], str]
Rule = tuple[re.Pattern[str], Said]


def rule(pattern: str, said: Said, flags: int = 0) -> Rule:
    """What is said for each match of a pattern."""
    return re.compile(pattern, flags), said


def applied(rules: Iterable[Rule], text: str) -> str:
    for pattern, said in rules:
        text = pattern.sub(said, text)
    return text


def alternatives(words: Iterable[str]) -> str:
    """A pattern of any of them, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _rows(name: str) -> list[list[str]]:
    lines = (Path(__file__).parent / name).read_text("utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


_TERMS = _rows("terms.tsv")
_WORDS = _rows("words.tsv")


def terms(kind: str, language: str) -> dict[str, str]:
    """From sign to name, of those that have one; `-` says that nothing is said."""
    column = 2 + COLUMNS.index(language)
    found = {sign: row[column] for row in _TERMS if row[0] == kind and row[column:] for sign in row[1].split()}
    return {sign: name.strip("-") for sign, name in found.items() if name}


def words(kind: str) -> dict[str, str]:
    """The words of English of a kind, and what is said for them."""
    found = [word.partition("=") for row in _WORDS if row[0] == kind for word in row[1].split()]
    return {word: (said or word).replace("_", " ") for word, _, said in found}
