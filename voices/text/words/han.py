"""What Chinese and Japanese have in common, whose numbers are Han characters: dates, codes, money, measures, signs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from voices.text.words.numbers import han_digits, roman
from voices.text.words.terms import NUMBER, ROMAN, Rule, alternatives, rule, terms

N = rf"(?:{NUMBER})"
MAX_DIGITS = 16
_POWERS = {"2": "平方", "3": "立方"}
_I = re.IGNORECASE | re.ASCII


class Han:
    """cardinal: a number in characters; digits: of a text, one by one; counted: a number as it is said before what is
    counted; dash: a pattern; called: what is said for parts of a number (see the languages)."""

    def __init__(
        self,
        language: str,
        cardinal: Callable[[int], str],
        digits: Callable[[str], str],
        counted: Callable[[str], str],
        dash: str,
        **called: str,
    ) -> None:
        self.cardinal, self.digits, self.dash, self.called = cardinal, digits, dash, called
        self.number = lru_cache(maxsize=4096)(self._number)
        self.counted = lambda text: counted(self.number(text))
        self.money, self.units = terms("money", language), terms("unit", language)
        self.signs, self.greek = terms("sign", language), terms("greek", language)

    def _number(self, text: str) -> str:
        """A number as it is written (1,234.50), said as a quantity; more than 16 digits are said one by one."""
        whole, dot, part = text.replace(",", "").partition(".")
        if len(whole) > MAX_DIGITS or (len(whole) > 1 and whole[0] == "0"):
            return self.digits(whole) + (f"{self.called['dot']}{self.digits(part)}" if dot else "")
        return self.cardinal(int(whole or "0")) + (f"点{han_digits(part)}" if dot else "")

    def to(self, m: re.Match[str]) -> str:
        return "至" if "至" in m[0] else self.called["to"]

    def first_digits(self, m: re.Match[str]) -> str:
        return self.digits(m[1])

    def all_digits(self, m: re.Match[str]) -> str:
        return self.groups(m[0])

    def groups(self, text: str) -> str:
        """A telephone or identity number, group by group."""
        return self.called["joint"].join(map(self.digits, re.findall(r"\d+", text)))

    def dates(self, year: Callable[[str], str]) -> list[Rule]:
        def date(m: re.Match[str]) -> str:
            if not (1 <= int(m[2]) <= 12 and 1 <= int(m[3]) <= 31):
                return m[0]
            return f"{year(m[1])}年{self.cardinal(int(m[2]))}月{self.cardinal(int(m[3]))}日"

        def time(m: re.Match[str]) -> str:
            hours, minutes = int(m[1]), int(m[2])
            if hours > 24 or minutes > 59:
                return f"{self.number(m[1])}{self.called['ratio']}{self.number(m[2])}"
            said = self.counted(str(hours)) + self.called["hour"]
            if minutes or (m[3] and self.called["oh"]):
                said += (self.called["oh"] if 0 < minutes < 10 else "") + self.cardinal(minutes) + "分"
            return said + (f"{self.cardinal(int(m[3]))}秒" if m[3] else "")

        return [
            rule(r"(?<=\d)T(?=\d\d:\d\d)", " "),
            rule(r"(?<![\d-])(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?![\d-]|\.\d)", date),
            rule(rf"(?<=\d){self.dash}(?=\d{{1,2}}[:：]\d\d)", self.to),
            rule(r"(?<!\d)(\d{1,2})[:：](\d{2})(?:[:：](\d{2}))?(?!\d)", time),
            rule(r"(\d)\s?[:：]\s?(?=\d)", rf"\1{self.called['ratio']}"),
            # What has an end of nothing, or is of a match, is a score.
            rule(r"(?<![\d.-])(\d{1,3})-(?=0(?![\d.-]))|(?<![\d.-])(0)-(?=\d{1,3}(?![\d.-]))", self._score),
            rule(r"(?<![\d.-])(\d{1,3})-(?=\d{1,3}(?![\d.-]).{0,12}(?:胜|勝|敗|败|逆[转転]|ドロー))", self._score),
        ]

    def _score(self, m: re.Match[str]) -> str:
        return f"{m[0][:-1]}{self.called['ratio']}"

    def codes(self, cues: str, between: str, before: str, not_before: str) -> list[Rule]:
        """cues: of a number that is read by its digits; between: what may stand there; before: of what is not counted,
        in front of the number; not_before: of what counts things, behind it."""

        def hexadecimal(m: re.Match[str]) -> str:
            return self.called["hex"] + " ".join(self.digits(char) or char.upper() for char in m[1])

        def dotted(m: re.Match[str]) -> str:
            parts = m[2].split(".")
            by_digits = self.called["dotted"] == "digits" or (len(parts) == 4 and not m[1])
            said = [self.digits(one) if by_digits or len(one) > 6 else self.cardinal(int(one)) for one in parts]
            return (m[1] or "" if self.called["dotted"] == "digits" else "") + self.called["dot"].join(said)

        def cued(m: re.Match[str]) -> str:
            return m[1] + m[2] + m[3] + self.groups(m[4])

        return [
            rule(r"(?<![A-Za-z\d])0x([0-9A-Fa-f]{1,16})(?![A-Za-z\d])", hexadecimal),
            rule(
                rf"({cues})({between})({before}[A-Za-z]{{0,3}}-?)(\d{{{self.called['least']},12}}(?:-\d{{2,8}})?)"
                rf"(?![\d.,]*\d|{not_before})",
                cued,
            ),
            rule(r"(?<![\w.])(v(?:er)?\.?)?(\d{1,6}(?:\.\d{1,6}){2,8})(?![\d.]*\d)", dotted, _I),
        ]

    def sums(self) -> list[Rule]:
        def money(m: re.Match[str]) -> str:
            name = self.money[m["sign"]]
            again = name if m["again"] else ""
            low = f"{self.counted(m['low'])}{again}{self.called['to']}" if m["low"] else ""
            minus = self.called["minus"] if m["minus"] else ""
            return minus + low + self.counted(m["amount"]) + (m["big"] or "") + name

        minus, sign = r"(?P<minus>(?<![\w)])[-−])?", rf"(?P<sign>{alternatives(self.money)})"
        amount = rf"(?P<amount>{N})\s?(?P<big>[万億亿兆千百]{{1,2}})?"
        return [
            rule(rf"{minus}{sign}\s?(?:(?P<low>{N}){self.dash}(?P<again>(?P=sign))?)?{amount}円?", money),
            rule(rf"{minus}(?:(?P<low>{N}){self.dash}(?P<again>(?!)))?{amount}\s?{sign}(?![A-Za-z])(?!\d)", money),
        ]

    def measures(self) -> list[Rule]:
        def fraction(m: re.Match[str]) -> str:
            if not int(m[3]):
                return f"{self.number(m[2])}{self.called['divided']}{self.number(m[3])}"
            whole = f"{self.number(m[1])}{self.called['whole']}" if m[1] else ""
            return f"{whole}{self.number(m[3])}{self.called['of']}{self.number(m[2])}"

        def measure(m: re.Match[str]) -> str:
            amount, unit, power, per, per_power = m.groups()
            said = self.counted(amount) + _raised(power) + self.units[unit]
            return said + (f"{self.called['per']}{_raised(per_power)}{self.units[per].rstrip('間')}" if per else "")

        def power(m: re.Match[str]) -> str:
            minus = self.called["minus"] if m[2].startswith("-") else ""
            return self.called["power"].format(m[1], minus + self.cardinal(int(m[2].lstrip("+-"))))

        unit = alternatives(self.units)
        return [
            rule(r"(?<![A-Za-z])(AC|DC)(?=\d)", r"\1 "),
            rule(r"(?<![\w)）])[-−]\s?(?=\.?\d)", self.called["minus"]),
            rule(r"(\d+)/(?=\d+\s?(?:Hz|mmHg))", rf"\1{self.called['slash']}"),
            rule(r"(?<![\d/.])(?:(\d+)\s)?(\d{1,4})/(\d{1,4})(?![\d/])", fraction),
            rule(rf"(?<![A-Za-z\d.])({N})\s?({unit})(\^[23])?(?:/({unit})(\^[23])?)?(?![A-Za-z\d^])", measure),
            rule(r"([\w)])\^([+-]?\d{1,3})", power),
        ]

    def remaining(self, script: str) -> list[Rule]:
        """Signs between numbers and elsewhere. script: of its words, as characters of a class."""
        return [
            rule(r"(?<=\d)\s?[-−]\s?(?=\d)", self.called["less"]),
            rule(r"(?<=\d)\s?[*xX]\s?(?=\d)", self.signs["×"]),
            rule(r"(?<=\d)\s?/\s?(?=\d)", self.called["divided"]),
            rule(
                rf"(?<=[{script}])(?![IVXLCDM](?![IVXLCDM]))({ROMAN})(?=[{script}。、，！？\s]|$)",
                lambda m: self.cardinal(roman(m[1])),
            ),
        ]

    def called_signs(self) -> list[Rule]:
        return [
            rule(alternatives(self.signs), lambda m: self.signs[m[0]]),
            rule(alternatives([*self.greek, *map(str.upper, self.greek)]), lambda m: self.greek[m[0].lower()]),
        ]


def _raised(power: str | None) -> str:
    return _POWERS[power[1:]] if power else ""
