"""Addresses of the web and of mail, said part by part, in front of all that the rules say."""

from __future__ import annotations

import re
from collections.abc import Iterable

from voices.text.words.terms import Rule, applied, terms, with_minus

_TLD = "com|org|net|edu|gov|io|ai|co|info|dev|app|uk|us|de|fr|jp|cn|eu|ca|au|me|tv|xyz|tw|hk"
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9_.+-])([A-Za-z0-9_+-]{1,64}(?:\.[A-Za-z0-9_+-]{1,64}){0,8})"
    r"@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9])"
)
_URL = re.compile(
    r"(?:https?|ftp)://[!-~]+"
    rf"|(?<![A-Za-z0-9_.@-])(?:[A-Za-z0-9_-]{{1,63}}\.){{1,8}}(?:{_TLD})(?![A-Za-z0-9_@])(?:[:/?#][!-~]*)?",
    re.IGNORECASE,
)


def say_addresses(text: str, language: str) -> str:
    """`www.example.com/a?x=1` is `example dot com slash a`: the query and the fragment are left out."""
    if "@" not in text and "." not in text and "://" not in text:
        return text
    marks = terms("mark", language)

    def named(part: str) -> str:
        part = re.sub(r"%[0-9A-Fa-f]{2}", " ", part)
        part = re.sub(r"(?<![^._])\d{3,}(?![^.])", lambda m: " ".join(m[0]), part)  # a name such as 163.com
        return "".join(f" {marks[char]} " if char in marks else char for char in part)

    def address(m: re.Match[str]) -> str:
        written = m[0].rstrip(".,;:!?\"')]>")
        rest = re.sub(r"^[a-z]+://", "", written, flags=re.IGNORECASE)
        host, _, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
        host = re.sub(r"^(?:[^@/]*@)?(?:www\.)?", "", host, flags=re.IGNORECASE)
        return (
            " ".join([named(host), *(f"{marks['/']} {named(part)}" for part in path.split("/") if part)])
            + m[0][len(written) :]
        )

    text = _EMAIL.sub(lambda m: f"{named(m[1])} {marks['@']} {named(m[2])}", text)
    return _URL.sub(address, text)


def written_out(rules: Iterable[Rule], text: str, language: str) -> str:
    """The sentence in words: its addresses, then what the rules of its language say; may come back empty."""
    return applied(rules, say_addresses(with_minus(text), language))
