"""Numbers as words, in English and Japanese by num2words, and in Han characters for Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

MAX_DIGITS = 15  # a longer number is read digit by digit

_HAN = "零一二三四五六七八九"
_JAPANESE = ("ゼロ", "イチ", "ニー", "サン", "ヨン", "ゴー", "ロク", "ナナ", "ハチ", "キュー")
_ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS: dict[str, Sequence[str]] = {"zh": _HAN, "yue": _HAN, "ja": _JAPANESE}  # else English
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


@lru_cache(maxsize=4096)
def _words(number: int, **options: str) -> str:
    from num2words import num2words  # Here: it loads sixty languages, and most processes never say a number.

    words: str = num2words(number, **options)
    return words.replace("-", " ").replace(" and ", " ").replace(",", "")


def cardinal(number: int, language: str = "en") -> str:
    """0 to 10^15 - 1: `one thousand two hundred one`; 10203 is 一万零二百零三 in Chinese, 一万二百三 in Japanese."""
    if language in ("zh", "yue"):
        said = _places(number) or "零"
        return said.removeprefix("一") if said.startswith("一十") else said
    return _words(number, lang="ja" if language == "ja" else "en")


def _places(number: int) -> str:
    for power, unit in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if number >= power:
            head, rest = divmod(number, power)
            return _places(head) + unit + ("零" if 0 < rest < power // 10 else "") + _places(rest)
    return _HAN[number] if number else ""


def ordinal(number: int) -> str:
    return _words(number, to="ordinal")


def year(number: int) -> str:
    """1905 is `nineteen oh five`, 2008 `two thousand eight`."""
    return _words(number, to="year" if 1000 <= number < 10000 else "cardinal")


def digits(text: str, language: str = "en") -> str:
    """The digits of a text, one by one."""
    names = DIGITS.get(language, _ENGLISH)
    return ("" if language in DIGITS else " ").join(names[int(char)] for char in text if char.isdecimal())


@lru_cache(maxsize=4096)
def quantity(text: str, language: str = "en") -> str:
    """A number as it is written (1,234.50), as a quantity. `.5` is `point five` in English."""
    whole, dot, part = text.replace(",", "").partition(".")
    one_by_one = len(whole) > MAX_DIGITS or (len(whole) > 1 and whole[0] == "0")
    said = digits(whole, language) if one_by_one else cardinal(int(whole or "0"), language)
    if not dot:
        return said
    if language in DIGITS:
        return f"{said}点{digits(part, 'zh')}"
    return f"{said if whole else ''} point {digits(part)}".lstrip()


def roman(text: str) -> int:
    """The value of a well-formed Roman numeral in capitals."""
    values = [_ROMAN[char] for char in text]
    return sum(-value if value < max(values[place:]) else value for place, value in enumerate(values))
