"""Japanese as it is said: numbers in kanji, dates, sums, units, signs and addresses in words.

One regular expression a kind, the more particular first. `normalize` takes one sentence whose characters are plain
(voices.text.characters). How kanji are read is the engine's analysis' work, but for what it gets wrong.
"""

from __future__ import annotations

import re
from functools import lru_cache

from voices.text.words import numbers
from voices.text.words.addresses import Rule, rule, say_addresses
from voices.text.words.english_words import alternatives
from voices.text.words.say_as import JAPANESE_DIGITS

NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|(?<!\w)\.\d+|\d+"
_N = rf"(?:{NUMBER})"
_D = r"\s?[-–—~]\s?"
MONEY = {
    "US$": "アメリカドル", "HK$": "香港ドル", "NT$": "台湾ドル", "A$": "オーストラリアドル", "C$": "カナダドル",
    "S$": "シンガポールドル", "¥": "円", "￥": "円", "$": "ドル", "€": "ユーロ", "£": "ポンド", "₩": "ウォン",
    "₹": "ルピー", "₽": "ルーブル", "฿": "バーツ", "₫": "ドン", "USD": "ドル", "EUR": "ユーロ", "GBP": "ポンド",
    "JPY": "円", "CNY": "元", "KRW": "ウォン", "CHF": "スイスフラン", "AUD": "オーストラリアドル", "HKD": "香港ドル",
}  # fmt: skip
_PREFIXED = {
    "m": ("メートル", "kcmμn"), "g": ("グラム", "kmμ"), "L": ("リットル", "mdk"), "l": ("リットル", "mdk"),
    "W": ("ワット", "kMGm"), "V": ("ボルト", "km"), "A": ("アンペア", "m"), "Hz": ("ヘルツ", "kMG"),
    "B": ("バイト", "KkMGT"), "Wh": ("ワットアワー", "k"), "Ah": ("アンペアアワー", "m"), "Pa": ("パスカル", "hkM"),
    "bps": ("ビーピーエス", "kMG"), "cal": ("カロリー", "k"),
}  # fmt: skip
_PREFIXES = {
    "k": "キロ", "K": "キロ", "c": "センチ", "m": "ミリ", "μ": "マイクロ", "n": "ナノ", "d": "デシ", "M": "メガ",
    "G": "ギガ", "T": "テラ", "h": "ヘクト", "": "",
}  # fmt: skip
UNITS = {
    prefix + unit: _PREFIXES[prefix] + name
    for unit, (name, prefixes) in _PREFIXED.items()
    for prefix in ("", *prefixes)
    if unit not in ("B", "bps", "cal", "Ah") or prefix
} | {
    "km/h": "キロメートル毎時", "m/s": "メートル毎秒", "°C": "度", "℃": "度", "°F": "度", "℉": "度", "°": "度",
    "t": "トン", "h": "時間", "min": "分", "s": "秒", "ms": "ミリ秒", "ha": "ヘクタール", "dB": "デシベル",
    "cc": "シーシー", "%": "パーセント", "‰": "パーミル", "px": "ピクセル", "fps": "エフピーエス",
}  # fmt: skip
_POWERS = {"2": "平方", "3": "立方"}
SIGNS = {
    "<=": "小なりイコール", ">=": "大なりイコール", "≤": "小なりイコール", "≥": "大なりイコール",
    "!=": "ノットイコール", "==": "イコール", "->": "から", "+": "プラス", "±": "プラスマイナス",
    "=": "イコール", "×": "かける", "÷": "わる", "&": "アンド",
    "@": "アットマーク", "№": "ナンバー", "〒": "郵便番号", "°": "度", "√": "ルート", "∞": "無限大",
    "≠": "ノットイコール", "≒": "ニアリーイコール", "≈": "ニアリーイコール", "<": "小なり", ">": "大なり",
    "≦": "以下", "≧": "以上", "→": "から", "π": "パイ", "©": "コピーライト", "%": "パーセント", "‰": "パーミル",
    "#": "", "*": "", "|": "", "`": "", "^": "", "_": "アンダーバー", "\\": "",
}  # fmt: skip
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        str.split(
            "アルファ ベータ ガンマ デルタ イプシロン ゼータ イータ シータ イオタ カッパ ラムダ ミュー ニュー "
            "クサイ オミクロン パイ ロー シグマ タウ ウプシロン ファイ カイ プサイ オメガ"
        ),
        strict=True,
    )
)
_TITLES = {"Dr": "ドクター", "Mr": "ミスター", "Mrs": "ミセス", "Ms": "ミズ"}
LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        str.split(
            "エー ビー シー ディー イー エフ ジー エイチ アイ ジェー ケー エル エム エヌ オー ピー キュー "
            "アール エス ティー ユー ブイ ダブリュー エックス ワイ ゼット"
        ),
        strict=True,
    )
)
_CUES = (
    "暗証番号|郵便番号|認証コード|確認コード|認証番号|会員番号|社員番号|学籍番号|受験番号|予約番号|注文番号|口座番号|電話番号|携帯番号|製造番号|"
    "番号|コード|パスワード|便名|電話|携帯|内線|ダイヤル|部屋|下[0-9一二三四五六七八九]桁|末尾|ナンバー|品番|型番|電話は"
)


