"""Japanese as it is said: numbers in kanji, dates, sums, units, signs and addresses in words.

One regular expression a kind, the more particular first; what Chinese has as well is in voices.text.words.han.
`normalize` takes one sentence whose characters are plain (voices.text.characters). How kanji are read is the engine's
analysis' work, but for what it gets wrong.
"""

from __future__ import annotations

import re

from voices.text.words import numbers
from voices.text.words.addresses import say_addresses
from voices.text.words.han import Han, N
from voices.text.words.say_as import JAPANESE_DIGITS
from voices.text.words.terms import NUMBER, Rule, alternatives, applied, rule, terms, words

LETTERS, _TITLES = terms("letter", "ja"), terms("title", "ja")
_CUES = alternatives(words("cue ja")) + "|下[0-9一二三四五六七八九]桁"


def _digits(text: str) -> str:
    return "".join(JAPANESE_DIGITS[int(char)] for char in text if char.isdecimal())


_HAN = Han(
    "ja", numbers.japanese, _digits, str, r"\s?[-–—~]\s?", minus="マイナス", to="から", ratio="対", joint="の",
    dot="テン", hour="時", oh="", whole="と", of="分の", power="{}の{}乗", per="毎", divided="わる", least="3",
    less="マイナス", slash="スラッシュ", hex="ゼロエックス", dotted="numbers",
)  # fmt: skip
number, GREEK, _D = _HAN.number, _HAN.greek, _HAN.dash
# A letter behind a number names something ("5A").
_HAN.units.pop("A")


def _minutes(m: re.Match[str]) -> str:
    tens, _, ones = ("零一二三四五六七八九".find(part) if part else 0 for part in m.groups())
    minutes = (tens or 1) * 10 + ones if m[2] else ones
    return f" {numbers.japanese(minutes)}" if m[0] and minutes and (m[2] or not m[1]) else m[0]


def _month_day(m: re.Match[str]) -> str:
    return f"{int(m[1])}月{int(m[2])}日"


_MARKS = {".": "ドット", "-": "ハイフン", "_": "アンダーバー", "+": "プラス"}
_I = re.IGNORECASE | re.ASCII
_J = r"ぁ-んァ-ヶー一-龥々"
_MONTH_DAY = r"(?<![\d/])(1[0-2]|[1-9])/([12]?\d|3[01])"
_RULES: list[Rule] = [
    # Else 十五分 behind 二時間 is read as fifteen hundredths.
    rule(r"(?<=時間)([二三四五]?)(十?)([一二三四五六七八九]?)(?=分)", _minutes),
    *_HAN.dates(year=number),
    rule(rf"{_MONTH_DAY}(?={_D}\d{{1,2}}/\d|[(（に]|から|まで|の(?:朝|夜|昼|午))", _month_day),
    rule(rf"(?<=日)({_D}){_MONTH_DAY}(?![\d/])", lambda m: f"から{int(m[2])}月{int(m[3])}日"),
    # Codes.
    rule(r"〒\s?(\d{3})-(\d{4})\s?", lambda m: f"郵便番号{_digits(m[1])}の{_digits(m[2])}、"),
    *_HAN.codes(_CUES, r"(?:番号|は|が|:|：|の|\s){0,4}", "", "[個人円枚件回年月日台本%]"),
    rule(
        r"(?<![\d.-])\+?\d{1,5}(?:-\d{1,8}){2,5}(?![\d-])|(?<![\d.])0\d{1,4}[- ]\d{3,8}(?:[- ]\d{3,4})?(?!\d)"
        r"|(?<![\d.,-])0\d+(?![\d.]*\d)|(?<![\dA-Za-z.])\d{3,4}(?=号室)"
        r"|(?<![\d.])(?:110|119|117|118|104|171|188|189)(?=番(?:に|へ|通報|する|を|で))",
        _HAN.all_digits,
    ),
    *_HAN.sums(),
    # Ranges and measures.
    rule(rf"({N})\s?%{_D}(?={N}\s?%)", r"\1%から"),
    rule(
        rf"(?<=[\d%°CFgmLB℃℉度時分秒日月年人個円歳回枚本台%曜])(?:{_D})(?=-?\d)(?![\d.]+\s?[=＝])|(?<=\d)[-–—](?=\d+(?:[^\d\s=+*/×÷-]|\s*$))"
        rf"|(?<=[曜一-龥])[-–—~](?=[一-龥])",
        "から",
    ),
    rule(rf"(?<![A-Za-z\d.])({N})\sA(?![A-Za-z\d^])", r"\1アンペア"),
    rule(rf"時速\s?({N})\s?km/h", r"時速\1km"),
    *_HAN.measures(),
    rule(
        r"(?<![A-Za-z])([kcm]?m)\^([23])(?![A-Za-z])",
        lambda m: ("平方" if m[2] == "2" else "立方") + _HAN.units[m[1]],
    ),
    rule(r"(?<=\d)\s?[vV]\s?(?=\d)", "対"),
    rule(r"(?<=\d)([A-Z])(?![A-Za-z])", lambda m: LETTERS[m[1]]),
    *_HAN.remaining(_J),
    rule(r"#(?=\d)|(?<![A-Za-z])[Nn]o\.?\s?(?=\d)", "ナンバー"),
    rule(rf"(?<![A-Za-z])({alternatives(_TITLES)})(?:\.\s?|\s)(?=[一-龥ァ-ヶ])", lambda m: _TITLES[m[1]]),
    rule(r"(?<=日)[(（]([月火水木金土日])[)）]", r"、\1曜日、"),
    rule(r"(?<![A-Za-z])[vV]er\.?\s?(?=\d)", "バージョン"),
    rule(r"(?<![A-Za-z])vol\.?\s?(?=\d)", "ボリューム", _I),
    rule(r"(?<=[A-Za-z0-9])\.(?=[a-z])", "ドット"),
    rule(r"(?<=[A-Z])\.(?=[A-Z]\.)|(?<=[A-Z])\.(?=[^\W\d_a-zA-Z])", ""),
    rule(r"(?<=[A-Za-z])/(?=[A-Za-z])(?!h\b|s\b)", "スラッシュ"),
    *_HAN.called_signs(),
    rule(NUMBER, lambda m: number(m[0])),
    rule(r"(?<=[ぁ-んァ-ヶー])[ー~]+", "ー"),
    rule(rf"(?<=[{_J}])\s+(?=[{_J}])", ""),
    rule(r"\s+", " "),
]
_FOOD = (
    "料理|カレー|ラーメン|食べ|食事|もの|物|味|ソース|スープ|麺|キムチ|鍋|豆腐|お?菓子|タレ|お?酒|唐辛子|わさび|胡椒"
)
# Of food; else the analysis takes つらい.
_TASTES: list[Rule] = [
    rule(f"辛(?=[いくさ]{{1,2}}(?:{_FOOD}))", "から"),
    rule(f"({_FOOD})([はがもの]?(?:とても|すごく|少し|かなり)?)辛(?=[いくすか])", r"\1\2から"),
]


def normalize(text: str) -> str:
    """The sentence with nothing but kanji, kana, Latin words and punctuation; may come back empty."""
    text = say_addresses(text, _MARKS, "アットマーク", "スラッシュ")
    return applied(_TASTES, applied(_RULES, text)).strip()
