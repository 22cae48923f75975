"""What Chinese and Japanese have in common, whose numbers are Han characters: dates, codes, money, measures, signs."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial

from voices.text.words.codes import COMMON, STANDARD, numbered
from voices.text.words.numbers import cardinal, digits, quantity, roman
from voices.text.words.terms import NUMBER, ROMAN, Rule, alternatives, numeric, rule, terms, words

N = rf"(?:{NUMBER})"
TIMES = r"(\d+|[\w)])\^([+-]?\d{1,3})"
_PLACE = re.compile("[区市村郡路街道巷県省座版]|町(?!田)")  # of an address: 銀座2-5三田ビル
_POWERS = {"2": "平方", "3": "立方"}
_BIG = {"K": 3, "k": 3, "M": 6, "B": 9}
_I = re.IGNORECASE | re.ASCII


class Han:
    """counted: a number as it is said before what is counted; dash: a pattern."""

    def __init__(self, language: str, counted: Callable[[str], str], dash: str) -> None:
        self.language, self.dash, self.called = language, dash, terms("called", language)
        self.number, self.cardinal, self.digits = (
            partial(say, language=language) for say in (quantity, cardinal, digits)
        )
        self.counted = lambda text: counted(self.number(text))
        self.money, self.units = terms("money", language), terms("unit", language)
        self.signs, self.keys = terms("sign", language) | terms("greek", language), terms("key", language)

    def to(self, m: re.Match[str]) -> str:
        return "至" if "至" in m[0] else self.called["to"]

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

        def standard(m: re.Match[str]) -> str:
            parts = re.findall("[-:]|[^-:]+", m[2].replace("：", ":"))
            called = {"-": self.called["hyphen"], ":": "，"}
            return m[1] + "".join(called.get(part) or self.digits(part) for part in parts)

        lasting = re.compile(rf"(?:{alternatives(words(f'duration {self.language}'))})\D{{0,3}}$")
        clock = re.compile("[午上早晚晨朝夜日号于在]\\s?$")

        def time(m: re.Match[str]) -> str:
            hours, minutes = int(m[1]), int(m[2])
            before = m.string[max(0, m.start() - 8) : m.start()]
            if m[4] or (m[3] and (lasting.search(before) or (hours < 10 > len(m[1]) and not clock.search(before)))):
                return self._duration([*m.groups("")[: 3 if m[3] else 2]], m[4] or "")
            if hours > 24 or minutes > 59:
                return f"{self.number(m[1])}{self.called['ratio']}{self.number(m[2])}"
            said = self.counted(str(hours)) + self.called["hour"]
            if minutes or (m[3] and self.called["oh"]):
                said += (self.called["oh"] if 0 < minutes < 10 else "") + self.cardinal(minutes) + "分"
            return said + (f"{self.cardinal(int(m[3]))}秒" if m[3] else "")

        match, counted = (alternatives(words(f"{kind} {self.language}")) for kind in ("score", "counter"))
        team = alternatives(words("team"))  # whose names begin with what counts things
        names, score = "一-龥々ァ-ヶー", r"(?<![\d.-])\d{1,3}"
        other = rf"\d{{1,3}}(?![\d.-])(?:(?={team})|(?!{counted}))"
        ranged = r"[-−](?=\.?\d[\d,.]*(?:~-?[\d.]+)?\s?[%万亿億元円度℃°米])"
        behind = "(?<=[一-龥ぁ-ヶ])(?<![万亿億元円度])"
        return [
            numeric(r"^(\d{1,3})[.)]\s+", r"\1、"),
            numeric(rf"({STANDARD})(\d{{3,5}}(?:[-:：]\d+)*)(?!\d)", standard),
            # 气温-3~5℃, which is no range of days.
            numeric(rf"(?<=[为是到至于得回はがをに])[-−](?=\d)|{behind}{ranged}", self.called["minus"]),
            *COMMON,
            numeric(r"(?<!\d)\d(?: \d){3,}(?!\d)", lambda m: self.digits(m[0])),
            numeric(r"(?<=\d)h(\d{1,2})\s?m(?:in)?(?![A-Za-z])", rf"{self.called['hours']}\1分"),
            numeric(rf"(\d[-/.]\d{{1,2}}){self.dash}(?=\d{{4}}[-/.]\d{{1,2}}[-/.])", rf"\1{self.called['to']}"),
            numeric(
                rf"(?<!\d)(\d{{4}})([-/.])(\d\d?)\2(\d\d?){self.dash}(\d\d?)\2(\d\d?)(?![\d.])",
                rf"\1年\3月\4日{self.called['to']}\5月\6日",
            ),
            numeric(r"(?<![\d-])(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?![\d-]|\.\d)", date),
            numeric(r"(?<![\d/.])((?:19|20)\d\d)/(0[1-9]|1[0-2])(?![\d/])", r"\1年\2月"),
            numeric(r"(?<!\d)0(?=[1-9](?:月|日|銭|時))", ""),
            # 37″50 is a time that was run; 39°54′20″ a place.
            numeric(r"(\d)\s?(?:[′'](?=\s?\d)|′)", r"\1分"),
            numeric(r"(?<=[\d分°])(\d*)\s?″(\d{1,2})(?!\d)", lambda m: f"{m[1]}秒{digits(m[2], 'zh')}"),
            numeric(r"(?<=分)(\d+(?:\.\d+)?)\s?[\"″]", r"\1秒"),
            numeric(r"(?<!\d)(\d{1,2})[:：](\d{2})(?:[:：](\d{2}))?(\.\d{1,3})?(?!\d)", time),
            numeric(r"(\d)\s?[:：]\s?(?=\d)", rf"\1{self.called['ratio']}"),
            # What has an end of nothing, or is of a match, or stands between names, is a score.
            numeric(
                rf"{score}-(?=0(?![\d.-]))|(?<![\d.-])0-(?=\d{{1,3}}(?![\d.%-]))"
                r"|(?<=\d[（(])\d{1,2}-(?=\d{1,2}[)）])|(?<![\d.-])\d-(?=\d[（(]\d{1,2}-\d{1,2}[)）])",
                self._score,
            ),
            numeric(rf"{score}-(?={other}(?:[、，, ]{{1,2}}{score}-\d+){{0,4}}.{{0,12}}(?:{match}))", self._score),
            numeric(rf"(?:{match})\D{{0,3}}\d{{1,3}}-(?={other})", self._score),
            numeric(rf"(?<=[{names}]{{2}})\d{{1,3}}-(?={other}[{names}]{{2}})", self._between_names),
        ]

    def _score(self, m: re.Match[str]) -> str:
        return f"{m[0][:-1]}{self.called['ratio']}"

    def _between_names(self, m: re.Match[str]) -> str:
        return m[0] if _PLACE.search(m.string, max(0, m.start() - 12), m.start()) else self._score(m)

    def _duration(self, parts: list[str], fraction: str) -> str:
        """parts: hours, minutes and seconds, or the last two; fraction: of the seconds, `.13`."""
        names = [self.called["hours"], "分", "秒"][-len(parts) :]
        said = [self.counted(part.lstrip("0")) + name for part, name in zip(parts, names, strict=True) if int(part)]
        return "".join(said) + digits(fraction, "zh")

    def codes(self, cues: str, between: str, before: str, least: int, not_before: str) -> list[Rule]:
        """cues: of a number that is read by its digits; between: what may stand there; before: of what is not counted,
        in front of the number; least: digits of it; not_before: of what counts things, behind it."""

        def cued(m: re.Match[str]) -> str:
            return m[1] + m[2] + m[3] + self.groups(m[4])

        return [
            numeric(r"[（(]0\d{1,4}[)）] ?\d{1,4}[- ]?\d{4}(?!\d)", self.all_digits),
            numeric(
                rf"({cues})({between})({before}[A-Za-z]{{0,3}}-?)(\d{{{least},12}}(?:-\d{{2,8}}){{0,4}})"
                rf"(?![\d.,]*\d|{not_before})",
                cued,
            ),
            *numbered(self.language),
        ]

    def sums(self) -> list[Rule]:
        def money(m: re.Match[str]) -> str:
            name, amount = self.money[m["sign"]], m["amount"]
            if m["k"]:
                amount = f"{Decimal(amount.replace(',', '')).scaleb(_BIG[m['k']]):f}"
            again = name if m["again"] else ""
            low = f"{self.counted(m['low'])}{again}{self.called['to']}" if m["low"] else ""
            minus = self.called["minus"] if m["minus"] else ""
            return minus + low + self.counted(amount) + (m["big"] or "") + name

        minus, sign = r"(?P<minus>(?<![\w)])[-−])?", rf"(?P<sign>{alternatives(self.money)})"
        amount = rf"(?P<amount>{N})\s?(?P<big>[万億亿兆千百]{{1,2}})?(?P<k>[KkMB](?![A-Za-z]))?"
        return [
            numeric(rf"{minus}{sign}\s?(?:(?P<low>{N}){self.dash}(?P<again>(?P=sign))?)?{amount}円?", money),
            numeric(rf"{minus}(?:(?P<low>{N}){self.dash}(?P<again>(?!)))?{amount}\s?{sign}(?![A-Za-z])(?!\d)", money),
        ]

    def measures(self) -> list[Rule]:
        def fraction(m: re.Match[str]) -> str:
            if not int(m[3]):
                return f"{self.number(m[2])}{self.called['divided']}{self.number(m[3])}"
            whole = f"{self.number(m[1])}{self.called['whole']}" if m[1] else ""
            return f"{whole}{self.number(m[3])}{self.called['of']}{self.number(m[2])}"

        def measure(m: re.Match[str]) -> str:
            amount, times, big, unit, power, per, per_power = m.groups()
            number = re.sub(TIMES, raised, f"{amount}{times}") if times else self.counted(amount) + big
            said = number + _raised(power) + self.units[unit]
            return said + (f"{self.called['per']}{_raised(per_power)}{self.units[per].rstrip('間')}" if per else "")

        def each(m: re.Match[str]) -> str:
            return self.called["per"] + _raised(m[2]) + self.units[m[1]]

        def raised(m: re.Match[str]) -> str:
            minus = self.called["minus"] if m[2].startswith("-") else ""
            return self.called["power"].format(m[1], minus + self.cardinal(int(m[2].lstrip("+-"))))

        unit = alternatives(self.units)
        return [
            numeric(r"(?:(?<![\w)）])|(?<=[到ら]))[-−]\s?(?=\.?\d)", self.called["minus"]),
            numeric(r"(\d+)/(?=\d+\s?mmHg)", rf"\1{self.called['over']}"),
            numeric(r"(?<![\d/.])(?:(\d+)\s)?(\d{1,4})/(\d{1,4})(?![\d/])", fraction),
            numeric(
                rf"(?:(?<![A-Za-z\d.])|(?<=(?<![A-Za-z])[AD]C))({N})(\^[+-]?\d{{1,3}})?\s?([万億亿兆千百]{{0,2}})({unit})(\^[23])?(?:/({unit})(\^[23])?)?(?![A-Za-z\d^])",
                measure,
            ),
            rule("(?<=[元次块个件万人回拍])/(?=[一-龥])", self.called["per"]),
            numeric(rf"(?<=[^\W\dA-Za-z_])/({unit})(\^[23])?(?![A-Za-z\d^])", each),
            numeric(TIMES, raised),
        ]

    def remaining(self, script: str) -> list[Rule]:
        """Signs between numbers and elsewhere. script: of its words, as characters of a class."""
        return [
            numeric(r"(?<=\d)\s?[*xX]\s?(?=\d)", self.signs["×"]),
            rule(
                rf"(?<=[{script}])(?![IVXLCDM](?![IVXLCDM]))({ROMAN})(?=[{script}。、，！？\s]|$)",
                lambda m: self.cardinal(roman(m[1])),
            ),
        ]

    def called_signs(self) -> list[Rule]:
        return [
            rule(r"[*#](?:号|(?=[键を]|キー|ボタン))|(?<=[按押打])[*#]", lambda m: self.keys[m[0][0]]),
            rule(alternatives(self.signs), lambda m: self.signs[m[0]]),
        ]


def _raised(power: str | None) -> str:
    return _POWERS[power[1:]] if power else ""