def _digits(text: str) -> str:
    return "".join(JAPANESE_DIGITS[int(char)] for char in text if char.isdecimal())


@lru_cache(maxsize=4096)
def number(text: str) -> str:
    """A number as it is written (1,234.50), as a quantity."""
    whole, dot, part = text.replace(",", "").partition(".")
    if len(whole) > 16 or (len(whole) > 1 and whole[0] == "0"):
        return _digits(whole) + (f"テン{_digits(part)}" if dot else "")
    return numbers.japanese(int(whole or "0")) + (f"点{numbers.han_digits(part)}" if dot else "")


def _date(m: re.Match[str]) -> str:
    if not (1 <= int(m[2]) <= 12 and 1 <= int(m[3]) <= 31):
        return m[0]
    return f"{number(m[1])}年{number(str(int(m[2])))}月{number(str(int(m[3])))}日"


def _time(m: re.Match[str]) -> str:
    if int(m[1]) > 24 or int(m[2]) > 59:
        return f"{number(m[1])}対{number(m[2])}"
    minutes = f"{numbers.japanese(int(m[2]))}分" if int(m[2]) else ""
    seconds = f"{numbers.japanese(int(m[3]))}秒" if m[3] else ""
    return f"{numbers.japanese(int(m[1]))}時{minutes}{seconds}"


def _minutes(m: re.Match[str]) -> str:
    tens, _, ones = ("零一二三四五六七八九".find(part) if part else 0 for part in m.groups())
    minutes = (tens or 1) * 10 + ones if m[2] else ones
    return f" {numbers.japanese(minutes)}" if m[0] and minutes and (m[2] or not m[1]) else m[0]


def _groups(m: re.Match[str]) -> str:
    return "の".join(_digits(group) for group in re.findall(r"\d+", m[0]))


def _dotted(m: re.Match[str]) -> str:
    if m[2].count(".") == 3 and not m[1]:
        return "テン".join(_digits(part) for part in m[2].split("."))
    return "テン".join(numbers.japanese(int(part)) if len(part) < 7 else _digits(part) for part in m[2].split("."))


def _cued(m: re.Match[str]) -> str:
    return m[1] + m[2] + m[3] + "の".join(_digits(group) for group in re.findall(r"\d+", m[4]))


def _money(m: re.Match[str]) -> str:
    low = f"{number(m['low'])}から" if m["low"] else ""
    return ("マイナス" if m["minus"] else "") + low + number(m["amount"]) + (m["big"] or "") + MONEY[m["sign"]]


def _fraction(m: re.Match[str]) -> str:
    whole, upper, lower = m[1], m[2], m[3]
    return (f"{number(whole)}と" if whole else "") + f"{number(lower)}分の{number(upper)}"


def _power(m: re.Match[str]) -> str:
    minus = "マイナス" if m[2].startswith("-") else ""
    return f"{m[1]}の{minus}{numbers.japanese(int(m[2].lstrip('+-')))}乗"


