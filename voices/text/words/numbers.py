"""Numbers as words, in English (by num2words), and in Han characters for Chinese and Japanese."""

from __future__ import annotations

from functools import lru_cache

from num2words import num2words

MAX_DIGITS = 15  # a longer number is read digit by digit

ENGLISH_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SCALES = ("", " thousand", " million", " billion", " trillion")
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


@lru_cache(maxsize=2000)
def _below_1000(number: int) -> str:
    words: str = num2words(number)
    return words.replace("-", " ").replace(" and ", " ")


def cardinal(number: int) -> str:
    """0 to 10^15 - 1: `one thousand two hundred one`."""
    groups: list[int] = []
    rest = number
    while rest:
        rest, group = divmod(rest, 1000)
        groups.append(group)
    named = zip(groups, _SCALES, strict=False)  # no number that is said so has more groups
    return " ".join(_below_1000(group) + scale for group, scale in [*named][::-1] if group) or "zero"


@lru_cache(maxsize=2000)
def ordinal(number: int) -> str:
    words: str = num2words(number, to="ordinal")
    return words.replace("-", " ").replace(" and ", " ").replace(",", "")


def year(number: int) -> str:
    """1905 is `nineteen oh five`, 2008 `two thousand eight`."""
    century, rest = divmod(number, 100)
    if not 1000 <= number < 10000 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    last = "hundred" if rest == 0 else f"oh {_below_1000(rest)}" if rest < 10 else _below_1000(rest)
    return f"{_below_1000(century)} {last}"


def spoken_digits(text: str) -> str:
    """The digits of a text, one by one, in English."""
    return " ".join(ENGLISH_DIGITS[int(char)] for char in text if char.isdecimal())


def roman(text: str) -> int:
    """The value of a well-formed Roman numeral in capitals."""
    values = [_ROMAN[char] for char in text]
    return sum(-value if value < max(values[place:]) else value for place, value in enumerate(values))


def han_digits(text: str, digits: str = "零一二三四五六七八九") -> str:
    """The digits of a text, one by one."""
    return "".join(digits[int(char)] for char in text if char.isdecimal())


def chinese(number: int) -> str:
    """0 to 10^16 - 1 as a number: 10203 is 一万零二百零三."""
    if number == 0:
        return "零"
    out = ""
    skipped = False
    for power, unit in ((10**12, "万亿"), (10**8, "亿"), (10**4, "万"), (1, "")):
        group, number = divmod(number, power)
        if group:
            out += "零" if out and (skipped or group < 1000) else ""
            out += _thousands(group, one="一", zero="零") + unit
        skipped = not group
    return out.removeprefix("一") if out.startswith("一十") else out


def japanese(number: int) -> str:
    """0 to 10^16 - 1 in kanji: 10203 is 一万二百三."""
    if number == 0:
        return "零"
    out = ""
    for power, unit in ((10**12, "兆"), (10**8, "億"), (10**4, "万"), (1, "")):
        group, number = divmod(number, power)
        out += _thousands(group, one="", zero="") + unit if group else ""
    return out


def _thousands(number: int, *, one: str, zero: str) -> str:
    """1 to 9999; one: the digit before 十, 百 and 千; zero: what stands for skipped places."""
    out = ""
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, power)
        if digit:
            out += (one if digit == 1 and unit else "零一二三四五六七八九"[digit]) + unit
        elif out and number and not out.endswith("零"):
            out += zero
    return out
