"""Chinese as it is said: every number, date, sum, unit, sign and address in Han characters, in Simplified script.

One regular expression a kind, the more particular first; what Japanese has as well is in voices.text.words.han.
`normalize` takes one sentence whose characters are plain (voices.text.characters). Latin words stay as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from voices.text.words.addresses import written_out
from voices.text.words.han import Han, N
from voices.text.words.numbers import roman
from voices.text.words.terms import NUMBER, ROMAN, Rule, alternatives, numeric, rule, words

# What is counted, so that two of it are 两.
_MEASURES = tuple(words("measure zh"))
_CUES = alternatives(words("cue zh"))
_H = r"\u4e00-\u9fff"


@lru_cache(maxsize=1)
def _simplifier() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s").convert


@lru_cache(maxsize=16384)
def _is_traditional(char: str) -> bool:
    return not char.isascii() and _simplifier()(char) != char


def _two(said: str) -> str:
    return "两" if said == "二" else re.sub(r"^二(?=[千万亿])", "两", said)


_HAN = Han("zh", _two, r"\s?[-–—~～至]\s?")
number, _D = _HAN.number, _HAN.dash


def _quantity(m: re.Match[str]) -> str:
    said = _two(number(m[0]))
    counted = m.string.startswith(_MEASURES, m.end()) and not re.match("[第A-Z]", m.string[m.start() - 1 : m.start()])
    return "二" if said == "两" and not counted else said


def _two_digit_year(m: re.Match[str]) -> str:
    text = m[1]
    if len(text) == 2 and int(text) < 50 and text[0] != "0":
        return text  # 10年, 24年: as often a span of time; as a number it is both
    return _HAN.digits(text)


_RULES: list[Rule] = [
    *_HAN.dates(year=_HAN.digits),
    numeric(r"(?<![\d/.])(1[0-2]|[1-9])/([12]?\d|3[01])(?=[是（(日号起至到前后])", r"\1月\2日"),
    numeric(
        r"(?<!\d)((?:19|20)\d\d)-(\d\d)(?=赛季|学年|财年|年)", lambda m: f"{_HAN.digits(m[1])}到{_HAN.digits(m[2])}"
    ),
    numeric(
        rf"(?<!\d)(?:\d{{4}}(?={_D}\d{{4}}年)|\d{{3}}(?=年{_D}\d{{3,4}}年)|(?<=年[-—~～至到])\d{{3}}(?=年)|(?:19|20)\d\d(?={_D}(?:19|20)\d\d(?!\d)))"
        r"|(?<!\d)(?:\d{4,}(?=号)|\d[05](?=后(?![天年来面])))"
        r"|(?<![\d.])(?:19|20)\d\d(?=财年|学年|赛季|[款届级]|世界杯|奥运|Q[1-4]|H[12])"
        r"|(?<=[（(〔\[])(?:(?:19|20)\d\d|\d{6})(?=[）)〕\]])|(?<=年[（(])\d{3,4}(?=[）)])|(?<=《)\d{4}(?=》)",
        _HAN.all_digits,
    ),
    numeric(r"(?<![\d.])(\d0)(?=年代)", lambda m: "零零" if m[1] == "00" else number(m[1])),
    numeric(r"(?<![\d.])(\d{4}|\d{2}(?<=[0-9]{2}))(?=年(?![级前后以内间多来之]))", _two_digit_year),
    rule(
        rf"(?<=[年零一二三四五六七八九日月周期天点时分秒岁元个人])({_D})(?=[\d零一二三四五六七八九]|周|星期|礼拜)",
        _HAN.to,
    ),
    rule(rf"(?<=[{_H}])[-–—](?=[{_H}])", "到"),
    numeric(r"(?<=到)(?:19|20)\d\d(?!\d|[元个人万])", _HAN.all_digits),
    # Codes.
    numeric(
        r"(?<![\d.])(?:\+?\d{1,4}(?:-\d{1,8}){2,5}|0\d{2,3}[- ]\d{3,4} ?\d{4})(?!\d)"
        r"|(?<=[\d零一二三四五六七八九]转)\d{1,6}(?!\d)|(?<![\d.])\+(?=[\d -]{8})\d{1,3}(?:[ -]?\d{2,11}){1,4}(?!\d)",
        _HAN.all_digits,
    ),
    *_HAN.codes(
        _CUES,
        between=r"(?:号码|号|码|群|是|为|了|请|：|:|电话|房间|热线|[Nn][Oo]\.?|\s){0,4}",
        before="[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼*#]?",
        least=2,
        not_before="[个次人元块天小分年月米公岁%]",
    ),
    numeric(
        r"(?<![\d.,])(?:1[3-9]\d{9}|0\d+|\d{17}(?=[Xx]))(?![\d.]*\d)|(?<=[GDCKTZYL])\d{1,4}(?=次)"
        r"|(?<![\dA-Za-z.])\d{3,4}(?=房间?(?!间)|号房|室(?!温)|航班|次列车|号楼\d|错误|报错|页面)"
        r"|(?<![\d.])(110|119|120|122|114|12345|12306|10086|10010|10000)(?=电话|热线|报警|急救|客服|平台)"
        rf"|(?<![\d.,¥$￥第])(520|1314|985|211|996|12306|10086)(?![\d.,%]|{alternatives(words('counter zh'))})"
        # In chats.
        r"|(?:^|(?<=[，,。！!~哈啊了\s]))(?:23{2,}|66{2,}|88+)(?=[啊啦了吧呀哦~！!。，,\s]|$)",
        _HAN.all_digits,
    ),
    *_HAN.sums(),
    # Measures, fractions, per cent.
    numeric(r"(满\d+)-(?=\d)", r"\1减"),
    numeric(r"(?<=\d)M(?=宽带|带宽|网|光纤|流量)", "兆"),
    numeric(r"(?<=[图表]\d)-(?=\d)", "杠"),
    numeric(r"(?<=\d)(米|秒)(\d{1,2})(?![\d.]|[米秒分厘个次%])", lambda m: m[1] + _HAN.digits(m[2])),
    numeric(r"(\d+(?:\.\d+)?)\s?[wW](?=[\u4e00-\u9fff+])(?!灯|的?灯泡|功率|充电|快充|电|的充电|适配|音响|光)", r"\1万"),
    numeric(r"(?<=[破超过近约达])(\d+(?:\.\d+)?)\s?[wW](?![A-Za-z])", r"\1万"),
    numeric(rf"({N}){_D}({N})\s?%", lambda m: f"百分之{number(m[1])}到百分之{number(m[2])}"),
    numeric(
        rf"(?:(?<=[\d%°℃℉])|(?<=[\d°][CFKk]))({_D})(?<![A-Za-z]\d-)(?=-?\d)(?<!\d - )(?<!\d-)(?![\d]*\s?[=＝])"
        r"|(?<=\d)[-–—](?=\d+(?:[^\d\s=+*/×÷-]|\s*$))",
        _HAN.to,
    ),
    numeric(rf"({N})\s?([%‰])", lambda m: f"{'百' if m[2] == '%' else '千'}分之{number(m[1])}"),
    *_HAN.measures(),
    rule(rf"(?<=[{_H}])/(?=[天日年月周时分秒人次升克吨亩米]|小时|平方|立方|公|千)", "每"),
    *_HAN.remaining(rf"{_H}》"),
    rule(
        rf"(?<![A-Za-z0-9])(?![IVXLCDM](?![IVXLCDM]))({ROMAN})(?=[期型世级章部卷类代])",
        lambda m: _HAN.cardinal(roman(m[1])),
    ),
    rule(rf"(?<=[A-Za-z])\.(?=[A-Z](?:\.|\b)|\s?[{_H}])|(?<=\b[A-Z])\.|(?<=[{_H}])_(?=[{_H}])", ""),
    numeric(r"(?<![A-Za-z\d])No\.?\s?(?=\d)", "第"),
    rule(r"(?<=[A-Za-z])\.(?=[A-Za-z])", "点"),
    *_HAN.called_signs(),
    numeric(NUMBER, _quantity),
    rule(rf"(?<=[{_H}])\s+(?=[{_H}])", ""),
]


def spell_out(text: str) -> str:
    """As `normalize`, in the script that it is written in: for Cantonese."""
    return written_out(_RULES, text, "zh")


def normalize(text: str) -> str:
    """The sentence with nothing but Han characters, Latin words and punctuation; may come back empty."""
    return spell_out(_simplifier()(text) if any(map(_is_traditional, text)) else text)
