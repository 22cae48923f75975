"""How a word is said: by another spelling, or in the letters of an alphabet. Pure Python.

What is said in letters stands in the words of a sentence (voices.text.reading.Spoken) between private characters, which
no text can have in it: `said` writes them, `SAID` finds them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from voices.text import ipa
from voices.text.languages import has_speech

RESPELLING = "respelling"
# Every alphabet, and what else people call it.
_CALLED = {
    RESPELLING: "respelling alias text",
    "ipa": "ipa x-ipa",
    "cmu-arpabet": "cmu-arpabet cmu arpabet x-arpabet x-cmu",
    "pinyin": "pinyin hanyu-pinyin x-pinyin x-amazon-pinyin",
    "kana": "kana katakana hiragana yomigana x-kana x-amazon-yomigana x-amazon-pron-kana x-google-yomigana",
}
ALPHABETS = tuple(_CALLED)
_NAMES = {name: alphabet for alphabet, names in _CALLED.items() for name in names.split()}
# The languages whose words an alphabet can say.
SPOKEN_IN = {"pinyin": frozenset({"zh"}), "kana": frozenset({"ja"})}

SAID = re.compile("\ue000([^\ue001]*)\ue001([a-z]*):([^\ue002]*)\ue002")


@dataclass(frozen=True)
class Pronounced:
    """A word that is said in the letters of an alphabet: `ipa`, `pinyin` (syllables with tone numbers, `xi1 an1`) or
    `kana` (katakana)."""

    word: str
    alphabet: str
    letters: str


def alphabet_called(name: str) -> str | None:
    """One of ALPHABETS for any common name of it."""
    return _NAMES.get(name.strip().casefold())


def pronounced(word: str, alphabet: str, say: str) -> Pronounced:
    """alphabet: of ALPHABETS, but `respelling`. Raises ValueError, which says what is wrong with `say`."""
    if alphabet == "cmu-arpabet":
        return Pronounced(word, "ipa", ipa.clean(_arpabet(say)))
    return Pronounced(word, alphabet, _LETTERS[alphabet](say))


def said(entry: Pronounced) -> str:
    """As it stands in the words of a sentence. Kana are read as they are."""
    if entry.alphabet == "kana":
        return entry.letters
    return f"\ue000{entry.word}\ue001{entry.alphabet}:{entry.letters}\ue002"


def shown(words: str) -> str:
    """Words for people, with what is said in letters between slashes."""
    return SAID.sub(r"/\3/", words)


def as_written(words: str) -> str:
    """Words with the written forms of what is said in letters."""
    return SAID.sub(r"\1", words)


# --- pinyin ----------------------------------------------------------------------------------------------------------

_TONES = {"\u0304": "1", "\u0301": "2", "\u030c": "3", "\u0306": "3", "\u0300": "4"}
_SYLLABLE = re.compile(
    r"((?:zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw])?(?:iang|uang|iong|ang|eng|ing|ong|uai|uan|ian|iao|van|ai|ei|ao|ou|an|en|er|"
    r"ia|ie|iu|in|ua|uo|ui|un|ue|ve|vn|a|o|e|i|u|v)|ng|hm|m|n)(r?)([0-5]?)"
)
_SYLLABLES = re.compile(f"(?:{_SYLLABLE.pattern.replace('(r?)', 'r?').replace('([0-5]?)', '[0-5]?')})+")


def _pinyin(say: str) -> str:
    spoken: list[str] = []
    for part in re.split(r"[\s'’·-]+", say.strip().casefold().replace("u:", "ü")):
        numbered = _numbered(part)
        if not part or (spoken and part == "r"):
            spoken += ["r"] if part else []
            continue
        if not _SYLLABLES.fullmatch(numbered):
            raise ValueError(f'"{part[:40]}" is no pinyin; write it as in "chong2 qing4" or "chóng qìng"')
        spoken += _cut(numbered)
    if not spoken:
        raise ValueError("there is no syllable in it")
    if len(spoken) > 1 and not re.search("[1-4]", "".join(spoken)):
        raise ValueError('its tones are missing; write them as in "chong2 qing4" or "chóng qìng"')
    return " ".join(spoken)


def _numbered(part: str) -> str:
    """`lǜsè` as `lv4se4`: a tone's number stands behind its syllable, which ends at the next consonant but n, ng, r."""
    out, tone = "", ""
    for char in unicodedata.normalize("NFD", part):
        if char in _TONES:
            tone = _TONES[char]
            out += "\0"
        elif char == "\u0308":
            out = out.removesuffix("u") + "v"
        else:
            out += char
    if not tone:
        return out
    numbered = ""
    marks = iter(_TONES[char] for char in unicodedata.normalize("NFD", part) if char in _TONES)
    # Each mark ends up behind the rest of its final: vowels, and n, ng or r where no vowel follows.
    for piece in re.split(r"(\0[aeiouv]*(?:ng(?![aeiouv])|n(?![aeiouvg])|r(?![aeiouv]))?)", out):
        numbered += f"{piece[1:]}{next(marks)}" if piece.startswith("\0") else piece
    return numbered


