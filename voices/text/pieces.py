"""Cuts sentences that are too long into pieces: at clauses, between words, never inside a character."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from voices.text.languages import script_of

CLOSERS = frozenset("\"'”’»›)]}」』】）〉》〕］｝＂＇｣〗〙")
OPENERS = frozenset("“‘«‹([{「『【（〈《〔［｛｢〖〘¿¡$€£¥￥#＃＄")
COMMAS = frozenset(",，、､;；:：·・—–)）」』…")
_NO_LINE_START = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶーｰ々゛゜ﾞﾟｧｨｩｪｫｬｭｮｯ")
_CLAUSE_STARTERS = frozenset(
    str.split("and but or nor so yet because although though while when whenever where which who whose if unless until")
)
WORD = re.compile(r"[^\W\d_]+")


def _is_extender(char: str) -> bool:
    """Whether it is drawn with the character before it."""
    return (
        unicodedata.combining(char) != 0
        or unicodedata.category(char) in ("Mn", "Mc", "Me")
        or char in "\u200c\u200d\ufe0e\ufe0f\u20e3"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
        or char in _NO_LINE_START
    )


def _may_cut(text: str, index: int) -> bool:
    """Whether a cut before text[index] leaves whole characters on both sides."""
    before, after = text[index - 1], text[index]
    if before == "\u200d" or _is_extender(after):
        return False
    if "\U0001f1e6" <= after <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff":
        first = index - 1
        while first > 0 and "\U0001f1e6" <= text[first - 1] <= "\U0001f1ff":
            first -= 1
        return (index - first) % 2 == 0  # flags are pairs
    return not ("\u1100" <= before <= "\u11ff" and "\u1100" <= after <= "\u11ff")  # Hangul in parts


def _clause_ends(text: str, index: int) -> bool:
    """Whether a comma or its like stands before text[index], and belongs to nothing behind it."""
    return (
        text[index - 1] in COMMAS
        and text[index] not in CLOSERS
        and text[index] not in COMMAS
        and not (text[index].isdigit() and text[index - 1] in ",，:：·")
    )


def _cut_point(text: str, start: int, limit: int) -> int:
    """Where to end a piece that starts at `start` and should not be longer than `limit` characters."""
    stop = start + limit
    least = start + max(1, limit // 4)
    for index in range(stop, least, -1):
        if _clause_ends(text, index):
            return index
    for index in range(stop, least, -1):
        if text[index].isspace() or text[index - 1].isspace():
            return index
    for index in range(stop, least, -1):
        # Between scripts, or at least not inside a word or a number.
        if (
            _may_cut(text, index)
            and script_of(text[index]) != script_of(text[index - 1])
            and text[index] not in CLOSERS
        ):
            return index
    for index in range(stop, start, -1):
        if _may_cut(text, index):
            return index
    index = stop + 1
    while index < len(text) and not _may_cut(text, index):
        index += 1
    return index


def early_cut(text: str, limit: int) -> int:
    """Where to cut a sentence whose beginning is wanted soon: the end of a clause, else 0 (between other words a voice
    does not pause). limit: for the piece in front, in characters; twice as much where no clause ends earlier.
    """
    least = limit // 4
    if len(text) <= limit + least:
        return 0
    for index in range(limit, least, -1):
        if _clause_ends(text, index):
            return index
    for index in range(limit, least, -1):
        word = WORD.match(text, index)
        if text[index - 1].isspace() and word and word.group() in _CLAUSE_STARTERS:
            return index
    for index in range(limit + 1, min(2 * limit, len(text) - least)):
        if _clause_ends(text, index):
            return index
    return 0


def last_clause(text: str, least: int) -> int:
    """Where the last clause ends that is surely over, at `least` characters or later; else 0."""
    for index in range(len(text) - 1, max(1, least) - 1, -1):
        if _clause_ends(text, index):
            return index
    return 0


def fit(text: str, limit: int) -> Iterator[str]:
    start = 0
    while len(text) - start > limit:
        rest = len(text) - start
        # What is a little too long is cut near its middle rather than into a whole and a crumb.
        middle = max(limit * 3 // 4, min(limit, (rest + 1) // 2 + limit // 8))
        end = _cut_point(text, start, min(limit if rest > 2 * limit else middle, rest - 1))
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]
