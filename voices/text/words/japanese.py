"""Japanese as it is said: numbers in kanji, dates, sums, units, signs and addresses in words.

One regular expression a kind, the more particular first; what Chinese has as well is in voices.text.words.han.
`normalize` takes one sentence whose characters are plain (voices.text.characters). How kanji are read is the engine's
analysis' work, but for what it gets wrong.
"""

from __future__ import annotations

import re

from voices.text.words.addresses import written_out
from voices.text.words.han import Han, N
from voices.text.words.terms import NUMBER, Rule, alternatives, numeric, rule, terms, words

LETTERS, _TITLES = terms("letter", "ja"), terms("title", "ja")
_CUES = alternatives(words("cue ja")) + "|下[0-9一二三四五六七八九]桁"


_HAN = Han("ja", str, r"\s?[-–—~]\s?")
number, GREEK, _D = _HAN.number, terms("greek", "ja"), _HAN.dash
# A letter behind a number names something ("5A").
_HAN.units.pop("A")


def _batting(m: re.Match[str]) -> str:
    parts = zip(m.groups()[2:], "割分厘", strict=True)
    return m[1] + (m[2] or "") + "".join(number(digit) + part for digit, part in parts if digit != "0")


_NUMBERED, _ENGLISH, _FOOD = words("numbered ja"), words("english ja"), f"(?:{alternatives(words('food ja'))})"
_I = re.IGNORECASE | re.ASCII
_J = r"ぁ-んァ-ヶー一-龥々"
_MONTH_DAY = r"(?<![\d/])(1[0-2]|[1-9])/([12]?\d|3[01])"
_RULES: list[Rule] = [
    *_HAN.dates(year=number),
    numeric(rf"{_MONTH_DAY}(?={_D}\d{{1,2}}/\d|[(（に]|から|まで|の(?:朝|夜|昼|午))", r"\1月\2日"),
    numeric(rf"(?<=日)({_D}){_MONTH_DAY}(?![\d/])", r"から\2月\3日"),
    # Codes.
    numeric(r"〒\s?(\d{3})-(\d{4})\s?", lambda m: f"郵便番号{_HAN.digits(m[1])}の{_HAN.digits(m[2])}、"),
    *_HAN.codes(_CUES, r"(?:番号|は|が|:|：|の|\s){0,4}", "", 3, "[個人円枚件回年月日台本%]"),
    # Of a house: block, lot, number.
    numeric(r"(?<![\d.-])[1-9]\d?(?:-[1-9]\d{0,2}){2}(?:-\d{1,4})?(?![\d-])", lambda m: m[0].replace("-", "の")),
    numeric(
        r"(?<![\d.-])\+?\d{1,5}(?:-\d{1,8}){2,5}(?![\d-])|(?<![\d.])0\d{1,4}[- ]\d{3,8}(?:[- ]\d{3,4})?(?!\d)"
        r"|(?<![\d.,-])0\d+(?![\d.]*\d)|(?<![\dA-Za-z.])\d{3,4}(?=号室)"
        r"|(?<![\d.])(?:110|119|117|118|104|171|188|189)(?=番(?:に|へ|通報|する|を|で))",
        _HAN.all_digits,
    ),
    *_HAN.sums(),
    # Ranges and measures.
    rule(
        rf"(?<=[\d%°CFgmLB℃℉度時分秒日月年人個円歳回枚本台%曜])(?:{_D})(?=-?\d)(?![\d.]+\s?[=＝])|(?<=\d)[-–—](?=\d+(?:[^\d\s=+*/×÷-]|\s*$))"
        rf"|(?<=[曜一-龥])[-–—~](?=[一-龥])|(?<=[一-龥])~(?=\d)",
        "から",
    ),
    numeric(rf"(?<![A-Za-z\d.])({N})\sA(?![A-Za-z\d^])", r"\1アンペア"),
    numeric(rf"時速\s?({N})\s?km/h", r"時速\1km"),
    *_HAN.measures(),
    numeric(r"(?<=\d)\s?[vV]\s?(?=\d)", "対"),
    numeric(
        r"(?<![\d.])([1-4])(?=ラン(?![キクチドナニプ])|アウト|ストライク|ベース|ピース|トップ|ショット|ドア|ウェイ|シーター|[SLD]?DK)",
        lambda m: _ENGLISH[m[1]],
    ),
    numeric(r"(打率|勝率|出塁率|長打率)(は|が|を|の|:)?\s?0?\.(\d)(\d)(\d)", _batting),
    numeric(r"(?<![A-Za-z\d.])B?(\d{1,2})F(?![A-Za-z\d])", lambda m: f"{'地下' if 'B' in m[0] else ''}{m[1]}階"),
    numeric(r"(?<=\d)([A-Z])(?![A-Za-z])", lambda m: LETTERS[m[1]]),
    *_HAN.remaining(_J),
    numeric(r"(?<![A-Za-z])(?:no|ver|vol|lv|#)\.?\s?(?=\d)", lambda m: _NUMBERED[m[0].strip(" .").lower()], _I),
    rule(rf"(?<![A-Za-z])({alternatives(_TITLES)})(?:\.\s?|\s)(?=[一-龥ァ-ヶ])", lambda m: _TITLES[m[1]]),
    rule(r"(?<=日)[(（]([月火水木金土日])[)）]", r"、\1曜日、"),
    rule(r"(?<=[A-Za-z0-9])\.(?=[a-z])", "ドット"),
    rule(r"(?<=[A-Z])\.(?=[A-Z]\.)|(?<=[A-Z])\.(?=[^\W\d_a-zA-Z])", ""),
    *_HAN.called_signs(),
    numeric(NUMBER, lambda m: number(m[0])),
    # Else the analysis takes tenths, or what is enough.
    rule("(?<=時間)(?:十|五)分", lambda m: "じゅっぷん" if m[0] == "十分" else "ごふん"),
    rule(r"(?<=[ぁ-んァ-ヶー])[ー~]+", "ー"),
    rule(rf"(?<=[{_J}])\s+(?=[{_J}])", ""),
    # Of food; else the analysis takes つらい.
    rule(rf"辛(?=[いくさ]{{1,2}}お?{_FOOD})", "から"),
    rule(rf"({_FOOD}[はがもの]?(?:とても|すごく|少し|かなり)?)辛(?=[いくすか])", r"\1から"),
]


def normalize(text: str) -> str:
    """The sentence with nothing but kanji, kana, Latin words and punctuation; may come back empty."""
    return written_out(_RULES, text, "ja")
