"""Addresses of the web and of mail, said part by part, in front of all that the rules say."""

from __future__ import annotations

import re
from collections.abc import Iterable

from voices.text.spans import ADDRESS
from voices.text.words.terms import Rule, applied, terms, with_minus

_ADDRESS = re.compile(ADDRESS, re.IGNORECASE)


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
        host, _, path = re.split(r"[?#]", re.sub("^[a-z]+://", "", m[0], flags=re.IGNORECASE))[0].partition("/")
        mailbox, at, host = host.rpartition("@")
        if at and "://" not in m[0]:
            return f"{named(mailbox)} {marks['@']} {named(host)}"
        host = re.sub(r"^www\.", "", host, flags=re.IGNORECASE)
        return " ".join([named(host), *(f"{marks['/']} {named(part)}" for part in path.split("/") if part)])

    return _ADDRESS.sub(address, text)


def written_out(rules: Iterable[Rule], text: str, language: str) -> str:
    """The sentence in words: its addresses, then what the rules of its language say; may come back empty."""
    return applied(rules, say_addresses(with_minus(text), language))
