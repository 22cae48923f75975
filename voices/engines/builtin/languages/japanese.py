"""Japanese base voices: haqumei reads the text (OpenJTalk's analysis and dictionary), Kokoro speaks it."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from voices.text import ipa
from voices.text.pronunciation import SAID
from voices.text.words.japanese import GREEK, LETTERS
from voices.text.words.numbers import DIGITS

from . import kokoro
from .base import BaseVoice, nothing_spoken

_VOICES = {"ja_alpha": "jf_alpha", "ja_kumo": "jm_kumo"}
NAMES = SOURCES = tuple(_VOICES)  # female, male
REVISION = 1  # raise it when the reading or the settings change the sound
VERSION = f"{kokoro.VERSION} {version('haqumei')} {REVISION}"

# The first six are from books in the public domain (Natsume Soseki, "Kokoro" and "Botchan"; Miyazawa Kenji, "Night on
# the Galactic Railroad"), the others have the rarer sounds.
CALIBRATION = [
    "私はその人を常に先生と呼んでいた。",
    "だからここでもただ先生と書くだけで本名は打ち明けない。",
    "親譲りの無鉄砲で、子供の時から損ばかりしている。",
    "小学校にいる時分、学校の二階から飛び降りて一週間ほど腰を抜かした事がある。",
    "ではみなさんは、そういうふうに川だと言われたり、乳の流れたあとだと言われたりしていました。",
    "このぼんやりと白いものがほんとうは何かご承知ですか。",
    "病院の前で、ニュースを読みながら、百円のジュースを飲んだ。",
    "ぜひ、ヴァイオリンとピアノの演奏会へ、家族みんなでお越しください！",
    "牛乳と卵、それに胡麻油を少々、よく混ぜてから焼きます。",
    "地図を見ると、この街の東側には、大きな池と古いお寺があるようだ。",
]

_KANA = """
ア a イ i ウ ɯ エ e オ o カ ka キ kʲi ク kɯ ケ ke コ ko ガ ɡa ギ ɡʲi グ ɡɯ ゲ ɡe ゴ ɡo サ sa シ ɕi ス sɨ セ se ソ so
ザ ʣa ジ ʥi ズ zɨ ゼ ʣe ゾ ʣo タ ta チ ʨi ツ ʦɨ テ te ト to ダ da ヂ ʥi ヅ zɨ デ de ド do ナ na ニ ɲi ヌ nɯ ネ ne ノ no
ハ ha ヒ çi フ ɸɯ ヘ he ホ ho バ ba ビ bʲi ブ bɯ ベ be ボ bo パ pa ピ pʲi プ pɯ ペ pe ポ po マ ma ミ mʲi ム mɯ メ me
モ mo ヤ ja ユ jɯ ヨ jo ラ ɾa リ ɾʲi ル ɾɯ レ ɾe ロ ɾo ワ βa ヰ i ヱ e ヲ o ヴ vɯ ァ a ィ i ゥ ɯ ェ e ォ o ャ ja ュ jɯ
ョ jo ヮ βa ヵ ka ヶ ke ヷ va ヸ vʲi ヹ ve ヺ vo
イェ je ウィ βi ウェ βe ウォ βo キェ kʲe キャ kʲa キュ kʲɨ キョ kʲo ギャ ɡʲa ギュ ɡʲɨ ギョ ɡʲo クァ kᵝa クィ kᵝi
クェ kᵝe クォ kᵝo グァ ɡᵝa グィ ɡᵝi グェ ɡᵝe グォ ɡᵝo シェ ɕe シャ ɕa シュ ɕɨ ショ ɕo ジェ ʥe ジャ ʥa ジュ ʥɨ ジョ ʥo
チェ ʨe チャ ʨa チュ ʨɨ チョ ʨo ヂャ ʥa ヂュ ʥɨ ヂョ ʥo ツァ ʦa ツィ ʦʲi ツェ ʦe ツォ ʦo ティ tʲi テュ tʲɨ ディ dʲi
デュ dʲɨ トゥ tɯ ドゥ dɯ ニェ ɲe ニャ ɲa ニュ ɲɨ ニョ ɲo ヒェ çe ヒャ ça ヒュ çɨ ヒョ ço ビャ bʲa ビュ bʲɨ ビョ bʲo
ピャ pʲa ピュ pʲɨ ピョ pʲo ファ ɸa フィ ɸʲi フェ ɸe フォ ɸo フュ ɸʲɨ フョ ɸʲo ミャ mʲa ミュ mʲɨ ミョ mʲo リャ ɾʲa
リュ ɾʲɨ リョ ɾʲo ヴァ va ヴィ vʲi ヴェ ve ヴォ vo ヴュ bʲɨ ヴョ bʲo スィ si ズィ zi
"""
_TABLE = dict(zip(_KANA.split()[::2], _KANA.split()[1::2], strict=True))
_MARKS = {
    "。": ".", "．": ".", ".": ".", "、": ",", "，": ",", ",": ",", "？": "?", "?": "?", "！": "!", "!": "!",
    "：": ",", ":": ",", "；": ";", ";": ";", "…": "…", "‥": "…", "—": "—", "―": "—", "〜": "—", "～": "—", "~": "—",
}  # fmt: skip
_NAMES = tuple(
    str.split(
        "田中 鈴木 佐藤 高橋 渡辺 伊藤 山本 中村 小林 加藤 吉田 山田 佐々木 山口 松本 井上 木村 斎藤 清水 山崎 "
        "池田 橋本 阿部 石川 前田 藤田 小川 後藤 岡田 村上 長谷川 近藤 石井 坂本 遠藤 青木 藤井 西村 福田 太田"
    )
)
_DIGITS = dict(zip("0123456789", DIGITS["ja"], strict=True))


@lru_cache(maxsize=1)
def _analyzer() -> Any:
    """OpenJTalk's text analysis with its dictionary (0.4 s, 130 MB)."""
    from haqumei import Haqumei

    return Haqumei()