def _measure(m: re.Match[str]) -> str:
    amount, unit, raised = m.groups()
    return number(amount) + _POWERS.get((raised or "").lstrip("^"), "") + UNITS[unit]


_MARKS = {".": "ドット", "-": "ハイフン", "_": "アンダーバー", "+": "プラス"}
_I = re.IGNORECASE | re.ASCII
_ROMAN = r"(?=[IVXLCDM]+(?![A-Za-z]))M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?<=[IVXLCDM])"
_J = r"ぁ-んァ-ヶー一-龥々"
_RULES: list[Rule] = [
    # Else 十五分 behind 二時間 is read as fifteen hundredths.
    rule(r"(?<=時間)([二三四五]?)(十?)([一二三四五六七八九]?)(?=分)", _minutes),
    # Dates and times.
    rule(r"(?<![\d-])(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?![\d-]|\.\d)", _date),
    rule(rf"(?<=\d){_D}(?=\d{{1,2}}[:：]\d\d)", "から"),
    rule(r"(?<!\d)(\d{1,2})[:：](\d{2})(?:[:：](\d{2}))?(?!\d)", _time),
    rule(r"(\d)\s?[:：]\s?(?=\d)", r"\1対"),
    rule(
        r"(?<![\d/])(\d{1,2})/(\d{1,2})(?=[(（に]|から|まで|の(?:朝|夜|昼|午))",
        lambda m: f"{number(m[1])}月{number(m[2])}日",
    ),
    # Codes.
    rule(r"〒\s?(\d{3})-(\d{4})\s?", lambda m: f"郵便番号{_digits(m[1])}の{_digits(m[2])}、"),
    rule(
        rf"({_CUES})((?:番号|は|が|:|：|の|\s){{0,4}})([A-Za-z]{{0,3}}-?)(\d{{3,12}}(?:-\d{{2,8}})?)"
        r"(?![\d.,]*\d|[個人円枚件回年月日台本%])",
        _cued,
    ),
    rule(r"(?<![\w.])(v(?:er)?\.?)?(\d{1,6}(?:\.\d{1,6}){2,8})(?![\d.]*\d)", _dotted, _I),
    rule(
        r"(?<![\d.-])\+?\d{1,5}(?:-\d{1,8}){2,5}(?![\d-])|(?<![\d.])0\d{1,4}[- ]\d{3,8}(?:[- ]\d{3,4})?(?!\d)"
        r"|(?<![\d.,-])0\d+(?![\d.]*\d)",
        _groups,
    ),
    rule(r"(?<![\dA-Za-z.])(\d{3,4})(?=号室)", lambda m: _digits(m[1])),
    rule(r"(?<![\d.])(110|119|117|118|104|171|188|189)(?=番(?:に|へ|通報|する|を|で))", lambda m: _digits(m[1])),
    rule(r"\d{17,}", lambda m: _digits(m[0])),
    # Money.
    rule(
        rf"(?P<minus>(?<![\w)])[-−])?(?P<sign>{alternatives(MONEY)})\s?(?:(?P<low>{_N}){_D}(?:(?P=sign))?)?(?P<amount>{_N})\s?(?P<big>[万億兆千百]{{1,2}})?円?",
        _money,
    ),
    rule(
        rf"(?P<minus>(?<![\w)])[-−])?(?:(?P<low>{_N}){_D})?(?P<amount>{_N})\s?(?P<big>[万億兆千百]{{1,2}})?\s?(?P<sign>{alternatives(MONEY)})(?![A-Za-z])(?!\d)",
        _money,
    ),
    # Ranges and measures.
    rule(rf"({_N})\s?%{_D}(?={_N}\s?%)", r"\1%から"),
    rule(
        rf"(?<=[\d%°CFgmLB℃℉度時分秒日月年人個円歳回枚本台%曜])(?:{_D})(?=-?\d)(?![\d.]+\s?[=＝])|(?<=\d)[-–—](?=\d+(?:[^\d\s=+*/×÷-]|\s*$))",
        "から",
    ),
    rule(r"(?<=[曜一-龥])[-–—~](?=[一-龥])", "から"),
    rule(r"(?<![\w)）])[-−]\s?(?=\.?\d)", "マイナス"),
    rule(r"(?<![\d/.])(?:(\d+)\s)?(\d{1,4})/(\d{1,4})(?![\d/])", _fraction),
    rule(rf"時速\s?({_N})\s?km/h", lambda m: f"時速{number(m[1])}キロメートル"),
    rule(rf"(?<![A-Za-z\d.])({_N})\s?({alternatives(set(UNITS) - {'A'})})(\^[23])?(?![A-Za-z\d^])", _measure),
    rule(rf"(?<![A-Za-z\d.])({_N})\s(A)()(?![A-Za-z\d^])", _measure),
    rule(r"(?<![A-Za-z])(k|c|m)?m\^([23])(?![A-Za-z])", lambda m: f"{_POWERS[m[2]]}{_PREFIXES[m[1] or '']}メートル"),
    rule(r"(?<=\d)\s?[vV]\s?(?=\d)", "対"),
    rule(r"(?<=\d)([A-Z])(?![A-Za-z])", lambda m: LETTERS[m[1]]),
    rule(r"([\w)])\^([+-]?\d{1,3})", _power),
    # Signs.
    rule(r"(?<=\d)\s?[-−]\s?(?=\d)", "マイナス"),
    rule(r"(?<=\d)\s?[*xX]\s?(?=\d)", "かける"),
    rule(r"(?<=\d)\s?/\s?(?=\d)", "わる"),
    rule(r"#(?=\d)", "ナンバー"),
    rule(r"(?<![A-Za-z])[Nn]o\.?\s?(?=\d)", "ナンバー"),
    rule(r"(?<![A-Za-z])(Dr|Mr|Mrs|Ms)(?:\.\s?|\s)(?=[一-龥ァ-ヶ])", lambda m: _TITLES[m[1]]),
    rule(
        rf"(?<=[{_J}])(?![IVXLCDM](?![IVXLCDM]))({_ROMAN})(?=[{_J}。、！？\s]|$)",
        lambda m: numbers.japanese(numbers.roman(m[1])),
    ),
    rule(r"(?<=日)[(（]([月火水木金土日])[)）]", r"、\1曜日、"),
    rule(r"(?<![A-Za-z])[vV]er\.?\s?(?=\d)", "バージョン"),
    rule(r"(?<![A-Za-z])vol\.?\s?(?=\d)", "ボリューム", _I),
    rule(r"(?<=[A-Za-z0-9])\.(?=[a-z])", "ドット"),
    rule(r"(?<=[A-Z])\.(?=[A-Z]\.)|(?<=[A-Z])\.(?=[^\W\d_a-zA-Z])", ""),
    rule(r"(?<=[A-Za-z])/(?=[A-Za-z])(?!h\b|s\b)", "スラッシュ"),
    rule(alternatives(SIGNS), lambda m: SIGNS[m[0]]),
    rule(NUMBER, lambda m: number(m[0])),
    rule("[αβγδεζηθικλμνξοπρστυφχψω]", lambda m: GREEK[m[0]]),
    rule("[ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ]", lambda m: GREEK[m[0].lower()]),
    rule(r"(?<=[ぁ-んァ-ヶー])[ー~]+", "ー"),
    rule(rf"(?<=[{_J}])\s+(?=[{_J}])", ""),
    rule(r"\s+", " "),
]
_FOOD = (
    "料理|カレー|ラーメン|食べ|食事|もの|物|味|ソース|スープ|麺|キムチ|鍋|豆腐|お?菓子|タレ|お?酒|唐辛子|わさび|胡椒"
)
_TASTES = (
    (re.compile(f"辛(?=[いくさ]{{1,2}}(?:{_FOOD}))"), "から"),
    (re.compile(f"({_FOOD})([はがもの]?(?:とても|すごく|少し|かなり)?)辛(?=[いくすか])"), r"\1\2から"),
)


def normalize(text: str) -> str:
    """The sentence with nothing but kanji, kana, Latin words and punctuation; may come back empty."""
    text = say_addresses(text, _MARKS, "アットマーク", "スラッシュ")
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    for pattern, said in _TASTES:  # of food; else the analysis takes つらい
        text = pattern.sub(said, text)
    return text.strip()
