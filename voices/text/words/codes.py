"""Codes that all languages read in the same way: accounts, hexadecimal numbers, addresses of the net, versions."""

from __future__ import annotations

import re

from voices.text.words.say_as import said_as
from voices.text.words.terms import Rule, alternatives, numeric, terms, words

STANDARD = rf"(?<![A-Za-z])(?:{alternatives(words('standard'))})[ -]?(?:[A-Z] )?"
# Of a bank, or on a card: GB29 NWBK 6016 ..., 4111 1111 ...
_ACCOUNT = r"[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}(?: ?[A-Z\d]{1,3})?|\d{4}(?: \d{4}){2,4}"
COMMON: list[Rule] = [
    numeric(r"(?<=\d)T(?=\d\d:\d\d)", " "),
    numeric(rf"(?<![A-Za-z\d])(?:{_ACCOUNT})(?![A-Za-z\d])", lambda m: re.sub(r"(?<=\d)(?=\d)", " ", m[0])),
    numeric(r"(?<!\d)(\d+)/(?=\d+\s?Hz(?![A-Za-z]))", r"\1 "),
]


def numbered(language: str) -> list[Rule]:
    """0x1F, 10.0.0.1, v1.2.3, q12h, 5! = 120."""
    called = terms("called", language)

    def dotted(m: re.Match[str]) -> str:
        parts = m[2].split(".")
        by_digits = len(parts) == 4 and not m[1] and max(map(int, parts)) < 256
        said = [said_as("digits" if by_digits or len(part) > 4 else "cardinal", part, language) for part in parts]
        again = re.search(
            r"version\s|ver\.?\s|バージョン$", m.string[max(0, m.start() - 10) : m.start()], re.IGNORECASE
        )
        version = f"{called['version'] or m[1]} " if m[1] and not again else ""
        return version + f" {called['dot']} ".join(said)

    return [
        numeric(
            r"(?<![A-Za-z\d])0x([0-9A-Fa-f]{1,16})(?![A-Za-z\d])",
            lambda m: f"{called['hex']} {said_as('characters', m[1], language)}",
        ),
        numeric(
            r"(?<![\w.])(v(?:er(?:sion)?)?\.?\s?)?(\d{1,6}(?:\.\d{1,6}){2,8})(?![\w.]*\w)",
            dotted,
            re.IGNORECASE | re.ASCII,
        ),
        numeric(r"(?<![A-Za-z])q\.?\s?(\d{1,2}(?:\s?[-–]\s?\d{1,2})?)\s?h(?![A-Za-z])\.?", called["every"]),
        numeric(r"(?<=[A-Za-z\d])!(?=\s=|\s?[+*/×÷<>≤≥)−は-])|(?<=[=+*/×÷−-]\s\d)!", called["factorial"]),
    ]
