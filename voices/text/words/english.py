"""English as it is said: every number, date, sum, unit, sign and address in words, one regular expression a kind.

The order matters: what is more particular comes first, and what it leaves are words. `normalize` takes one sentence
whose characters are plain (voices.text.characters).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import gcd

from voices.text.words.addresses import written_out
from voices.text.words.codes import COMMON, STANDARD, numbered
from voices.text.words.numbers import cardinal, digits, ordinal, quantity, roman, year
from voices.text.words.terms import NUMBER, ROMAN, Rule, alternatives, numeric, rule, terms, words

_N = rf"(?:{NUMBER})"
_I = re.IGNORECASE
MONTHS, WEEKDAYS, TITLES, ABBREVIATIONS = map(words, ("month", "weekday", "title", "abbreviation"))
NUMBERING = words("numbering") | words("numbering word")
REGNAL, SHOUTED, DOUBLES, SINGLES = map(words, ("regnal", "shouted", "double", "single"))
WRITTEN, EACH = words("written"), words("each")
MONEY = {sign: [*names.split(","), "", ""][:4] for sign, names in terms("money", "en").items()}
UNITS = {sign: [*names.split(","), f"{names}s"][:2] for sign, names in terms("unit", "en").items()}
SIGNS, KEYS = terms("sign", "en") | terms("greek", "en"), terms("key", "en")
_MONTHS = alternatives(MONTHS)
_MONTH = rf"(?P<month>{_MONTHS})\b\.?"
_DAY, _YEAR = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?", r"(?:,? (?P<year>\d{4})\b)?"
_HALF = r"[ap](?:\.m\.|m\b)"
# Names of days and months that are nothing else where a full stop is behind them.
_SHORT = {
    word.title(): name for word, name in (MONTHS | WEEKDAYS).items() if word.lower() != name.lower() and word != "Sun"
}
_NUMBERED = alternatives(words("numbered"))
_UNIT = alternatives(UNITS)
_FRACTIONED = alternatives(set(UNITS) - {"A", "in", "m", "s", "h", "t"})
_PER = rf"(?:\s?/\s?(?P<per>{_FRACTIONED})(?!\w))?"
_ABBREVIATED = r"(?:\.(?=\s[a-z(&]|[,;:)]))?"  # the full stop of a unit that ends no sentence
_SIGN = alternatives(sign for sign in MONEY if not sign.isalpha())
_CODE = alternatives(filter(str.isalpha, MONEY))
_BIG = r"(?:\s?(?P<big>hundred|thousand|million|billion|trillion|mil\b\.?|[kKmMbB]n?\b))?"
_OWED = r"(?P<minus>(?<![\w)])[-−])?"
_BIGS = {"k": "thousand", "m": "million", "b": "billion", "mn": "million", "bn": "billion", "mil": "million"}
_DASH = r"\s?[-–—~]\s?"
_CUES = alternatives(words("cue").values())
_RULERS = alternatives(words("ruler"))
_CALLED = {"call", "ring", "dial", "text"}  # of these only short and long numbers are codes: "call 20 people"


def _plural(amount: str, names: Sequence[str]) -> str:
    return names[0] if amount == "1" else names[1]


def _counted(amount: str, unit: str) -> str:
    return f"{quantity(amount)} {_plural(amount, UNITS[unit])}"


_MONTH_NAMES = tuple(dict.fromkeys(MONTHS.values()))


def _date(y: str | None, month: int, day: int, whole: str) -> str:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return whole
    full = int(y or 0) + (0 if len(y or "") != 2 else 1900 if int(y or 0) > 40 else 2000)
    return f"{_MONTH_NAMES[month - 1]} {ordinal(day)}" + (f", {year(full)}" if y else "")


def _slashed(m: re.Match[str]) -> str:
    """12/24/2025, and 02/28 or Wed 12/11, which are no fractions."""
    first, second = int(m[2]), int(m[4])
    month, day = (first, second) if first <= 12 else (second, first)
    dated = len(m[5] or "") == 4 or (m[3] == "/" and (m[5] or m[1] or "0" in (m[2][0], m[4][0])))
    return (m[1] or "") + _date(m[5], month, day, m[0][len(m[1] or "") :]) if dated else m[0]


def _day_of_month(m: re.Match[str]) -> str:
    """Oct. 3-5, 2024, and 3 October 2024."""
    day, month = int(m["day"]), MONTHS[m["month"].lower()]
    if not 1 <= day <= 31:
        return m[0]
    said = f"{month} {ordinal(day)}" if m.start("month") < m.start("day") else f"the {ordinal(day)} of {month}"
    last = m.groupdict().get("last")
    return said + (f" to {ordinal(int(last))}" if last else "") + (f", {year(int(m['year']))}" if m["year"] else "")


def _stop(m: re.Match[str]) -> str:
    """The full stop of an abbreviation, where it ends the sentence too."""
    return "." if m[0].endswith(".") and not m.string[m.end() :].strip("\"'”’) ") else ""


def _time(m: re.Match[str]) -> str:
    hours, minutes, seconds, half = m.groups()
    if int(hours) > 24 or int(minutes or 0) > 59 or int(seconds or 0) > 59:
        return m[0]
    said = cardinal(int(hours))
    if minutes and int(minutes):
        said += (" oh " if int(minutes) < 10 else " ") + cardinal(int(minutes))
    elif minutes and not half and not seconds:
        said += " o'clock"
    said += f" and {cardinal(int(seconds))} seconds" if seconds else ""
    return said + (f" {half[0].upper()} M" if half else "") + _stop(m)


_AT = re.compile(r"(?:\b(?:at|by|until|till|from|since|before|after)|\d{4},?|[a-z](?:st|nd|rd|th),?) $", _I)
_LASTS = re.compile(rf"\b(?:{alternatives(words('duration'))})\b[\w' ]{{0,12}}[ :]$", _I)
_LASTING = re.compile(r" (?:long|to go|left)\b")


def _duration(m: re.Match[str]) -> str:
    """`2:03:59` and `3:29.88` where they are no time of day."""
    hours, minutes, seconds, part = m.groups()
    before = m.string[max(0, m.start() - 30) : m.start()]
    lasts = part or int(hours or 0) > 24 or _LASTS.search(before) or _LASTING.match(m.string, m.end())
    if not lasts and (not hours or len(hours) > 1 or _AT.search(before)):
        return m[0]
    counted = {"h": hours or "", "min": minutes, "s": seconds + (part or "")}
    said = [_counted(amount.lstrip("0") or "0", unit) for unit, amount in counted.items() if amount.strip("0.")]
    return " and ".join([" ".join(said[:-1]), *said[-1:]]).removeprefix(" and ") or m[0]


def _grouped(m: re.Match[str]) -> str:
    """A telephone or identity number, group by group."""
    return ("plus " if m[0].lstrip("(").startswith("+") else "") + ", ".join(map(digits, re.findall(r"\d+", m[0])))


def _cued(m: re.Match[str]) -> str:
    cue, between, letters, code = m.groups()
    short = cue.lower() == "text" and len(code) in (5, 6)
    if cue.lower() in _CALLED and not short and not (len(code) == 3 and code[0] in "1456789") and len(code) < 7:
        return m[0]
    said = ", ".join(map(digits, re.findall(r"\d+", code)))
    return f"{cue}{between}{letters.strip(' -')}{' ' if letters.strip() else ''}{said}"


def _money(amount: str, big: str | None, names: Sequence[str]) -> str:
    one, many, cent, cents = names
    if big:
        return f"{quantity(amount)} {_BIGS.get(big.lower().strip(' .'), big.lower())} {many}"
    whole, _, part = amount.replace(",", "").partition(".")
    if part and cent and len(part) <= 2:
        small = int(part.ljust(2, "0"))
        said = f"{cardinal(small)} {cent if small == 1 else cents}" if small else ""
        if not int(whole or 0) and said:
            return said
        return f"{quantity(whole)} {_plural(whole, (one, many))}" + (f" and {said}" if said else "")
    return f"{quantity(amount)} {_plural(amount, (one, many))}"


def _paid(m: re.Match[str]) -> str:
    """With the sign on either side."""
    to = m.groupdict().get("to")
    said = _money(to or re.sub(r",(?=\d{2}$)", ".", m["amount"]), m["big"], MONEY[m["sign"]])
    said += f" per {UNITS[m['per']][0]}" if m["per"] else ""
    return ("minus " if m["minus"] else "") + (f"{quantity(m['amount'])} to {said}" if to else said)


_PARTS = {2: ("half", "halves"), 4: ("quarter", "quarters")}


def _fraction(m: re.Match[str]) -> str:
    whole, upper, lower = m[1], int(m[2]), int(m[3])
    unit = f" {UNITS[m[4]][bool(whole)]}" if m[4] else ""
    if not lower or (not whole and (upper > lower or lower > 1000)):
        return f"{quantity(m[2])} slash {quantity(m[3])}"
    if not whole and not unit and gcd(upper, lower) > 1:  # nobody counts in such fractions
        pair = m.string.startswith(" time", m.end()) or (upper == lower and lower not in (5, 10, 100))
        of = " " if pair else " out of "
        return f"{quantity(m[2])}{of}{quantity(m[3])}"
    name = ordinal(lower)
    one, many = _PARTS.get(lower, (name, name + "s"))
    if not whole:
        return f"{cardinal(upper)} {one if upper == 1 else many}{unit}"
    part = ("an " if one[0] in "aeiou" else "a ") + one if upper == 1 else f"{cardinal(upper)} {many}"
    return f"{quantity(whole)} and {part}{unit}"


def _measure(m: re.Match[str]) -> str:
    amount, space, unit, raised = m.groups()[:4]
    if (
        (unit == "in" and space and not m[5] and "." not in (m[0][-1], m.string[m.end() : m.end() + 1]))
        or (unit == "A" and not space)
        or (unit[-1] == "." and _stop(m))
    ):
        return m[0]  # "1 in sales", "seat 5A", "I have 3 tabs."
    single = space == "-" or re.search(r"\ban? $", m.string[max(0, m.start() - 6) : m.start()], _I)  # "a 5 km run"
    said = f"{quantity(amount)} {_raised(raised, _plural('1' if single else amount, UNITS[unit]))}"
    return f"{said} per {_raised(m[6], UNITS[m[5]][0], m[5] in ('s', 'h', 'min'))}" if m[5] else said


def _raised(power: str | None, name: str, behind: bool = False) -> str:
    if not power:
        return name
    square = power == "^2"
    if behind:
        return f"{name} {'squared' if square else 'cubed'}"
    return f"{'square' if square else 'cubic'} {name}"


def _inches(m: re.Match[str]) -> str:
    """Of a mark that closes no quotation."""
    if len(re.findall(r'(?<!\d)"', m.string[: m.start()])) % 2:
        return m[0]
    return " inch" if re.match(r"\s(?:[a-z]|[A-Z]{2})", m.string[m.end() :]) else " inches"


_SIZE = re.compile(rf"[\d.]+(?: ?× ?[\d.]+)* ?(?:{_UNIT})\b")


def _by_or_times(m: re.Match[str]) -> str:
    """`9x13` is a size, `5 x 3 = 15` a sum."""
    after = m.string[m.end() : m.end() + 12]
    if re.match(r"\d+ (?:day|week|month|night)", after):
        return " times " if m.string[m.start() - 1].isdigit() else " for "
    size = "x" in m[0] or _SIZE.match(m.string, m.end())
    return " by " if size and "=" not in after and after[0].isdigit() else " times "


def _power(m: re.Match[str]) -> str:
    exponent = m[2]
    if exponent in ("2", "3"):
        return f"{m[1]} {'squared' if exponent == '2' else 'cubed'} "
    minus = "minus " if exponent.startswith("-") else ""
    return f"{m[1]} to the power of {minus}{cardinal(int(exponent.lstrip('+-')))} "


def _roman_numbered(m: re.Match[str]) -> str:
    """`Part IX`, `Scene ii`."""
    numeral = m[2].upper()
    if numeral == "I" and m[1].islower() and re.match(r" (?!of |and |is )[a-z]", m.string[m.end() :]):
        return m[0]  # "in class I learned"
    return f"{m[1]} {cardinal(roman(numeral))}" if re.fullmatch(ROMAN, numeral) else m[0]


def _roman_named(m: re.Match[str]) -> str:
    """`Henry VIII`, `Elizabeth I and II`, `Rocky IV`."""
    ruler, name, *numerals = m.groups()
    if ruler or name in REGNAL:
        return f"{ruler}{name} " + " and ".join(f"the {ordinal(roman(one))}" for one in numerals if one)
    if len(numerals[0]) == 1 and numerals[0] != "V":
        return m[0]  # "Malcolm X", "Plan C", "John I met"
    return f"{name} " + " and ".join(cardinal(roman(one)) for one in numerals if one)


def _four_digits(m: re.Match[str]) -> str:
    """A year, unless things are counted."""
    value = int(m[0])
    after = re.match(r"\s+(?:people|men|women|children|feet|[a-z]{2,}[^\Ws]s)\b", m.string[m.end() :])
    before = re.search(r"\b(?:in|of|since|by|from|until|till|before|after|around|year|early|late|mid|to|and|the)\s$"
                       r"|\($", m.string[max(0, m.start() - 8) : m.start()], re.IGNORECASE)  # fmt: skip
    counted = after is not None and before is None
    return cardinal(value) if counted or not 1010 <= value < 2100 else year(value)


def _decade(m: re.Match[str]) -> str:
    said = year(int(m[2]))
    return m[1].strip("'’") + (f"{said[:-1]}ies" if said.endswith("y") else f"{said}s")


def _shorten(m: re.Match[str]) -> str:
    """`soooo` is `so`, `goooood` `good`: what is drawn out in lower case."""
    single, double = (re.sub(r"([a-z])\1{2,}", form, m[0]) for form in (r"\1", r"\1\1"))
    if double.lower() in DOUBLES:
        return double
    if single.lower() in SINGLES or re.search(r"([a-z])\1\1$", m[0]):
        return single
    return re.sub(r"([a-z])\1{2,}", lambda run: run[1] * (2 if run[1] in "eo" else 1), m[0])


_CAPITALS = r"(?<![\w'])(?:[A-Z][A-Z']*[A-Z](?![\w'])|[AI](?![\w'.]))"


def _calm(run: re.Match[str]) -> str:
    """Shouted text in lower case: runs of capitals with an ordinary word among them, and single emphasised words."""
    found = re.findall(_CAPITALS, run[0])
    shouting = len(found) > 1 and not SHOUTED.keys().isdisjoint(found)

    def calmed(m: re.Match[str]) -> str:
        ordinary = m[0] in SHOUTED or (shouting and len(m[0]) > 3 and re.search("[AEIOUY]", m[0]))
        return m[0].lower() if m[0] != "I" and ordinary and (len(m[0]) > 1 or shouting) else m[0]

    return re.sub(_CAPITALS, calmed, run[0])


_RULES: list[Rule] = [
    numeric(r"(?<![\w&])#(?=[A-Z]{0,3}-?\d)", "number "),
    rule(r"(?<![\w&])#(?=[^\W\d_])", "hashtag "),
    rule(r"(?<=[^\W\d] )[*#](?=[\s.,;:?\d]|$)", lambda m: KEYS[m[0]]),
    rule(r"(?<=\w)_+(?=\w)", " "),
    rule(rf"(?<![\w/])(?:{alternatives(WRITTEN)})(?![\w/#])", lambda m: WRITTEN[m[0]]),
    numeric(
        rf"(?<![\w.])(?!(?-i:RM) ?[\d,]+\.\d\d\b)({alternatives(NUMBERING)})\.?\s?(?=(?:number )?\d)",
        lambda m: f"{NUMBERING[m[1].lower()]} ",
        _I,
    ),
    numeric(r"(?<=[\dkKmMbBn])-(?=[$€£¥]\s?\d)", " to "),
    # Addresses of houses.
    numeric(r"(?<=\d )([NESW])\.(?= [A-Z\d])", lambda m: words("quarter")[m[1]]),
    rule(r"(?<=[a-z] )St\b\.?(?=\s*(?:[,;)]|[a-z]|\.?$))", "Street"),
    numeric(r"(?:(?<=, [A-Z]{2} )|(?<=[A-Z]-))\d{5,12}(?:-\d{4})?\b", _grouped),
    # Dates and times.
    numeric(r"\b(\d{1,2}(?::\d\d)?)([ap])(\s?[-–]\s?)(\d{1,2}(?::\d\d)?)([ap])\b", r"\1\2m\3\4\5m"),
    *COMMON,
    numeric(r"(?<=\d)h(\d{1,2}) ?m(?:in)?\b", r"h \1 min"),
    numeric(r"\bFY(?=(?:19|20)\d\d\b)", "FY "),
    numeric(r"(\b(?:the|early|late|mid|his|her|their)[ -]|['’]|(?<![\w.])(?=\d{4}))(\d{1,3}0)s\b", _decade, _I),
    rule(rf"\b({alternatives(WEEKDAYS)})\b\.?(?=,? [A-Z\d]|\s?[-–])", lambda m: WEEKDAYS[m[1]]),
    numeric(
        rf"(?:(?<=\d/\d\d)|(?<=\b\d{{4}})){_DASH}(?=\d{{1,2}}/\d|\d{{1,2}} (?:{_MONTHS})\b|(?:{_MONTHS})\b)", " to ", _I
    ),
    numeric(r"(?<![\d/])(0?[1-9]|1[0-2])/((?:19|20)\d\d)(?![\d/])", lambda m: f"{_MONTH_NAMES[int(m[1]) - 1]} {m[2]}"),
    numeric(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b(?!\.\d)", lambda m: _date(m[1], int(m[2]), int(m[3]), m[0])),
    numeric(r"(?<![\w./-])(\w+day,? )?(\d{1,2})([/-])(\d{1,2})(?:\3(\d{4}|\d{2}))?(?![\w/-])", _slashed),
    numeric(r"(?<![\w./-])(\d{1,2})\.(\d{1,2})\.(\d{4})\b(?!\.\d)", lambda m: _date(m[3], int(m[2]), int(m[1]), m[0])),
    numeric(rf"\b{_MONTH} {_DAY}\b(?:{_DASH}(?P<last>\d{{1,2}})\b)?(?![\d:%]|\.\d){_YEAR}", _day_of_month, _I),
    numeric(rf"\b(?:the )?{_DAY} (?:of )?{_MONTH}{_YEAR}", _day_of_month, _I),
    rule(rf"(?<=day)\s?[-–]\s?({alternatives(WEEKDAYS)})\b\.?", lambda m: " to " + WEEKDAYS[m[1]]),
    rule(rf"(?:(?<=[Oo]pen )|(?<=[Cc]losed ))({alternatives(WEEKDAYS)})\b", lambda m: WEEKDAYS[m[1]]),
    numeric(
        rf"\b(\d{{1,2}}(?:[:.]\d\d)?\s?(?:{_HALF})?){_DASH}(?=\d{{1,2}}(?:[:.]\d\d(?!\d)|\s?{_HALF}))", r"\1 to ", _I
    ),
    numeric(rf"(?<![\d:.])(?:(\d{{1,3}}):)?(\d{{1,2}}):(\d\d)(\.\d{{1,3}})?(?![\d:]|\.\d|\s?{_HALF})", _duration, _I),
    numeric(rf"(?<![\d:.])(\d{{1,2}}):(\d\d)(?::(\d\d))?(?:\s?({_HALF}))?(?![\d:])", _time, _I),
    numeric(rf"(?<![\d:.,])(\d{{1,2}})(?:\.(\d\d))?()\s?({_HALF})", _time, _I),
    # Codes.
    numeric(rf"{STANDARD}\d+(?:-\d+)*:?", lambda m: re.sub(r"(?<=\d)-", " dash ", m[0]).replace(":", ", ")),
    *numbered("en"),
    numeric(
        r"(?<![\w.])\+(?=(?:[ .()-]{0,2}\d){7})\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){1,6}(?!\w)"
        r"|(?<![\w.-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"
        r"|(?<![\w.-])\d{3}-\d{4}(?![\w-])"
        r"|\(0\d{1,4}\)[ -]?\d{3,4}(?:[ -]\d{3,4})?(?![\w-])"
        r"|(?<![\w.-])0\d{2,4}[ -]\d{3,4}(?:[ -]\d{3,4})?(?![\w-])"
        r"|(?<![\w.-])\d{1,6}(?:-\d{1,7}){2,5}(?![\w-])",
        _grouped,
    ),
    numeric(
        rf"\b({_CUES})\b((?:\.|:|,)?(?: (?:code|number|no\.?|nr\.?|is|was|in|are|now|of|the|my|your))*:? ?#?)"
        r"((?:\b[A-Z]{1,3}[ -]?)?)(\d{3,12}(?:-\d{2,8})?|\d\d-\d{3,8})(?![\w%°]|[.,]\d| (?:dollars|euros|people))",
        _cued,
        _I,
    ),
    numeric(r"\b([Tt]ext \w+ to )(\d{3,6})\b", lambda m: m[1] + digits(m[2])),
    numeric(r"(?<![\d%°])(?<![\d%°] )(?<!°[CF])(?<!°[CF] )~(?=\s?[\d$€£])", " about "),
    # Money.
    numeric(
        rf"{_OWED}(?P<sign>{_SIGN}|(?<![A-Za-z])(?:{_CODE})(?=\s?\d))\s?(?P<amount>{_N})(?:{_DASH}(?P=sign)?(?P<to>{_N}))?{_BIG}{_PER}",
        _paid,
    ),
    numeric(
        rf"{_OWED}(?<!\d)(?P<amount>\d+,\d\d(?!\d)|{_N}){_BIG}\s?(?P<sign>{_SIGN}|(?:{_CODE})\b)(?!\s?\d){_PER}", _paid
    ),
    # Measures and fractions.
    numeric(r"(?<=\d)\s?([x×])\s?(?=\d)|(?<=[\w\"″']) ([x×]) (?=\d)|(?<=\d) ([x×]) (?=[a-z])", _by_or_times),
    numeric(
        r"((?:\bBP|pressure)\b\D{0,8}\d{2,3}|\d)/(?=\d{2,3}(?:\s?mmHg)\b)|((?:\bBP|pressure)\b\D{0,8}\d{2,3})/(?=\d)",
        r"\1\2 over ",
    ),
    numeric(r"(?<![\d,])(\d+),(\d{1,2})(?![\d,])", r"\1.\2"),
    numeric(
        r"(°\s?\d{1,2}|\+\d{1,2}(?=')|(?<![\w'])[A-Z]\w+ \d{1,3}(?='(?:[).,;]|$))|\b\d{1,2}(?=['′]\d\d[\"″]/))\s?['′]",
        r"\1 minutes ",
    ),
    numeric(r"(?<=minutes )\s?0?(\d{1,2}(?:\.\d+)?)\s?(?:[\"″]|'')", r"\1 seconds "),
    numeric(r"(?<![\d.])(\d{1,2})\s?['′]\s?(\d{1,2}(?:\.\d)?)\s?(?:[\"″]|'')", r"\1ft \2in"),
    numeric(r"(?<=\d)['′](?= (?:tall|long|wide|high|deep|by|x)\b)", "ft"),
    numeric(r"(?<=\d) ?sq\.? ?(ft|in|mi|km|cm|yd|m)\b\.?", lambda m: f" {m[1]}^2{_stop(m)}", _I),
    numeric(rf"(?<![\w.^])((?:{_N})\s?%?){_DASH}(?=(?:{_N})(?![\d-])(?!-\d)(?!\s?=))", r"\1 to "),
    numeric(r"(?<![\w)\]-])[-−](?=\.?\d)", "minus "),
    numeric(rf"\b((?:{alternatives(words('out of'))})s? \d+)/(?=\d)", r"\1 of ", _I),
    numeric(
        rf"((?:{alternatives(words('rated'))})\b[\w ]{{0,9}} \d+|\d\.\d+)/(?=\d+\b(?! of))"
        rf"|(\d)/(?=\d+ (?:{alternatives(words('rating'))})\b)",
        r"\1\2 out of ",
    ),
    numeric(
        rf"(?<![\d/.,])(?:(\d+)[ -])?(\d{{1,4}})/(\d{{1,4}})(?![\d/])(?: ({_FRACTIONED})(?![\w^/]){_ABBREVIATED})?",
        _fraction,
    ),
    numeric(r"(?<=\d{4})\s?bps\b", " bits per second"),
    numeric(rf"(?<=\d)(\s?(?:{_UNIT}))/(?=\d+(?:\.\d+)?\s?(?:{_UNIT})\b)", r"\1 per "),
    numeric(
        rf"(?<![\w.])(?<![A-Z]-)({_N})([ -]?)({_UNIT})(\^[23])?(?:/({_UNIT})(\^[23])?)?(?![\w^]|\.[A-Z]){_ABBREVIATED}",
        _measure,
    ),
    numeric(rf"(\d\s?[A-Za-z]{{1,8}})\s?/({_UNIT})(?!\w)", lambda m: f"{m[1]} per {UNITS[m[2]][0]}"),
    numeric(r"\b(at|to|of|than|is|was|and|below|above|near|=) (\d[\d.,]*) K\b(?! [a-z]+s\b)", r"\1 \2 kelvins"),
    numeric(r"(?<=\d)\"(?=[\s,.;)-]|$)", _inches),
    numeric(r"([\w)])\^([+-]?\d{1,3})", _power),
    # Signs.
    numeric(r"(?<=\d)\s?\*\s?(?=[\w(])", " times "),
    numeric(r"(?<=\d):(?=\d)|(?<=\w\))[-–](?=\(\w)", " to "),
    numeric(r"(?<=\d(?:st|nd|rd|th) )[Cc]\b\.?", "century"),
    numeric(r"(?<!\w)['’](?=\d\d\b)", ""),
    rule(rf"(?<=\w)\s?/\s?({alternatives(EACH)})\b", lambda m: f" per {EACH[m[1]]}"),
    rule(r"(?<=[^\W\d_]s)/(?=[a-z]+ \d)", " per "),
    rule(r"(?<=[^\W\d_])\s?/\s?(?=[^\W\d_])", " "),
    rule(r"(?<=\w)\s?/\s?(?=\w)", " slash "),
    rule(alternatives(SIGNS), lambda m: f" {SIGNS[m[0]]} "),
    rule(rf"\b({alternatives(_SHORT)})\.(?!\w)", lambda m: _SHORT[m[1]] + _stop(m)),
    # Capitals.
    rule(
        rf"\b(?=[A-Za-z]+\.? [IVXLCDMivxl])((?i:{_NUMBERED}))\.? "
        rf"((?:{ROMAN}|[ivxl]{{2,6}})\b(?![.'’]\w)|[ivx](?=[,.;:)]|$))",
        _roman_numbered,
    ),
    rule(rf"\b({ROMAN})(?= [Cc]entur(?:y|ies)\b)", lambda m: ordinal(roman(m[1]))),
    rule(rf"\b((?:(?:{_RULERS}) )?)([A-Z][a-z]+) ({ROMAN})\b(?: and ({ROMAN})\b)?(?![.'’]\w|-\w)", _roman_named),
    # Abbreviations.
    numeric(r"\b([Ee])st\.?(?= (?:1[5-9]|20)\d\d\b)", r"\1stablished"),
    rule(rf"\b({alternatives(TITLES)})\.\s?(?=[A-Z\d]|and )", lambda m: TITLES[m[1]] + " "),
    rule(
        rf"(?<![\w.])(?=[\w.]{{1,6}}\.)({alternatives(ABBREVIATIONS)})\.(?=\s?[\d(]|\s+[a-zA-Z]|[,:])",
        lambda m: ABBREVIATIONS[m[1].lower()],
        _I,
    ),
    rule(rf"(?<![\w.])({alternatives(words('last'))})\.(?=\s*$)", lambda m: f"{ABBREVIATIONS[m[1].lower()]}.", _I),
    # `U.S.` is `U S`; its full stop stays where it ends the sentence.
    rule(r"\b(?:[A-Za-z]\.){2,}", lambda m: " ".join(m[0].replace(".", "")) + _stop(m)),
    # What numbers are left.
    numeric(r"\b(\d{1,3}(?:,\d{3})*|\d+)(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1].replace(",", "")))),
    numeric(r"(?<![\d.,A-Za-z])[1-9]\d{3}(?![\dA-Za-z]|[.,]\d)", _four_digits),
    numeric(r"(?<=[A-Za-z])-?(?=\d)|(?<=\d)-?(?=[A-Za-z])", " "),
    numeric(NUMBER, lambda m: quantity(m[0])),
    rule(r"\b[a-zA-Z]*([a-z])\1{2,}[a-z]*\b", _shorten),
    rule(r"([!?.,;:\-_*=~#/\\|])\1{3,}", r"\1\1\1"),
    rule(r"(?<=[a-z])\.(?=[a-z]{2,4}\b)", " dot "),
    rule(r"\s+([.,;:!?])(?!\w)", r"\1"),
    rule(r"(?<=[^\W_])\((?=[A-Za-z])", " ("),
    rule(rf"{_CAPITALS}(?:[\W_]{{1,4}}{_CAPITALS})*", _calm),
]


def normalize(text: str) -> str:
    """The sentence in words; may come back empty."""
    return written_out(_RULES, text, "en")
