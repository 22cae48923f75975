"""Chinese base voices: pypinyin reads the text, Kokoro speaks it, with an accent, in its Japanese voices.

Words by rjieba, Traditional characters by OpenCC. The tones of connected speech follow Y. R. Chao, "A Grammar of Spoken
Chinese" (1968), section 1.3; the phonemes are those that Kokoro was trained on (misaki's, tones as arrows).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from voiceproject.errors import PublicError
from voices.text.pronunciation import SAID

from . import english, kokoro
from .base import BaseVoice, nothing_spoken

_VOICES = {"zh_alpha": "jf_alpha", "zh_kumo": "jm_kumo"}
NAMES = SOURCES = tuple(_VOICES)  # female, male
REVISION = 2  # raise it when the reading or the settings change the sound
VERSION = f"{kokoro.VERSION} {version('pypinyin')} {version('rjieba')} {REVISION}"

CALIBRATION = [
    "今天天气很好，我们一起去公园散步吧。",
    "请问，从这里到火车站怎么走？",
    "他每天早上六点半起床，先喝一杯热茶，再看报纸。",
    "这本书的作者是一位年轻的女教师。",
    "春天来了，山坡上的桃花和杏花都开了。",
    "昨天晚上下了一场大雨，路上到处都是水。",
    "学校图书馆里有很多关于中国历史的书。",
    "孩子们在操场上踢足球，跑得满头大汗。",
    "如果你有什么问题，请随时给我打电话。",
    "北风和太阳正在争论谁更有本事。",
    "村子旁边有一条小河，河水又清又凉。",
    "我想买两斤苹果、三根香蕉和一串葡萄。",
    "爷爷坐在椅子上，慢慢地讲他年轻时候的故事。",
    "虽然工作很忙，但是他从来没有忘记学习外语。",
]

_INITIALS = {
    "b": "p", "p": "pʰ", "m": "m", "f": "f", "d": "t", "t": "tʰ", "n": "n", "l": "l", "g": "k", "k": "kʰ", "h": "x",
    "j": "ʨ", "q": "ʨʰ", "x": "ɕ", "zh": "ꭧ", "ch": "ꭧʰ", "sh": "ʂ", "r": "ɻ", "z": "ʦ", "c": "ʦʰ", "s": "s", "": "",
}  # fmt: skip
# The tone stands where the 0 is.
_FINALS = {
    "a": "a0", "o": "wo0", "e": "ɤ0", "ê": "ɛ0", "ai": "ai0", "ei": "ei0", "ao": "au0", "ou": "ou0", "an": "a0n",
    "en": "ə0n", "ang": "a0ŋ", "eng": "ə0ŋ", "ong": "ʊ0ŋ", "er": "ɚ0", "i": "i0", "ia": "ja0", "io": "jɔ0",
    "ie": "je0", "iao": "jau0", "iou": "jou0", "ian": "jɛ0n", "in": "i0n", "iang": "ja0ŋ", "ing": "i0ŋ",
    "iong": "jʊ0ŋ", "u": "u0", "ua": "wa0", "uo": "wo0", "uai": "wai0", "uei": "wei0", "uan": "wa0n", "uen": "wə0n",
    "uang": "wa0ŋ", "ueng": "wə0ŋ", "v": "y0", "ve": "ɥe0", "van": "ɥɛ0n", "vn": "y0n", "iai": "jai0", "m": "m0",
    "n": "n0", "ng": "ŋ0",
}  # fmt: skip
_APICAL = {"zh": "ɻ0", "ch": "ɻ0", "sh": "ɻ0", "r": "ɻ0", "z": "ɹ0", "c": "ɹ0", "s": "ɹ0"}  # their "i"
_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}
_MARKS = {
    "。": ".", ".": ".", "．": ".", "，": ",", ",": ",", "、": ",", "？": "?", "?": "?", "！": "!", "!": "!",
    "；": ";", ";": ";", "：": ":", ":": ":", "…": "…", "—": "—", "–": "—", "～": "—", "~": "—",
}  # fmt: skip
# Readings that the first one of a character's list or the phrase dictionary gets wrong.
_CHARACTERS = {
    "长": "cháng", "还": "hái", "得": "de", "着": "zhe", "地": "dì", "了": "le", "都": "dōu", "只": "zhǐ", "削": "xiāo",
}  # fmt: skip
_PHRASES = {
    "朝阳": "cháo yáng", "行长": "háng zhǎng", "还钱": "huán qián", "还给": "huán gěi", "还债": "huán zhài",
    "归还": "guī huán", "漂亮": "piào liang", "朋友": "péng you", "喜欢": "xǐ huan", "东西": "dōng xi",
    "头发": "tóu fa", "地方": "dì fang", "先生": "xiān sheng", "太阳": "tài yang", "一只": "yī zhī",
    "两只": "liǎng zhī", "明白": "míng bai", "时候": "shí hou", "意思": "yì si", "告诉": "gào su", "衣服": "yī fu",
    "知道": "zhī dao", "认识": "rèn shi", "觉得": "jué de", "长得": "zhǎng de", "必须得": "bì xū děi",
    "总得": "zǒng děi", "都得": "dōu děi", "数数": "shǔ shù", "处在": "chǔ zài", "看守": "kān shǒu", "大夫": "dài fu",
    "旋风": "xuàn fēng", "猪圈": "zhū juàn", "羊圈": "yáng juàn", "悄然": "qiǎo rán", "单于": "chán yú",
    "为好": "wéi hǎo", "为主": "wéi zhǔ", "为准": "wéi zhǔn", "为例": "wéi lì",
}  # fmt: skip
_SURNAMES = {
    "单": "shan4", "曾": "zeng1", "任": "ren2", "解": "xie4", "仇": "qiu2", "区": "ou1", "朴": "piao2", "查": "zha1",
    "盖": "ge3", "翟": "zhai2", "华": "hua4", "覃": "qin2", "缪": "miao4", "冼": "xian3",
}  # fmt: skip
_CALLED = "先生|女士|小姐|太太|老师|教授|医生|同学|主任|经理|律师"
_ONE_TO_TEN = "一二三四五六七八九十"
# Of a character beside others, wherever words are cut: its reading, and where it has that.
_BESIDE = [
    (re.compile(pattern), syllable)
    for syllable, pattern in (
        ("huan2", "还(?=[钱给债清款贷]|书(?!记|包))|(?<=[没要该快])还(?![是有能会要])"),
        ("zhang3", "(?<![特延专身加])长(?=[得出满成]|高了)"),
        ("liang2", "(?<![大数质重力能少剂])量(?=[身体血尺])"),
        ("bei1", "背(?=[着起包])"),
        ("zhong4", f"(?<![这那各几哪某每两多此品物特变杂火军兵{_ONE_TO_TEN}])种(?=[了着过田地树花菜])"),
        ("zhong3", f"(?<=[这那各几哪某每两多此{_ONE_TO_TEN}])种(?!植)"),
        ("wei2", "(?<!因)为(?=[零二三四五六七八九十]|好$|主(?![人要])|准(?!备)|例)"),
        ("jiao1", "(?<![宗佛道督兰主])教(?=[我你他她它谁书给])"),
        ("tan2", "弹(?=[吉钢琴奏唱古])"),
        ("gan1", "干(?=[净燥杯旱脆枯])|(?<=[晒吹烤饼烘擦晾风肉果豆])干(?![部活])"),
        ("dao4", "倒(?=[车茶水立影数])"),
        ("zhong4", "中(?=[毒奖弹枪暑标计]|了)|(?<=[打击射看猜选])中(?![国学文小间医药日美央等年])"),
        ("hang2", f"(?<=[这那几两每{_ONE_TO_TEN}])行(?=字|诗|代码|眼泪)"),
        ("xing2", "(?<!银)行(?=走|李)"),
    )
]
_SURNAME = re.compile(
    f"(?<=姓)[{''.join(_SURNAMES)}]"
    f"|(?:(?<![一-龥])|(?<=[的和与跟找问请由向对叫给让]))[{''.join(_SURNAMES)}](?={_CALLED})"
)
_OWN_ER = frozenset("女婴幼孤少胎男健宠生育小妻侄产弃混")  # 女儿, 婴儿, ...: 儿 is a syllable of its own
_GAINED = frozenset(["获得", "取得", "赢得", "所得", "难得", "求得", "夺得", "博得", "心得", "不得", "只得"])
_NUMERALS = frozenset("零〇一二三四五六七八九十百千万亿")
_MUST_AFTER = frozenset(["我", "你", "他", "她", "它", "们", "还", "就", "也", "都", "又", "才", "可", "只"])
_GAINS_AFTER = _MUST_AFTER | frozenset("天年月日次刚曾已经会人家妈爸")
_RUNS = re.compile(
    rf"(?P<said>{SAID.pattern})|"
    r"(?P<han>[〇㐀-䶿一-鿿\uf900-\ufaff\U00020000-\U0003ffff]+)|(?P<latin>[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ'’ -]*)|(?P<mark>.)",
    re.S,
)


@lru_cache(maxsize=1)
def _reader() -> tuple[Callable[[str], list[str]], Any]:
    """The cutter into words, and pypinyin with the corrections above (0.3 s, 40 MB)."""
    import pypinyin
    import rjieba

    pypinyin.load_single_dict({ord(char): reading for char, reading in _CHARACTERS.items()})
    pypinyin.load_phrases_dict(
        {phrase: [[syllable] for syllable in reading.split()] for phrase, reading in _PHRASES.items()}
    )
    return rjieba.cut, pypinyin


def syllables(han: str) -> list[list[str]]:
    """Simplified Han characters as words of syllables: pinyin with tone numbers, 5 the neutral tone.

    The tones are those of connected speech; `r` is the rhotic ending of the syllable before it. A character that is
    in no dictionary is left out.
    """
    cut, pypinyin = _reader()
    words: list[list[tuple[str, str]]] = []  # of (character, syllable)
    for part in cut(han):
        readings = pypinyin.lazy_pinyin(
            part, style=pypinyin.Style.TONE3, neutral_tone_with_five=True, errors=lambda chars: [""] * len(chars)
        )
        if known := [pair for pair in zip(part, readings, strict=True) if pair[1]]:
            words.append(known)
    _by_context(words)
    flat = [pair for word in words for pair in word]
    flat = [(char, _yi_bu(flat, index)) for index, (char, _) in enumerate(flat)]
    spoken: list[list[str]] = []
    position = 0
    for word in words:
        spoken.append([syllable for _, syllable in flat[position : position + len(word)]])
        position += len(word)
        if len(word) > 1 and word[-1][0] == "儿" and word[-2][0] not in _OWN_ER:
            spoken[-1][-1] = "r"
    return _third_tones(spoken)


def _by_context(words: list[list[tuple[str, str]]]) -> None:
    """Sets the readings of particles and measure words that stand by themselves, or were cut off their word."""
    text = "".join(char for word in words for char, _ in word)
    places = [(word, place) for word in words for place in range(len(word))]
    for pattern, said in _BESIDE:
        for match in pattern.finditer(text):
            word, place = places[match.start()]
            word[place] = (match[0], said)
    for match in _SURNAME.finditer(text):
        word, place = places[match.start()]
        word[place] = (match[0], _SURNAMES[match[0]])
    for index, word in enumerate(words):
        char = word[0][0]
        before = words[index - 1] if index else []
        following = words[index + 1] if index + 1 < len(words) else []
        after = following[0][0] if following else ""
        if (char == "得" and len(word) > 1) or "".join(c for c, _ in word) in _GAINED:
            word[:] = [("得", "de2") if c == "得" else (c, syllable) for c, syllable in word]
        elif len(word) == 1 and char == "得" and after and (not before or before[-1][0] in _GAINS_AFTER):
            gained = "".join(c for c, _ in following) in ("了", "过", "到")
            if gained or (before and before[-1][0] in _MUST_AFTER):
                word[0] = ("得", "de2" if gained else "dei3")
        elif char == "地" and len(before) > 1 and (len(word) == 2 or after) and word[0][1] == "di4" and len(word) < 3:
            text = "".join(c for c, _ in word)
            if text == "地" or text not in _known_phrases():
                word[0] = ("地", "de5")
        for place, (each, _) in enumerate(word):
            previous = word[place - 1][0] if place else before[-1][0] if before else ""
            if each == "只" and (previous in _NUMERALS or previous in "两几这那每") and previous:
                word[place] = ("只", "zhi1")


@lru_cache(maxsize=1)
def _known_phrases() -> Any:
    from pypinyin.constants import PHRASES_DICT

    return PHRASES_DICT


def _yi_bu(flat: list[tuple[str, str]], index: int) -> str:
    """The syllable at `index`, with the tones that 一 and 不 take from what follows them."""
    char, syllable = flat[index]
    if char not in "一不" or syllable[:-1] not in ("yi", "bu"):
        return syllable
    before = flat[index - 1][0] if index else ""
    after, following = flat[index + 1] if index + 1 < len(flat) else ("", "")
    falling = following.endswith("4") or after == "个"
    if before and before == after:
        return syllable[:-1] + "5"  # 看一看, 好不好
    if char == "不":
        return syllable if syllable == "bu5" else "bu2" if falling else "bu4"
    if (
        not after
        or before in ("第", "月", "周", "点")
        or before in _NUMERALS
        or after in "月号楼班零〇一二三四五六七八九"
    ):
        return "yi1"
    if after == "点" and flat[index + 2 : index + 3] and flat[index + 2][0] in _NUMERALS:
        minutes = any(char == "分" for char, _ in flat[index + 3 : index + 6])
        return "yi4" if minutes else "yi1"  # 一点五十分, but 一点五
    return "yi2" if falling else "yi4"


def _third_tones(words: list[list[str]]) -> list[list[str]]:
    """A third tone before another one becomes a second: in words, and where one of two words is a single syllable."""
    for word in words:
        tones = [place for place, syllable in enumerate(word) if syllable != "r"]
        for place, following in pairwise(tones):
            if word[place][-1] == word[following][-1] == "3":
                word[place] = word[place][:-1] + "2"
    for word, following_word in pairwise(words):
        if (len(word) == 1 or len(following_word) == 1) and word[-1][-1] == following_word[0][-1] == "3":
            word[-1] = word[-1][:-1] + "2"
    return words


def sounds(syllable: str) -> str:
    """One syllable (`zhong1`) in Kokoro's phonemes, the tone behind the vowel."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    plain, tone = syllable[:-1], _TONES[syllable[-1]]
    initial, final = to_initials(plain, strict=True), to_finals(plain, strict=True)
    shape = _APICAL[initial] if final == "i" and initial in _APICAL else _FINALS.get(final.replace("ü", "v"), "")
    return _INITIALS[initial] + shape.replace("0", tone)


