"""Chinese as it is said: every number, date, sum, unit, sign and address in Han characters, in Simplified script.

One regular expression a kind, the more particular first. `normalize` takes one sentence whose characters are plain
(voices.text.characters). Latin words stay as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from voices.text.words import numbers
from voices.text.words.addresses import Rule, rule, say_addresses
from voices.text.words.english_words import alternatives
from voices.text.words.numbers import han_digits

NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|(?<!\w)\.\d+|\d+"
_N = rf"(?:{NUMBER})"
_D = r"\s?[-–—~～至]\s?"
MAX_DIGITS = 16
MONEY = {
    "US$": "美元", "HK$": "港元", "NT$": "新台币", "A$": "澳元", "C$": "加元", "S$": "新加坡元", "$": "美元", "¥": "元",
    "￥": "元", "€": "欧元", "£": "英镑", "₩": "韩元", "₹": "卢比", "₽": "卢布", "฿": "泰铢", "₫": "越南盾",
    "USD": "美元", "HKD": "港元", "CNY": "元", "RMB": "元", "EUR": "欧元", "GBP": "英镑", "JPY": "日元", "KRW": "韩元",
    "TWD": "新台币", "AUD": "澳元", "CAD": "加元", "CHF": "瑞士法郎",
}  # fmt: skip
UNITS = {
    "km/h": "公里每小时", "m/s": "米每秒", "km^2": "平方公里", "m^2": "平方米", "cm^2": "平方厘米", "mm^2": "平方毫米",
    "m^3": "立方米", "cm^3": "立方厘米", "km²": "平方公里", "m²": "平方米", "m³": "立方米", "km": "公里", "cm": "厘米",
    "mm": "毫米", "μm": "微米", "nm": "纳米", "kg": "公斤", "mg": "毫克", "ml": "毫升", "mL": "毫升", "kWh": "千瓦时",
    "kW": "千瓦", "MW": "兆瓦", "GB": "吉字节", "MB": "兆字节", "KB": "千字节", "TB": "太字节", "GHz": "吉赫兹",
    "MHz": "兆赫兹", "kHz": "千赫兹", "Hz": "赫兹", "°C": "摄氏度", "℃": "摄氏度", "°F": "华氏度", "℉": "华氏度",
    "°": "度", "m": "米", "g": "克", "L": "升", "l": "升", "t": "吨", "h": "小时", "min": "分钟", "s": "秒", "V": "伏",
    "mAh": "毫安时", "mA": "毫安", "dB": "分贝", "Mbps": "兆比特每秒", "cc": "毫升", "kcal": "千卡", "ppm": "ppm",
}  # fmt: skip
SIGNS = {
    "<=": "小于等于", ">=": "大于等于", "!=": "不等于", "==": "等于", "->": "到", "+": "加", "±": "正负", "=": "等于",
    "×": "乘", "÷": "除以", "<": "小于", ">": "大于", "≤": "小于等于", "≥": "大于等于", "≠": "不等于", "≈": "约等于",
    "&": "和", "@": " at ", "№": "号", "√": "根号", "∞": "无穷大", "%": "百分号", "‰": "千分号", "°": "度", "→": "到",
    "_": "下划线", "©": "版权", "π": "派", "#": "", "*": "", "|": "", "`": "", "^": "", "~": "", "\\": "反斜杠",
}  # fmt: skip
# What is counted, so that two of it are 两.
_MEASURES = (
    "个只本位名张条件次年天周分秒点块元岁倍种层间座台辆颗棵杯瓶碗双对把家户口斤公里米"
    "吨升万亿半匹头份句段篇支枚艘架套毛角欧美英"
)
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        str.split(
            "阿尔法 贝塔 伽马 德尔塔 艾普西隆 泽塔 伊塔 西塔 约塔 卡帕 拉姆达 缪 纽 克西 奥密克戎 派 柔 西格玛 "
            "陶 宇普西隆 斐 希 普西 欧米伽"
        ),
        strict=True,
    )
)
_CUES = (
    "邮政编码|邮编|验证码|校验码|识别码|提取码|激活码|兑换码|密码|口令|尾号|拨打|致电|呼叫|电话|手机|座机|热线|传真|房间|房号|航班|车次|列车|工号|"
    "PIN|QQ|学号|编号|单号|订单|卡号|账号|帐号|证号|代码|区号|分机|身份证|车牌|波音|空客|型号|门牌|座位|批号|货号|代号|拨|客服|专线|报警|急救"
)


@lru_cache(maxsize=1)
def _simplifier() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s").convert


@lru_cache(maxsize=4096)
def number(text: str) -> str:
    """A number as it is written (1,234.50), said as a quantity; more than 16 digits are said one by one."""
    whole, dot, part = text.replace(",", "").partition(".")
    identifies = len(whole) > MAX_DIGITS or (len(whole) > 1 and whole[0] == "0")
    said = han_digits(whole) if identifies else numbers.chinese(int(whole or "0"))
    return f"{said}点{han_digits(part)}" if dot else said


def _quantity(m: re.Match[str]) -> str:
    said = _two(number(m[0]))
    before, following = m.string[m.start() - 1 : m.start()], m.string[m.end() : m.end() + 1]
    counted = (following and following in _MEASURES) or m.string.startswith("小时", m.end())
    return "二" if said == "两" and (not counted or before == "第") else said


def _two(said: str) -> str:
    return "两" if said == "二" else re.sub(r"^二(?=[千万亿])", "两", said)


def _date(m: re.Match[str]) -> str:
    year, month, day = m[1], int(m[2]), int(m[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return m[0]
    return f"{han_digits(year)}年{numbers.chinese(month)}月{numbers.chinese(day)}日"


def _time(m: re.Match[str]) -> str:
    hours, minutes = int(m[1]), int(m[2])
    if hours > 24 or minutes > 59:
        return f"{number(m[1])}比{number(m[2])}"
    said = _two(numbers.chinese(hours)) + "点"
    if minutes or m[3]:
        said += ("零" if 0 < minutes < 10 else "") + numbers.chinese(minutes) + "分"
    return said + (f"{numbers.chinese(int(m[3]))}秒" if m[3] else "")


def _groups(m: re.Match[str]) -> str:
    return ",".join(han_digits(group) for group in re.findall(r"\d+", m[0]))


def _dotted(m: re.Match[str]) -> str:
    return (m[1] or "") + "点".join(han_digits(part) for part in m[2].split("."))


def _cued(m: re.Match[str]) -> str:
    return m[1] + m[2] + m[3] + ",".join(han_digits(group) for group in re.findall(r"\d+", m[4]))


def _money(m: re.Match[str]) -> str:
    low = _two(number(m["low"])) + "到" if m["low"] else ""
    return ("负" if m["minus"] else "") + low + _two(number(m["amount"])) + (m["big"] or "") + MONEY[m["sign"]]


def _fraction(m: re.Match[str]) -> str:
    whole, upper, lower = m[1], m[2], m[3]
    if not int(lower):
        return f"{number(upper)}除以{number(lower)}"
    return (f"{number(whole)}又" if whole else "") + f"{number(lower)}分之{number(upper)}"


def _power(m: re.Match[str]) -> str:
    exponent = ("负" if m[2].startswith("-") else "") + numbers.chinese(int(m[2].lstrip("+-")))
    return f"{m[1]}的{exponent}次方"


def _measure(m: re.Match[str]) -> str:
    unit = UNITS[m[2]]
    return _two(number(m[1])) + unit


_MARKS = {".": "点", "-": "杠", "_": "下划线", "+": "加"}
_I = re.IGNORECASE | re.ASCII
_ROMAN = r"((?=[IVXLCDM]+(?![A-Za-z]))M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?<=[IVXLCDM]))"
_RULES: list[Rule] = [
    # Dates and times.
    rule(r"(?<![\d-])(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?![\d-]|\.\d)", _date),
    rule(rf"(?<=\d)({_D})(?=\d{{1,2}}[:：]\d\d)", "到"),
    rule(r"(?<!\d)(\d{1,2})[:：](\d{2})(?:[:：](\d{2}))?(?!\d)", _time),
    rule(r"(\d)\s?[:：]\s?(?=\d)", r"\1比"),
    rule(rf"(?<!\d)(\d{{4}})(?={_D}\d{{4}}年)", lambda m: han_digits(m[1])),
    rule(r"(?<![\d.])(\d{4}|\d{2}(?<=[0-9]{2}))(?=年(?![级前后以内间多来之]))", lambda m: _two_digit_year(m)),
    rule(
        rf"(?<=[年零一二三四五六七八九日月周期天点时分秒岁元个人])({_D})(?=[\d零一二三四五六七八九]|周|星期|礼拜)", "到"
    ),
    rule(r"(公元前|西元前)(\d+)(?=年)", lambda m: m[1] + numbers.chinese(int(m[2]))),
    rule(r"(?<=[\u4e00-\u9fff])[-–—](?=[\u4e00-\u9fff])", "到"),
    rule(r"(?<!\d)((?:19|20)\d\d)[-–—~](?=(?:19|20)\d\d(?!\d))", lambda m: f"{han_digits(m[1])}到"),
    rule(r"(?<=到)(?:19|20)\d\d(?!\d|[元个人万])|(?<=《)\d{4}(?=》)", lambda m: han_digits(m[0])),
    rule(r"(?<!\d)(\d[05])(?=后(?![天年来面]))", lambda m: han_digits(m[1])),
    # Codes.
    rule(r"(?<![\w.])(v\.?)?(\d{1,6}(?:\.\d{1,6}){2,8})(?![\d.]*\d)", _dotted, _I),
    rule(r"(?<![\d.])\+?\d{1,4}(?:-\d{1,8}){2,5}(?!\d)|(?<![\d.])0\d{2,3}[- ]\d{7,8}(?!\d)", _groups),
    rule(r"(?<![\d.])\+\d{1,3}(?:[ -]?\d{2,11}){1,4}(?!\d)", _groups),
    rule(r"(?<![\d.,])(?:1[3-9]\d{9}|0\d+|\d{17}(?=[Xx]))(?![\d.]*\d)", lambda m: han_digits(m[0])),
    rule(
        rf"({_CUES})((?:号码|号|码|群|是|为|了|请|：|:|电话|房间|热线|\s){{0,4}})([京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼]?[A-Za-z]{{0,3}}-?)(\d{{2,12}}(?:-\d{{2,8}})?)"
        r"(?![\d.,]*\d|[个次人元块天小分年月米公岁%])",
        _cued,
    ),
    rule(r"(?<![\dA-Za-z.])(\d{3,4})(?=房间?(?!间)|号房|室(?!温)|航班|次列车|号楼\d)", lambda m: han_digits(m[1])),
    rule(r"([GDCKTZYL])(\d{1,4})(?=次)", lambda m: m[1] + han_digits(m[2])),
    rule(
        r"(?<![\d.])(110|119|120|122|114|12345|12306|10086|10010|10000)(?=电话|热线|报警|急救|客服|平台)",
        lambda m: han_digits(m[1]),
    ),
    # Money.
    rule(
        rf"(?P<minus>(?<![\w)])[-−])?(?P<sign>{alternatives(MONEY)})\s?(?:(?P<low>{_N}){_D}(?:(?P=sign))?)?(?P<amount>{_N})\s?(?P<big>[万亿千百]{{1,2}})?",
        _money,
    ),
    rule(
        rf"(?P<minus>(?<![\w)])[-−])?(?:(?P<low>{_N}){_D})?(?P<amount>{_N})\s?(?P<big>[万亿千百]{{1,2}})?\s?(?P<sign>{alternatives(MONEY)})(?![A-Za-z])(?!\d)",
        _money,
    ),
    # Measures, fractions, per cent.
    rule(r"(\d+(?:\.\d+)?)\s?[wW](?=[\u4e00-\u9fff+])(?!灯|的?灯泡|功率|充电|快充|电|的充电|适配|音响|光)", r"\1万"),
    rule(r"(?<=[破超过近约达])(\d+(?:\.\d+)?)\s?[wW](?![A-Za-z])", r"\1万"),
    rule(r"(\d+(?:\.\d+)?)\s?W(?![A-Za-z\d])", r"\1瓦"),
    rule(rf"({_N})\s?%{_D}(?={_N}\s?%)", r"\1%到"),
    rule(rf"({_N}){_D}({_N})\s?%", lambda m: f"百分之{number(m[1])}到百分之{number(m[2])}"),
    rule(
        rf"(?<=[\d%°CF℃℉])({_D})(?=-?\d)(?<!\d - )(?<!\d-)(?![\d]*\s?[=＝])|(?<=\d)[-–—](?=\d+(?:[^\d\s=+*/×÷-]|\s*$))",
        "到",
    ),
    rule(r"(?<![\w)）])[-−]\s?(?=\.?\d)", "负"),
    rule(rf"({_N})\s?%", lambda m: f"百分之{number(m[1])}"),
    rule(rf"({_N})\s?‰", lambda m: f"千分之{number(m[1])}"),
    rule(r"(?<![\d/.])(?:(\d+)\s)?(\d{1,4})/(\d{1,4})(?![\d/])", _fraction),
    rule(rf"(?<![A-Za-z\d.])({_N})\s?({alternatives(UNITS)})(?![A-Za-z^\d])", _measure),
    rule(r"([\w)])\^([+-]?\d{1,3})", _power),
    # Signs.
    rule(r"(?<=\d)\s?[-−]\s?(?=\d)", "减"),
    rule(r"(?<=\d)\s?[*xX]\s?(?=\d)", "乘"),
    rule(r"(?<=\d)\s?/\s?(?=\d)", "除以"),
    rule(
        rf"(?<=[\u4e00-\u9fff》])(?![IVXLCDM](?![IVXLCDM]))({_ROMAN[1:-1]})(?=[\u4e00-\u9fff》。，！？\s]|$)",
        lambda m: numbers.chinese(numbers.roman(m[1])),
    ),
    rule(
        rf"(?<![A-Za-z0-9])(?![IVXLCDM](?![IVXLCDM])){_ROMAN}(?=[期型世级章部卷类代])",
        lambda m: numbers.chinese(numbers.roman(m[1])),
    ),
    rule(r"(?<=[A-Za-z])\.(?=[A-Z](?:\.|\b))|(?<=\b[A-Z])\.", ""),
    rule(r"(?<![A-Za-z\d])No\.?\s?(?=\d)", "第"),
    rule(r"(?<=[A-Za-z])\.(?=[A-Za-z])", "点"),
    rule(r"(?<=[A-Za-z])\.(?=\s?[\u4e00-\u9fff])", ""),
    rule(r"([\u4e00-\u9fff])_([\u4e00-\u9fff])", r"\1\2"),
    rule(alternatives(SIGNS), lambda m: SIGNS[m[0]]),
    rule(NUMBER, _quantity),
    rule("[αβγδεζηθικλμνξοπρστυφχψω]", lambda m: _GREEK[m[0]]),
    rule("[ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ]", lambda m: _GREEK[m[0].lower()]),
    rule(r"(?<=[\u4e00-\u9fff])\s+(?=[\u4e00-\u9fff])", ""),
    rule(r"\s+", " "),
]


def _two_digit_year(m: re.Match[str]) -> str:
    text = m[1]
    if len(text) == 2 and int(text) < 50 and text[0] != "0":
        return text  # 10年, 24年: as often a span of time; as a number it is both
    return han_digits(text)


def spell_out(text: str) -> str:
    """As `normalize`, in the script that it is written in: for Cantonese."""
    text = say_addresses(text, _MARKS, "at", "斜杠")
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    return text.strip()


def normalize(text: str) -> str:
    """The sentence with nothing but Han characters, Latin words and punctuation; may come back empty."""
    return spell_out(_simplifier()(text))
