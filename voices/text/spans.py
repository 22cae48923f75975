"""What in a text is never cut: addresses, numbers, dates, quotations and brackets."""

from __future__ import annotations

import re
import unicodedata

_TLD = "com|org|net|edu|gov|io|ai|co|info|dev|app|uk|us|de|fr|jp|cn|eu|ca|au|me|tv|xyz|tw|hk"
_HOST = r"(?:[A-Za-z0-9_-]{1,63}\.){1,8}"
ADDRESS = (  # of mail, then of the web
    rf"(?<![A-Za-z0-9_.+-])[A-Za-z0-9_+-]{{1,64}}(?:\.[A-Za-z0-9_+-]{{1,64}}){{0,8}}@{_HOST}[A-Za-z]{{2,24}}(?![A-Za-z0-9])"
    r"|(?:https?|ftp)://(?:[!-~]*[A-Za-z0-9/])?"
    rf"|(?<![A-Za-z0-9_.@-]){_HOST}(?:{_TLD})(?![A-Za-z0-9_@])(?::\d+)?(?:[/?#][!-~]*[A-Za-z0-9/]|/)?"
)
ATOM = re.compile(rf"{ADDRESS}|(?<![0-9])[0-9]+(?:[.,:/·'’][0-9]+)+", re.IGNORECASE)
_PAIRS = dict(zip("“「『（([【〈《«〔［", "”」』）)]】〉》»〕］", strict=True))
_CLOSERS = {closer: opener for opener, closer in _PAIRS.items()}
QUOTES = {closer: _CLOSERS[closer] for closer in "”」』"}
_MARK = re.compile('["“”「」『』（）()\\[\\]【】〈〉《》«»〔〕［］]|\n[^\\S\n]*\n')
MAX_WEIGHT = 150  # of a quotation that stays whole: a Latin letter 1, a wide character 3


def uncut(text: str) -> bytearray:
    """For each place whether a cut before its character would be inside of something."""
    inside = bytearray(len(text))
    for atom in ATOM.finditer(text):
        _fill(inside, atom.start(), atom.end())
    opened: list[tuple[str, int]] = []
    for mark in _MARK.finditer(text):
        char, place = mark[0], mark.start()
        if char[0] == "\n":
            opened.clear()
        elif char in _PAIRS:
            opened.append((char, place))
        elif char == '"' and not any(opener == '"' for opener, _ in opened[-3:]):
            # Inches, or a mark in front of nothing, open no quotation.
            after = text[place + 1 : place + 2]
            if after and not after.isspace() and not text[place - 1 : place].isdigit():
                opened.append((char, place))
        else:
            opener = _CLOSERS.get(char, '"')
            for depth in range(len(opened) - 1, max(-1, len(opened) - 9), -1):
                if opened[depth][0] == opener:
                    start = opened[depth][1]
                    del opened[depth:]
                    if place + 1 - start <= MAX_WEIGHT and _weight(text[start : place + 1]) <= MAX_WEIGHT:
                        _fill(inside, start, place + 1)
                    break
    return inside


def _fill(inside: bytearray, start: int, end: int) -> None:
    inside[start + 1 : end] = b"\x01" * max(0, end - start - 1)


def _weight(text: str) -> int:
    return sum(3 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
