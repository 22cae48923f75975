"""English as it is said: every number, date, sum, unit, sign and address in words, one regular expression a kind.

The order matters: what is more particular comes first, and what it leaves are words. `normalize` takes one sentence
whose characters are plain (voices.text.characters).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from voices.text.words.addresses import say_addresses
from voices.text.words.numbers import MAX_DIGITS, cardinal, ordinal, roman, spoken_digits, year
from voices.text.words.say_as import said_as
from voices.text.words.terms import NUMBER, ROMAN, Rule, alternatives, applied, rule, terms, words

_N = rf"(?:{NUMBER})"
_I = re.IGNORECASE
MONTHS, WEEKDAYS, TITLES, ABBREVIATIONS = map(words, ("month", "weekday", "title", "abbreviation"))
REGNAL, SHOUTED, DOUBLES, SINGLES = map(words, ("regnal", "shouted", "double", "single"))
MONEY = {sign: [*names.split(","), "", ""][:4] for sign, names in terms("money", "en").items()}
UNITS = {sign: [*names.split(","), f"{names}s"][:2] for sign, names in terms("unit", "en").items()}
SIGNS, GREEK = terms("sign", "en"), terms("greek", "en")
_MONTH = alternatives(MONTHS)
_NUMBERED = alternatives(words("numbered"))
_UNIT = alternatives(UNITS)
_FRACTIONED = alternatives(set(UNITS) - {"A", "in", "m", "s", "h", "t"})
_SIGN = alternatives(sign for sign in MONEY if not sign.isalpha())
_CODE = alternatives(filter(str.isalpha, MONEY))
_BIG = r"hundred|thousand|million|billion|trillion|[kKmMbB]n?\b"
_BIGS = {"k": "thousand", "m": "million", "b": "billion", "mn": "million", "bn": "billion"}
_DASH = r"\s?[-–—~]\s?"
_CUES = alternatives(words("cue").values())
_CALLED = {"call", "ring", "dial", "text"}  # of these only short and long numbers are codes: "call 20 people"


def _plain(text: str) -> str:
    return text.replace(",", "")


@lru_cache(maxsize=4096)
def number(text: str) -> str:
    """A number as it is written (1,234.50), as a quantity."""
    whole, dot, part = _plain(text).partition(".")
    if len(whole) > MAX_DIGITS or (len(whole) > 1 and whole[0] == "0"):
        said = spoken_digits(whole)
    else:
        said = cardinal(int(whole or "0"))
    return f"{said} point {spoken_digits(part)}" if dot else said


def _plural(amount: str, names: Sequence[str]) -> str:
    return names[0] if _plain(amount) == "1" else names[1]


_MONTH_NAMES = tuple(dict.fromkeys(MONTHS.values()))


def _date(y: str | None, month: int, day: int, whole: str) -> str:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return whole
    full = int(y or 0) + (0 if len(y or "") != 2 else 1900 if int(y or 0) > 40 else 2000)
    return f"{_MONTH_NAMES[month - 1]} {ordinal(day)}" + (f", {year(full)}" if y else "")


def _slashed(m: re.Match[str]) -> str:
    first, second = int(m[1]), int(m[2])
    month, day = (first, second) if first <= 12 else (second, first)
    return _date(m[3], month, day, m[0])


def _month_day(m: re.Match[str]) -> str:
    if not 1 <= int(m[2]) <= 31:
        return m[0]
    last = f" to {ordinal(int(m[3]))}" if m[3] else ""
    return f"{MONTHS[m[1].rstrip('.').lower()]} {ordinal(int(m[2]))}{last}" + (f", {year(int(m[4]))}" if m[4] else "")


def _day_month(m: re.Match[str]) -> str:
    if not 1 <= int(m[2]) <= 31:
        return m[0]
    said = f"the {ordinal(int(m[2]))} of {MONTHS[m[3].rstrip('.').lower()]}"
    return said + (f" {year(int(m[4]))}" if m[4] else "")


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


def _grouped(m: re.Match[str]) -> str:
    """A telephone or identity number, group by group."""
    digits = re.findall(r"\d+", m[0])
    return ("plus " if m[0].lstrip("(").startswith("+") else "") + ", ".join(map(spoken_digits, digits))


def _cued(m: re.Match[str]) -> str:
    cue, between, letters, code = m.groups()
    short = cue.lower() == "text" and len(code) in (5, 6)
    if cue.lower() in _CALLED and not short and not (len(code) == 3 and code[0] in "1456789") and len(code) < 7:
        return m[0]
    said = ", ".join(map(spoken_digits, re.findall(r"\d+", code)))
    return f"{cue}{between}{letters.strip(' -')}{' ' if letters.strip() else ''}{said}"


def _dotted(m: re.Match[str]) -> str:
    parts = m[2].split(".")
    before = m.string[max(0, m.start() - 10) : m.start()].lower()
    called = "" if not m[1] or re.search(r"(?:version|ver\.?)\s$", before) else "version "
    if len(parts) == 4 and not m[1] and all(int(part) < 256 for part in parts if len(part) < 4):
        return " dot ".join(map(spoken_digits, parts))
    return called + " dot ".join(cardinal(int(part)) if len(part) < 7 else spoken_digits(part) for part in parts)


def _money(amount: str, big: str | None, names: Sequence[str]) -> str:
    one, many, cent, cents = names
    if big:
        return f"{number(amount)} {_BIGS.get(big.lower().strip(), big.lower())} {many}"
    whole, _, part = _plain(amount).partition(".")
    if part and cent and len(part) <= 2:
        small = int(part.ljust(2, "0"))
        said = f"{cardinal(small)} {cent if small == 1 else cents}" if small else ""
        if not int(whole or 0) and said:
            return said
        return f"{number(whole)} {_plural(whole, (one, many))}" + (f" and {said}" if said else "")
    return f"{number(amount)} {_plural(amount, (one, many))}"


def _paid(m: re.Match[str]) -> str:
    """With the sign on either side."""
    to = m.groupdict().get("to")
    said = _money(to or re.sub(r",(?=\d{2}$)", ".", m["amount"]), m["big"], MONEY[m["sign"]])
    return ("minus " if m["minus"] else "") + (f"{number(m['amount'])} to {said}" if to else said)


_PARTS = {2: ("half", "halves"), 4: ("quarter", "quarters")}


def _fraction(m: re.Match[str]) -> str:
    whole, upper, lower = m[1], int(m[2]), int(m[3])
    unit = f" {UNITS[m[4]][bool(whole)]}" if m[4] else ""
    if not lower or (not whole and (upper > lower or lower > 1000)):
        return f"{number(m[2])} slash {number(m[3])}"
    if upper == lower:
        return f"{number(m[2])} {number(m[3])}"
    name = ordinal(lower)
    one, many = _PARTS.get(lower, (name, name + "s"))
    if not whole:
        return f"{cardinal(upper)} {one if upper == 1 else many}{unit}"
    part = ("an " if one[0] in "aeiou" else "a ") + one if upper == 1 else f"{cardinal(upper)} {many}"
    return f"{number(whole)} and {part}{unit}"


def _feet(m: re.Match[str]) -> str:
    return f"{number(m[1])} {_plural(m[1], ('foot', 'feet'))} {number(m[2])} {_plural(m[2], ('inch', 'inches'))}"


def _measure(m: re.Match[str]) -> str:
    amount, space, unit, raised = m.groups()[:4]
    before = m.string[max(0, m.start() - 6) : m.start()].lower()
    decade = (
        unit == "s"
        and not space
        and amount.endswith("0")
        and (len(amount) == 4 or before.endswith(("the ", "early ", "late ", "mid ", "mid-", "his ", "her ", "their ")))
    )
    if (
        decade
        or (unit == "in" and space and not m[5] and m.string[m.end() : m.end() + 1] != ".")
        or (unit == "A" and not space)
    ):
        return m[0]  # "the 90s", "1 in sales", "seat 5A"
    said = f"{_signed(amount)} {_raised(raised, _plural(amount.lstrip('-'), UNITS[unit]))}"
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
    if m.string.count('"', 0, m.start()) % 2:
        return m[0]
    return " inch" if re.match(r"\s[a-z]", m.string[m.end() :]) else " inches"


def _by_or_times(m: re.Match[str]) -> str:
    """`9x13` is a size, `5 x 3 = 15` a sum."""
    sized = m[1] == "x" and "=" not in m.string[m.end() : m.end() + 12]
    return " by " if sized else " times "


def _signed(text: str) -> str:
    return f"minus {number(text[1:])}" if text[0] in "-−" else number(text)


def _power(m: re.Match[str]) -> str:
    exponent = m[2]
    if exponent in ("2", "3"):
        return f"{m[1]} {'squared' if exponent == '2' else 'cubed'} "
    minus = "minus " if exponent.startswith("-") else ""
    return f"{m[1]} to the power of {minus}{cardinal(int(exponent.lstrip('+-')))} "


def _roman_numbered(m: re.Match[str]) -> str:
    """`Part IX`, `Scene ii`."""
    numeral = m[2].upper()
    return f"{m[1]} {cardinal(roman(numeral))}" if re.fullmatch(ROMAN, numeral) else m[0]


def _roman_named(m: re.Match[str]) -> str:
    name, numeral = m[1], m[2]
    if len(numeral) == 1 and numeral != "V" and name not in REGNAL:
        return m[0]  # "Malcolm X", "Plan C", "John I met"
    if name in REGNAL:
        return f"{name} the {ordinal(roman(numeral))}"
    return f"{name} {cardinal(roman(numeral))}"


def _four_digits(m: re.Match[str]) -> str:
    """A year, unless things are counted."""
    value = int(m[0])
    after = re.match(r"\s+(?:people|men|women|children|feet|[a-z]{2,}[^\Ws]s)\b", m.string[m.end() :])
    before = re.search(r"\b(?:in|of|since|by|from|until|till|before|after|around|year|early|late|mid|to|and|the)\s$",
                       m.string[max(0, m.start() - 8) : m.start()], re.IGNORECASE)  # fmt: skip
    counted = after is not None and before is None
    return cardinal(value) if counted or not 1010 <= value < 2100 else year(value)


def _decade(m: re.Match[str]) -> str:
    digits = int(m[1])
    said = year(digits) if digits >= 100 else cardinal(digits)
    return said[:-1] + "ies" if said.endswith("y") else said + "s" if not said.endswith("x") else said + "es"


def _shorten(m: re.Match[str]) -> str:
    """`soooo` is `so`, `goooood` `good`: what is drawn out in lower case."""
    word = m[0]
    single, double = (re.sub(r"([a-z])\1{2,}", form, word) for form in (r"\1", r"\1\1"))
    if double.lower() in DOUBLES:
        return double
    ends = re.search(r"([a-z])\1{2,}$", word)
    if ends or single.lower() in SINGLES:
        return single
    return re.sub(r"([a-z])\1{2,}", lambda run: run[1] * (2 if run[1] in "eo" else 1), word)


_CAPITALS = re.compile(r"(?<![\w'])[A-Z][A-Z']*[A-Z](?![\w'])|(?<![\w'])[AI](?![\w'.])")
_MAY_BE_SAID = re.compile(r"[AEIOUY]")


def _calm(text: str) -> str:
    """Shouted text in lower case: runs of capitals with an ordinary word among them, and single emphasised words."""
    words = list(_CAPITALS.finditer(text))
    out, position, index = [], 0, 0
    while index < len(words):
        run = [words[index]]
        while index + len(run) < len(words):
            between = text[run[-1].end() : words[index + len(run)].start()]
            if len(between) > 4 or any(c.isalnum() for c in between):
                break
            run.append(words[index + len(run)])
        shouting = len(run) > 1 and any(word[0] in SHOUTED for word in run)
        for word in run:
            ordinary = word[0] in SHOUTED or (shouting and len(word[0]) > 3 and _MAY_BE_SAID.search(word[0]))
            lower = word[0] != "I" and ordinary and (len(word[0]) > 1 or shouting)
            out += [text[position : word.start()], word[0].lower() if lower else word[0]]
            position = word.end()
        index += len(run)
    return "".join(out) + text[position:]


def _initials(m: re.Match[str]) -> str:
    """`U.S.` is `U S`; its full stop stays where it ends the sentence."""
    return " ".join(m[0].replace(".", "")) + _stop(m)


_QUARTERS = {"N": "North", "E": "East", "S": "South", "W": "West"}


_MARKS = {".": " dot ", "-": " dash ", "_": " underscore ", "+": " plus ", ":": " colon "}
_RULES: list[Rule] = [
    rule(r"(?<!\S)@(?=\w)", "at "),
    rule(r"(?<![\w&])#(?=\d)", "number "),
    rule(r"(?<![\w&])#(?=[^\W\d_])", "hashtag "),
    rule(r"(?<=\w)_+(?=\w)", " "),
    rule(r"(?<!\w)0x([0-9A-Fa-f]{1,16})(?!\w)", lambda m: "zero x " + said_as("characters", m[1], "en")),
    rule(r"(?<=[\dkKmMbBn])-(?=[$€£¥]\s?\d)", " to "),
    # Addresses of houses.
    rule(r"(?<=\d )([NESW])\.(?= [A-Z\d])", lambda m: _QUARTERS[m[1]]),
    rule(r"(?<=[a-z] )St\b\.?(?=\s*[,;)])|(?<=[a-z] )St\.?(?=\.?\s*$)", "Street"),
    rule(r"(?<=, [A-Z]{2} )\d{5}(?:-\d{4})?\b", _grouped),
    # Dates and times.
    rule(r"(?<=\d)T(?=\d\d:\d\d)", " "),
    rule(r"\bFY(?=(?:19|20)\d\d\b)", "FY "),
    rule(r"['’](\d0)s\b", _decade),
    rule(rf"\b({alternatives(WEEKDAYS)})\b\.?(?=,? [A-Z\d]|\s?[-–])", lambda m: WEEKDAYS[m[1]]),
    rule(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b(?!\.\d)", lambda m: _date(m[1], int(m[2]), int(m[3]), m[0])),
    rule(r"(?<![\w./-])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})\b", _slashed),
    rule(r"(?<![\w./-])(\d{1,2})\.(\d{1,2})\.(\d{4})\b(?!\.\d)", lambda m: _date(m[3], int(m[2]), int(m[1]), m[0])),
    rule(
        rf"\b({_MONTH})\b\.? (\d{{1,2}})(?:st|nd|rd|th)?\b(?:\s?[-–]\s?(\d{{1,2}})\b)?(?![\d:%])(?:,? (\d{{4}})\b)?",
        _month_day,
        _I,
    ),
    rule(rf"\b(the )?(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH})\b\.?(?: (\d{{4}})\b)?", _day_month, _I),
    rule(rf"(?<=day)\s?[-–]\s?({alternatives(WEEKDAYS)})\b\.?", lambda m: " to " + WEEKDAYS[m[1]]),
    rule(
        rf"\b(\d{{1,2}}(?:[:.]\d{{2}})?\s?(?:[ap]\.?m\.?)?){_DASH}(?=\d{{1,2}}(?:[:.]\d{{2}}\b|\s?[ap]\.?m\b))",
        r"\1 to ",
        _I,
    ),
    rule(r"(?<![\d:.])(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s?([ap]\.m\.|[ap]m\b))?(?![\d:])", _time, _I),
    rule(r"(?<![\d:.])(\d{1,2})\.(\d{2})()\s?([ap]\.m\.|[ap]m\b)", _time, _I),
    rule(r"(?<![\d:.,])(\d{1,2})()()\s?([ap]\.m\.|[ap]m\b)", _time, _I),
    # Codes.
    rule(r"(?<![\w.])(v(?:er(?:sion)?)?\.?\s?)?(\d{1,6}(?:\.\d{1,6}){2,8})(?![\w.]*\w)", _dotted, _I),
    rule(
        r"(?<![\w.])\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){1,6}(?!\w)"
        r"|(?<![\w.-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"
        r"|(?<![\w.-])\d{3}-\d{4}(?![\w-])"
        r"|\(0\d{1,4}\)[ -]?\d{3,4}(?:[ -]\d{3,4})?(?![\w-])"
        r"|(?<![\w.-])0\d{2,4}[ -]\d{3,4}(?:[ -]\d{3,4})?(?![\w-])"
        r"|(?<![\w.-])\d{1,6}(?:-\d{1,7}){2,5}(?![\w-])",
        _grouped,
    ),
    rule(
        rf"\b({_CUES})\b((?:\.|:|,)?(?: (?:code|number|no\.?|nr\.?|is|was|in|are|now|of|the|my|your))*:? ?#?)"
        r"((?:\b[A-Z]{1,3}[ -]?)?)(\d{3,12}(?:-\d{2,8})?)(?![\w%°]|[.,]\d| (?:dollars|euros|people))",
        _cued,
        _I,
    ),
    rule(r"\b([Tt]ext \w+ to )(\d{3,6})\b", lambda m: m[1] + spoken_digits(m[2])),
    rule(r"(?<![\w.,])0\d+(?![\w.,]*\d)", lambda m: spoken_digits(m[0])),
    rule(rf"\d(?:,?\d){{{MAX_DIGITS},}}", lambda m: spoken_digits(m[0])),
    # Money.
    rule(
        rf"(?P<minus>(?<![\w)])[-−])?(?P<sign>{_SIGN}|(?<![A-Za-z])(?:{_CODE})(?=\s?\d))\s?(?P<amount>{_N})"
        rf"(?:{_DASH}(?P=sign)?(?P<to>{_N}))?(?:\s?(?P<big>{_BIG}))?",
        _paid,
    ),
    rule(
        rf"(?P<minus>(?<![\w)])[-−])?(?P<amount>\d+,\d\d(?!\d)|{_N})(?:\s?(?P<big>{_BIG}))?\s?"
        rf"(?P<sign>{_SIGN}|(?:{_CODE})\b)(?!\s?\d)",
        _paid,
    ),
    # Measures and fractions.
    rule(r"(?<=\d)\s?([x×])\s?(?=\d)", _by_or_times),
    rule(r"(\d+)/(?=\d+\s?(?:Hz|mmHg)\b)", r"\1 slash "),
    rule(r"(?<![\d,])(\d+),(\d{1,2})(?![\d,])", r"\1.\2"),
    rule(r"(?<![\d.])(\d{1,2})\s?['′]\s?(\d{1,2}(?:\.\d)?)\s?(?:[\"″]|'')", _feet),
    rule(rf"(?<![\w.])((?:{_N})){_DASH}(?=(?:{_N})(?![\d-])(?!-\d)(?!\s?=))", r"\1 to "),
    rule(r"\b24/7\b", "twenty four seven"),
    rule(rf"(?<![\d/.,])(?:(\d+)[ -])?(\d{{1,4}})/(\d{{1,4}})(?![\d/])(?: ({_FRACTIONED})(?![\w^/]))?", _fraction),
    rule(rf"(?<![\w.])([-−]?{_N})([ -]?)({_UNIT})(\^[23])?(?:/({_UNIT})(\^[23])?)?(?![\w^]|\.[A-Z])", _measure),
    rule(r"(?<=\d)\"(?=[\s,.;)-]|$)", _inches),
    rule(r"\bCO2\b", "C O 2"),
    rule(r"([\w)])\^([+-]?\d{1,3})", _power),
    rule(r"%", " percent "),
    rule(r"‰", " per mille "),
    # Signs.
    rule(r"(?<=\d)\s?\*\s?(?=[\w(])", " times "),
    rule(r"(?<=\d):(?=\d)", " to "),
    rule(r"\b([CF])#(?!\w)", r"\1 sharp"),
    rule(r"(?<!\w)['’](?=\d\d\b)", ""),
    rule(r"\b[vV]er\.?\s?(?=\d)", "version "),
    rule(r"(?<=\d)\s?/\s?(?=\d)", " slash "),
    rule(r"(?<=\w)\s?/\s?(?=(?:month|mo|day|hour|hr|h|year|yr|week|min|minute|second|person|night|user)\b)", " per "),
    rule(r"(?<=[^\W\d_])\s?/\s?(?=[^\W\d_])", " "),
    rule(r"(?<=\w)/(?=\w)", " slash "),
    rule(r"(?<=\d) - (?=\d)", " minus "),
    rule(r"(?<![\w)\]-])[-−](?=\.?\d)", "minus "),
    rule(alternatives(SIGNS), lambda m: f" {SIGNS[m[0]]} "),
    rule(alternatives([*GREEK, *map(str.upper, GREEK)]), lambda m: f" {GREEK[m[0].lower()]} "),
    # Capitals.
    rule(rf"\b({_NUMBERED})\.? ({ROMAN}\b(?![.'’]\w)|[ivxl]{{2,6}}\b(?![.'’]\w)|[ivx](?=[,.;:)]|$))", _roman_numbered),
    rule(rf"\b({ROMAN})(?= [Cc]entur(?:y|ies)\b)", lambda m: ordinal(roman(m[1]))),
    rule(rf"\b([A-Z][a-z]+) ({ROMAN})\b(?![.'’]\w|-\w)", _roman_named),
    rule(
        rf"\b(the (?:first|second|third|fourth|fifth)) and ({ROMAN})\b",
        lambda m: f"{m[1]} and the {ordinal(roman(m[2]))}",
    ),
    # Abbreviations.
    rule(rf"\b({alternatives(TITLES)})\.\s?(?=[A-Z\d]|and )", lambda m: TITLES[m[1]] + " "),
    rule(
        rf"(?<![\w.])({alternatives(ABBREVIATIONS)})\.(?=\s?[\d(]|\s[a-zA-Z]|[,:])",
        lambda m: ABBREVIATIONS[m[1].lower()],
        _I,
    ),
    rule(r"\b[Nn]os?\.\s?(?=(?:[A-Z]{1,4}-?)?\d)", "number "),
    rule(rf"(?<![\w.])({alternatives(words('last'))})\.(?=\s*$)", lambda m: f"{ABBREVIATIONS[m[1].lower()]}.", _I),
    rule(r"\b(?:[A-Za-z]\.){2,}", _initials),
    # What numbers are left.
    rule(r"\b(\d{1,3}(?:,\d{3})*|\d+)(?:st|nd|rd|th)\b", lambda m: ordinal(int(_plain(m[1])))),
    rule(r"(?<![\w.])'?(\d0|\d{3}0)s\b", _decade),
    rule(r"(?<![\d.,A-Za-z])\d{4}(?![\dA-Za-z]|[.,]\d)", _four_digits),
    rule(r"(?<=[A-Za-z])-?(?=\d)|(?<=\d)-?(?=[A-Za-z])", " "),
    rule(NUMBER, lambda m: number(m[0])),
    rule(r"\b[a-zA-Z]*([a-z])\1{2,}[a-z]*\b", _shorten),
    rule(r"([!?.,;:\-_*=~#/\\|])\1{3,}", r"\1\1\1"),
    rule(r"(?<=[a-z])\.(?=[a-z]{2,4}\b)", " dot "),
    rule(r"[\[\]{}]", " "),
    rule(r"\s+([.,;:!?])(?!\w)", r"\1"),
    rule(r"\s+", " "),
]


def normalize(text: str) -> str:
    """The sentence in words; may come back empty."""
    return _calm(applied(_RULES, say_addresses(text, _MARKS, "at", "slash"))).strip()
