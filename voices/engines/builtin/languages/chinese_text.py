"""Chinese text as it is said: numbers, dates, times, sums and signs in Han characters, in Simplified script."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

_DIGITS = "零一二三四五六七八九"
_NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_MONEY = {"¥": "元", "$": "美元", "€": "欧元", "£": "英镑", "₩": "韩元"}
_UNITS = {
    "km/h": "公里每小时", "m/s": "米每秒", "km²": "平方公里", "m²": "平方米", "cm²": "平方厘米", "m³": "立方米",
    "km": "公里", "cm": "厘米", "mm": "毫米", "μm": "微米", "nm": "纳米", "kg": "公斤", "mg": "毫克", "ml": "毫升",
    "kWh": "千瓦时", "kW": "千瓦", "GB": "吉字节", "MB": "兆字节", "KB": "千字节", "TB": "太字节", "GHz": "吉赫兹",
    "MHz": "兆赫兹", "kHz": "千赫兹", "Hz": "赫兹", "°C": "摄氏度", "°F": "华氏度", "°": "度", "m": "米", "g": "克",
    "L": "升", "l": "升", "t": "吨", "h": "小时", "min": "分钟", "s": "秒", "V": "伏", "W": "瓦", "A": "安",
}  # fmt: skip
_SIGNS = {
    "+": "加", "±": "正负", "=": "等于", "×": "乘", "÷": "除以", "<": "小于", ">": "大于", "≤": "小于等于",
    "≥": "大于等于", "≠": "不等于", "≈": "约等于", "&": "和", "@": " at ", "№": "号", "√": "根号", "∞": "无穷大",
    "²": "的平方", "³": "的立方", "%": "百分号", "‰": "千分号", "°": "度", "_": "下划线",
}  # fmt: skip
_MEASURES = "个只本位名张条件次年天周月分秒点块元岁倍种层间座台辆颗棵杯瓶碗双对把家户人口斤公里米吨升万亿半"
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


@lru_cache(maxsize=1)
def _simplifier() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s").convert


def cardinal(number: int) -> str:
    """0 to 10^16 - 1 as a number: 10203 is 一万零二百零三."""
    if number == 0:
        return "零"
    groups: list[int] = []
    while number:
        number, group = divmod(number, 10000)
        groups.append(group)
    out = ""
    skipped = False
    for power in range(len(groups) - 1, -1, -1):
        group = groups[power]
        if group:
            out += "零" if out and (skipped or group < 1000) else ""
            out += _below_10000(group) + ("", "万", "亿", "万亿")[power]
        skipped = not group
    return out.removeprefix("一") if out.startswith("一十") else out


def _below_10000(number: int) -> str:
    out = ""
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, power)
        if digit:
            out += _DIGITS[digit] + unit
        elif out and number and not out.endswith("零"):
            out += "零"
    return out


def one_by_one(digits: str) -> str:
    return "".join(_DIGITS[int(char)] for char in digits if char.isdecimal())


def number(text: str) -> str:
    """A number as it is written (1,234.50), said as a quantity; more than 16 digits are said one by one."""
    whole, _, part = text.replace(",", "").partition(".")
    identifies = len(whole) > 16 or (len(whole) > 1 and whole[0] == "0")
    said = one_by_one(whole) if identifies else cardinal(int(whole or "0"))
    return f"{said}点{one_by_one(part)}" if part else said


def _quantity(m: re.Match[str]) -> str:
    said = number(m[0])
    following = m.string[m.end() : m.end() + 1]
    if said == "二" and following and following in _MEASURES and m.string[m.start() - 1 : m.start()] != "第":
        return "二" if following in "月" else "两"
    return re.sub(r"^二(?=[千万亿])", "两", said)


def _date(m: re.Match[str]) -> str:
    year, month, day = m[1], int(m[2]), int(m[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return m[0]
    return f"{one_by_one(year)}年{cardinal(month)}月{cardinal(day)}日"


def _time(m: re.Match[str]) -> str:
    hours, minutes = int(m[1]), int(m[2])
    if hours > 24 or minutes > 59:
        return f"{number(m[1])}比{number(m[2])}"
    said = ("两" if hours == 2 else cardinal(hours)) + "点"
    if minutes or m[3]:
        said += ("零" if 0 < minutes < 10 else "") + cardinal(minutes) + "分"
    return said + (f"{cardinal(int(m[3]))}秒" if m[3] else "")


def normalize(text: str) -> str:
    """Simplified text in which everything that can be said is Han characters, Latin words or punctuation."""
    for old in ("²", "³"):
        text = re.sub(rf"([kc]?m){old}", lambda m: _UNITS.get(m[0], m[0]), text)
    text = (
        text.replace("㎡", "平方米").replace("²", "的平方").replace("³", "的立方").replace("℃", "°C").replace("℉", "°F")
    )
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/").replace("...", "…")
    text = _simplifier()(text)
    units = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
    text = re.sub(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)", _date, text)
    text = re.sub(r"(?<!\d)(\d{1,2})[::](\d{2})(?:[::](\d{2}))?(?!\d)", _time, text)
    text = re.sub(r"(\d)\s?:\s?(?=\d)", r"\1比", text)
    text = re.sub(r"(?<!\d)(\d{4}|\d{2})(?=年(?!级))", lambda m: one_by_one(m[1]), text)
    # Telephone and identity numbers.
    text = re.sub(r"(?<![\d.])\+?\d{1,4}(?:-\d{2,8}){2,}|(?<![\d.])0\d{2,3}-\d{7,8}", _groups, text)
    text = re.sub(r"(?<![\d.])(?:1[3-9]\d{9}|0\d{5,})(?![\d.])", lambda m: one_by_one(m[0]), text)
    text = re.sub(
        rf"(-|−)?([¥$€£₩])\s?({_NUMBER})\s?([万亿千百]*)",
        lambda m: ("负" if m[1] else "") + m[3] + m[4] + _MONEY[m[2]],
        text,
    )
    text = re.sub(r"(?<=[\d%°年月日时点分])\s?[-~〜—到]\s?(?=\d)", "到", text)
    text = re.sub(r"(?<![A-Za-z0-9)])-\s?(?=\d)", "负", text)
    text = re.sub(rf"({_NUMBER})\s?%", r"百分之\1", text)
    text = re.sub(rf"({_NUMBER})\s?‰", r"千分之\1", text)
    text = re.sub(r"(?<![\d/.])(\d+)/(\d+)(?![\d/])", r"\2分之\1", text)
    text = re.sub(rf"(?<=\d)\s?({units})(?![A-Za-z])", lambda m: _UNITS[m[1]], text)
    text = re.sub(_NUMBER, _quantity, text)
    text = re.sub(r"[A-Za-z]+://", "", text)
    text = re.sub(r"(?<=[A-Za-z])\.(?=[A-Za-z])", "点", text)
    return "".join(_SIGNS.get(char) or _GREEK.get(char.lower(), char) for char in text)


def _groups(m: re.Match[str]) -> str:
    return ",".join(one_by_one(group) for group in m[0].lstrip("+").split("-"))