def _word_sounds(word: list[str]) -> str:
    out = ""
    for syllable in word:
        if syllable == "r":
            out = re.sub(r"(?<=[→↗↓↘])n\Z|(?<=[ae])i(?=[→↗↓↘]?\Z)", "", out) + "ɻ"
        else:
            out += sounds(syllable)
    return out


def _pinyin_sounds(syllables_: str) -> str:
    return _word_sounds(syllables_.split())


def phonemes(text: str) -> str:
    """Chinese words (voices.text.words.chinese), with Latin ones among them, in Kokoro's phonemes, words apart.

    Raises PublicError validation_error (field text) where nothing in it can be spoken.
    """
    spoken = ""
    for run in _RUNS.finditer(text):
        said = ""
        if run["said"]:
            said = kokoro.said(run["said"], _pinyin_sounds)
        elif run["han"]:
            said = " ".join(_word_sounds(word) for word in syllables(run["han"]))
        elif run["latin"]:
            said = _english(run["latin"].strip(" -'’"))
        elif (mark := _MARKS.get(run["mark"])) and spoken:
            # One pause for a row of marks, the longest of them.
            if spoken[-1] in ",;:—":
                spoken = spoken[:-1] + mark
            elif spoken[-1] not in ".!?…":
                spoken += mark
        if said:
            spoken = f"{spoken} {said}" if spoken else said
    if not any(char.isalpha() for char in spoken):
        raise nothing_spoken()
    return spoken if spoken[-1] in ".!?…" else spoken.rstrip(",;:—") + "."


def _english(words: str) -> str:
    if not words:
        return ""
    try:
        return " ".join(english.phonemes()(words)).strip(" .")
    except PublicError:
        return ""


def load(name: str) -> BaseVoice:
    """The base voice of that name (a second for the first one, nothing more for the others)."""
    style = _VOICES[name]
    kokoro.network()
    return kokoro.KokoroVoice(name, "zh", VERSION, style, phonemes, CALIBRATION)
