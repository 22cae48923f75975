"""Tables of words: terms.tsv has what signs are called in each language, words.tsv what the rules know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

COLUMNS = ("en", "zh", "ja")
NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|(?<![A-Za-z\d_])\.\d+|\d+"
ROMAN = r"(?=[IVXLCDM]+(?![A-Za-z]))M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?<=[IVXLCDM])"
Said = str | Callable[[re.Match[str]], str]
_DIGIT = re.compile(r"\d")
_TERM = r"(?:(?!0\d)\d+(?:\.\d+)?[a-z]?|[A-Za-z]|\))(?:\^-?\d+)?"
_SUM = re.compile(r"[=＝≠≈≒≤≥]|[a-z)]\^")
_MINUS = re.compile(rf"(?<![A-Za-z\d#-]){_TERM}(?:\s?-\s?[(√]?{_TERM})+(?![A-Za-z\d-])|\^-(?=[a-z(])", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """What is said for each match of a pattern. needs_digit: it matches nothing without one, as most sentences are."""

    pattern: str
    said: Said
    flags: int = 0
    needs_digit: bool = False

    # At first use: to compile those of all languages takes longer than to start without them, and few processes speak.
    @cached_property
    def compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, self.flags)


rule = Rule
numeric = partial(Rule, needs_digit=True)


def applied(rules: Iterable[Rule], text: str) -> str:
    digits = _DIGIT.search(text) is not None
    for each in rules:
        if digits or not each.needs_digit:
            text = each.compiled.sub(each.said, text)
    return " ".join(text.split())


def with_minus(text: str) -> str:
    """With the minus signs of sums and equations told from hyphens and from ranges: `2x-5=0`."""
    return _MINUS.sub(lambda m: m[0].replace("-", "−"), text) if _SUM.search(text) else text


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
