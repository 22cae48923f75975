"""Numbers as words, in English and Japanese by num2words, and in Han characters for Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

MAX_DIGITS = 15  # a longer number is read digit by digit

ENGLISH_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def _num2words(number: int, **options: str) -> str:
    from num2words import num2words  # Here: it loads sixty languages, and most processes never say a number.

    words: str = num2words(number, **options)
    return words


@lru_cache(maxsize=4096)
def _words(number: int, to: str) -> str:
    words = _num2words(number, to=to)
    return words.replace("-", " ").replace(" and ", " ").replace(",", "")


def cardinal(number: int) -> str:
    """0 to 10^15 - 1: `one thousand two hundred one`."""
    return _words(number, "cardinal")


def ordinal(number: int) -> str:
    return _words(number, "ordinal")


def year(number: int) -> str:
    """1905 is `nineteen oh five`, 2008 `two thousand eight`."""
    return _words(number, "year" if 1000 <= number < 10000 else "cardinal")


def spoken_digits(text: str) -> str:
    """The digits of a text, one by one, in English."""
    return " ".join(ENGLISH_DIGITS[int(char)] for char in text if char.isdecimal())


def roman(text: str) -> int:
    """The value of a well-formed Roman numeral in capitals."""
    values = [_ROMAN[char] for char in text]
    return sum(-value if value < max(values[place:]) else value for place, value in enumerate(values))


def han_digits(text: str, digits: Sequence[str] = "零一二三四五六七八九") -> str:
    """The digits of a text, one by one."""
    return "".join(digits[int(char)] for char in text if char.isdecimal())


def chinese(number: int) -> str:
    """0 to 10^16 - 1 as a number: 10203 is 一万零二百零三."""
    said = _places(number) or "零"
    return said.removeprefix("一") if said.startswith("一十") else said


def _places(number: int) -> str:
    for power, unit in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if number >= power:
            head, rest = divmod(number, power)
            return _places(head) + unit + ("零" if 0 < rest < power // 10 else "") + _places(rest)
    return "零一二三四五六七八九"[number] if number else ""


@lru_cache(maxsize=4096)
def japanese(number: int) -> str:
    """0 to 10^16 - 1 in kanji: 10203 is 一万二百三."""
    return _num2words(number, lang="ja")