def _cut(numbered: str) -> list[str]:
    """The syllables of a word, each with its tone, 5 where it has none; `r` the rhotic ending of the one before."""
    spoken: list[str] = []
    position = 0
    while position < len(numbered):
        match = _longest(numbered, position)
        syllable, rhotic, tone = match.groups()
        spoken.append(f"{syllable}{tone if tone in tuple('1234') else '5'}")
        spoken += ["r"] if rhotic else []
        position = match.end()
    return spoken


def _longest(text: str, position: int) -> re.Match[str]:
    """The longest syllable from `position` on behind which the rest can be cut too."""
    for end in range(min(len(text), position + 8), position, -1):
        match = _SYLLABLE.fullmatch(text, position, end)
        if match and (end == len(text) or _SYLLABLES.fullmatch(text, end)):
            return match
    raise ValueError(f'"{text[:40]}" is no pinyin')


# --- kana, ARPAbet ---------------------------------------------------------------------------------------------------

_KANA = re.compile("[ァ-ヺー]+")


def _kana(say: str) -> str:
    plain = re.sub(r"[\s'’ꜜ・]", "", unicodedata.normalize("NFKC", say))
    katakana = "".join(chr(ord(char) + 0x60) if "ぁ" <= char <= "ゖ" else char for char in plain)
    if not _KANA.fullmatch(katakana) or not has_speech(katakana):
        raise ValueError("it is not kana alone")
    return katakana


_ARPABET = dict(
    zip(
        str.split(
            "AA AE AH AO AW AX AXR AY EH ER EY IH IX IY OW OY UH UW UX B CH D DH DX EL EM EN F G HH H JH K L M N NG P "
            "Q R S SH T TH V W WH Y Z ZH"
        ),
        str.split(
            "ɑ æ ʌ ɔ aʊ ə ɚ aɪ ɛ ɝ eɪ ɪ ɨ i oʊ ɔɪ ʊ u u b tʃ d ð ɾ ᵊl ᵊm ᵊn f ɡ h h dʒ k l m n ŋ p ʔ ɹ "
            "s ʃ t θ v w w j z ʒ"
        ),
        strict=True,
    )
)


def _arpabet(say: str) -> str:
    out = ""
    for token in say.upper().strip("/ ").split():
        match = re.fullmatch(r"([A-Z]{1,3})([012]?)", token)
        if match is None or match[1] not in _ARPABET:
            raise ValueError(f'"{token[:20]}" is no sound of ARPAbet; write them as in "T AH0 M EY1 T OW0"')
        sound = "ə" if match[1] == "AH" and match[2] == "0" else _ARPABET[match[1]]
        out += {"1": "ˈ", "2": "ˌ"}.get(match[2], "") + sound
    return out


_LETTERS: dict[str, Callable[[str], str]] = {"ipa": ipa.clean, "pinyin": _pinyin, "kana": _kana}
