"""Scripts and languages: which language a text is in, and whether and how long it can be spoken. Pure Python.

Languages are told by script alone: kana make Japanese of the Han near them, Han without kana are Chinese, Hangul is
Korean (`ko`), Latin letters are read as English, any other alphabet is `und` (no engine here reads it).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# What a request may name as the language of a text. `auto` decides by script.
LANGUAGES = ["auto", "zh", "en", "ja", "yue", "ko"]

LANGUAGE_NAMES = {"en": "English", "ja": "Japanese", "ko": "Korean", "yue": "Cantonese", "zh": "Chinese"}
# What people call them, in lower case and with hyphens. Of `en-US` the first part counts where the whole is not here.
_CALLED = {
    "auto": "auto automatic auto-detect autodetect detect und any",
    "en": "en eng english englisch anglais inglés 英语 英語 英文",
    "ja": "ja jp jpn japanese nihongo 日本語 日语 日語 日文",
    "ko": "ko kr kor korean hangul 한국어 韩语 韓語 韓国語 韩文",
    "yue": "yue zh-yue zh-hk zh-mo zh-hant-hk cantonese 粤语 粵語 广东话 廣東話 広東語",
    "zh": "zh cn cmn zho chi chinese mandarin putonghua tw hans hant 中文 汉语 漢語 普通话 普通話 国语 國語 中国語",
}
_CODES = {name: code for code, names in _CALLED.items() for name in names.split()}

# Characters a second of slow speech.
NARROW_PER_SECOND, WIDE_PER_SECOND = 12.0, 3.5

LATIN, HAN, KANA, HANGUL, DIGIT, OTHER, NEUTRAL = "latin", "han", "kana", "hangul", "digit", "other", ""
# Private characters that stand for words which are kept out of the rules, so many for each script.
STAND_IN_SCRIPTS = (LATIN, HAN, KANA, HANGUL, DIGIT, OTHER, NEUTRAL)
FIRST_STAND_IN, STAND_INS = 0xF0000, 0x2000

_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
# A character asked to be drawn as a picture (keycaps, the information sign) is not there to be read.
_PICTURED = re.compile("[^\ufe0f\u20e3]\ufe0f?\u20e3|[^\ufe0f]\ufe0f", re.DOTALL)


def language_code(name: str) -> str | None:
    """One of LANGUAGES for any common name of it (`en-US`, `zh_CN`, `Japanese`, `jp`), None for others."""
    plain = name.strip().casefold().replace("_", "-")
    return _CODES.get(plain) or _CODES.get(re.split(r"[-. (]", plain, maxsplit=1)[0])


def spoken_languages(codes: Iterable[str]) -> str:
    """A list for people: `en (English), zh (Chinese)`."""
    return ", ".join(f"{code} ({LANGUAGE_NAMES[code]})" if code in LANGUAGE_NAMES else code for code in codes)


@lru_cache(maxsize=16384)
def script_of(char: str) -> str:
    if char.isascii():
        return LATIN if char.isalpha() else DIGIT if char.isdigit() else NEUTRAL
    if char in _INVISIBLE_LETTERS:
        return NEUTRAL
    if ord(char) >= FIRST_STAND_IN:
        number = (ord(char) - FIRST_STAND_IN) // STAND_INS
        return STAND_IN_SCRIPTS[number] if number < len(STAND_IN_SCRIPTS) else NEUTRAL
    if char in "〇〻":
        return HAN
    if char in "々ーｰゝゞヽヾ":
        return KANA
    category = unicodedata.category(char)
    if category[0] == "N":
        return DIGIT
    if category[0] != "L" or category == "Lm":
        return NEUTRAL
    name = unicodedata.name(unicodedata.normalize("NFKC", char)[0], "")
    for prefix, script in (
        ("LATIN ", LATIN),
        ("CJK ", HAN),
        ("BOPOMOFO ", HAN),
        ("HIRAGANA ", KANA),
        ("KATAKANA ", KANA),
        ("HALFWIDTH KATAKANA ", KANA),
        ("HANGUL ", HANGUL),
        ("DIGIT ", DIGIT),
    ):
        if name.startswith(prefix):
            return script
    return OTHER


@lru_cache(maxsize=16384)
def _is_spoken(char: str) -> bool:
    return bool(script_of(char)) and unicodedata.category(char) != "Lm"


def has_speech(text: str) -> bool:
    """Whether there is at least one letter, digit or ideograph: punctuation and pictures alone say nothing."""
    return any(map(_is_spoken, text if text.isascii() else _PICTURED.sub(" ", text)))


def speaking_seconds(text: str) -> float:
    """About how long a text takes to speak at its usual speed; rather too long than too short."""
    # Hangul, kana, Han, and signs as wide as they
    wide = 0 if text.isascii() else sum(char >= "\u1100" for char in text)
    return 0.5 + wide / WIDE_PER_SECOND + (len(text) - wide) / NARROW_PER_SECOND


@lru_cache(maxsize=8192)
def _han_evidence(char: str) -> str:
    """`zh` for a character that Japanese does not have, `ja` for one that Chinese does not have, else ''."""

    if char in "〇〻":
        return ""  # in both, though old Chinese character sets lack it

    def in_charset(codec: str) -> bool:
        try:
            char.encode(codec)
        except UnicodeEncodeError:
            return False
        return True

    japanese = in_charset("cp932")
    chinese = in_charset("gb2312") or in_charset("big5")
    return "ja" if japanese and not chinese else "zh" if chinese and not japanese else ""


# Everyday words of Chinese that Japanese writes otherwise.
_CHINESE_WORDS = re.compile("[你您她它吗嗎呢吧们們这這哪谁誰怎很没沒说說]|什[么麼]|不是|我[是的]|他[是的]|是[的我]")


def han_language(sentence: str, japanese_near: bool) -> str:
    """The language of the Han characters of one sentence. japanese_near: there are kana in the sentences around it."""
    kana = sum(1 for char in sentence if script_of(char) == KANA)
    if kana:
        return "ja"
    evidence = [_han_evidence(char) for char in sentence if script_of(char) == HAN]
    chinese, japanese = evidence.count("zh"), evidence.count("ja")
    if chinese != japanese:
        return "zh" if chinese > japanese else "ja"
    if _CHINESE_WORDS.search(sentence):
        return "zh"
    return "ja" if japanese_near else "zh"


def is_certainly_chinese(text: str) -> bool:
    """Whether something in a text of Han characters says that it is not Japanese."""
    if re.search("[的了是在和不有也都就还把被让给与从]", text) or _CHINESE_WORDS.search(text):
        return True
    return any(script_of(char) == HAN and _han_evidence(char) == "zh" for char in text)


def detect_language(text: str) -> str:
    """The language of most of `text`: `en`, `zh`, `ja`, `ko` or `und`. A text without letters is `en`."""
    counts = dict.fromkeys((LATIN, HAN, KANA, HANGUL, OTHER), 0)
    for char in text:
        script = script_of(char)
        if script in counts and script:
            counts[script] += 1
    wide = counts[HAN] + counts[KANA]
    weights = {
        "en": counts[LATIN],
        "cjk": 3 * wide,
        "ko": 3 * counts[HANGUL],
        "und": counts[OTHER],
    }
    best = max(weights, key=lambda language: weights[language])
    if best != "cjk":
        return best
    if counts[KANA] == 0:
        return han_language(text, japanese_near=False)
    # A quoted kana or two do not make a long Chinese text Japanese; in Japanese a third or more are kana.
    if counts[KANA] * 12 < counts[HAN]:
        chinese = sum(1 for char in text if script_of(char) == HAN and _han_evidence(char) == "zh")
        return "zh" if chinese or _CHINESE_WORDS.search(text) else "ja"
    return "ja"
