"""What SSML's <say-as> makes of its content, in each language."""

from __future__ import annotations

import re
from collections.abc import Callable

from voices.text.words import numbers

_MINUS = {"zh": "负", "yue": "负", "ja": "マイナス"}


def _characters(text: str, language: str) -> str:
    return " ".join(_digits(char, language) if char in "0123456789" else char.upper() for char in "".join(text.split()))


def _digits(text: str, language: str) -> str:
    if not re.search(r"\d", text):
        raise ValueError("there are no digits in it.")
    return numbers.digits(text, language)


def _number(text: str) -> int:
    plain = re.sub(r"[\s,]", "", text)
    if not re.fullmatch(r"\d{1,15}", plain):
        raise ValueError("it needs a whole number of at most 15 digits.")
    return int(plain)


def _cardinal(text: str, language: str) -> str:
    if "." in text:
        return text  # which is read as a decimal in any case
    unsigned = re.sub(r"^\s*[-−]", "", text)
    minus = _MINUS.get(language, "minus ") if unsigned != text else ""
    return minus + numbers.cardinal(_number(unsigned), language)


def _ordinal(text: str, language: str) -> str:
    number = _number(re.sub(r"(?<=\d)(?:st|nd|rd|th)\s*$|^第", "", text.strip()))
    return f"第{numbers.cardinal(number, language)}" if language in _MINUS else numbers.ordinal(number)


SAID_AS: dict[str, Callable[[str, str], str]] = {
    "characters": _characters,
    "spell-out": _characters,
    "verbatim": _characters,
    "digits": _digits,
    "telephone": _digits,
    "cardinal": _cardinal,
    "number": _cardinal,
    "ordinal": _ordinal,
    # The normalisers know these by their shape.
    **dict.fromkeys(("currency", "date", "fraction", "time", "unit"), lambda text, language: text),
}


def said_as(how: str, text: str, language: str, style: str = "") -> str:
    """The words of a text that is said `how`. style: the order of a date (`dmy`). Raises ValueError."""
    if how == "date" and style:
        return _date(text, style.lower())
    return SAID_AS[how](text.strip(), language)


def _date(text: str, style: str) -> str:
    parts = re.findall(r"\d+", text)
    if sorted(style) not in (list("dmy"), list("dm"), list("my"), list("y")) or len(parts) != len(style):
        raise ValueError("a date's format is an order of y, m and d, with a number for each.")
    found = dict(zip(style, parts, strict=True))
    if len(style) == 3:
        return f"{found['y']}-{int(found['m']):02}-{int(found['d']):02}"
    return "/".join(found[part] for part in "ymd" if part in found)