def phonemes(text: str) -> str:
    """Japanese words (voices.text.words.japanese) in the phonemes of Kokoro (those of misaki 0.7), words apart.

    Raises PublicError validation_error (field text) where nothing in it can be spoken.
    """
    # readings in katakana, marks, and phonemes that were given
    units, given = _units(text)
    spoken = ""
    for unit, following in zip(units, [*units[1:], ""], strict=False):
        if unit in _MARKS.values():
            # One pause for a row of marks, the longest of them.
            if spoken and spoken[-1] in ",;—":
                spoken = spoken[:-1] + unit
            elif spoken and spoken[-1] not in ".!?…":
                spoken += unit
        else:
            said = given[unit] if unit in given else sounds(unit, following)
            spoken = f"{spoken} {said}" if spoken else said
    if not any(char.isalpha() for char in spoken):
        raise nothing_spoken()
    return spoken if spoken[-1] in ".!?…" else spoken.rstrip(",;—") + "."


def _units(text: str) -> tuple[list[str], dict[str, str]]:
    """Readings and marks, and the phonemes of those that were given in letters.

    A surname stands for such a word while the text is analysed, so that what follows is read as behind a noun.
    """
    words = [match[3] for match in SAID.finditer(text)]
    names = iter(name for name in _NAMES if name not in text)
    given = {name: ipa.kokoro(letters) for letters, name in zip(words, names, strict=False)}
    standing = iter(given)
    analysed = SAID.sub(lambda m: next(standing, m[1]), text)
    units: list[str] = []
    for word in _analyzer().run_frontend(analysed):
        if word.string in given:
            units.append(word.string)
        elif word.pos == "記号" and word.string in _MARKS:
            units.append(_MARKS[word.string])
        else:
            spelled = "".join(_spelled(char) for char in word.pron)
            units.append("".join(char for char in spelled if "ァ" <= char <= "ヺ" or char == "ー"))
    return [unit for unit in units if unit], given


def _spelled(char: str) -> str:
    """A letter that the analysis left as it is, by its name."""
    plain = unicodedata.normalize("NFKC", char).upper()
    return LETTERS.get(plain) or GREEK.get(plain.lower()) or _DIGITS.get(plain) or char


def sounds(reading: str, following: str = "") -> str:
    """A reading in katakana, as it is pronounced, in phonemes; following: the next word's reading."""
    out = ""
    position = 0
    while position < len(reading):
        char, rest = reading[position], reading[position + 1 :] + following
        if (pair := reading[position : position + 2]) in _TABLE and len(pair) == 2:
            out += _TABLE[pair]
            position += 2
            continue
        if char == "ー":
            out += "ː" if out and not out.endswith("ː") else ""
        elif char == "ッ":
            out += "ʔ" if rest[:1] in _TABLE and not out.endswith("ʔ") else ""
        elif char == "ン":
            out += _nasal(_TABLE.get(rest[:2]) or _TABLE.get(rest[:1], ""))
        else:
            out += _TABLE.get(char, "")
        position += 1
    return out


def _nasal(following: str) -> str:
    """The sound of ン before the phonemes `following`."""
    for starts, sound in (("mpb", "m"), ("kɡ", "ŋ"), ("ɲʨʥ", "ɲ"), ("ntdɾz", "n")):
        if following and following[0] in starts:
            return sound
    return "ɴ"


def load(name: str) -> BaseVoice:
    """The base voice of that name (a second for the first one, nothing more for the others)."""
    style = _VOICES[name]
    kokoro.network()
    return kokoro.KokoroVoice(name, "ja", VERSION, style, phonemes, CALIBRATION)
