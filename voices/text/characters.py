"""The characters of a text made plain, before its language is known: compatibility forms, pictures, invisible ones."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from voices.text.languages import FIRST_STAND_IN, HAN, KANA, script_of

# Read as they are, although they are symbols or have compatibility forms.
_KEPT = frozenset("©®°™¢£¥€₹₩₽₺₫₱₪₦₴฿±×÷→←↑↓≤≥≠≈≒∞√−∑∫∂∆µμΩ№〒′″…‥℃℉§¶+=<>~^|`$〜～ー・゛゜’“”‘")
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_VULGAR = re.compile(r"(\d ?)?([¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")
_ROMAN = re.compile("[\u2160-\u216b\u2170-\u217b]")
_CIRCLED = re.compile("(?<![^\\W\\d_])([\u2460-\u249b\u24ea\u24f5-\u24fe\u2776-\u2793\u3251-\u325f\u32b1-\u32bf])")
# Punctuation of Chinese and Japanese, whose pauses are longer than those of the narrow forms.
_WIDE_MARKS = frozenset("，．：；！？（）［］｛｝＂＇")
_BETWEEN_DIGITS = re.compile("(?<=[0-9０-９])[．：，](?=[0-9０-９])")
_SQUARE_UNITS = {
    "㎡": "m²",
    "㎥": "m³",
    "㎞": "km",
    "㎝": "cm",
    "㎜": "mm",
    "㎏": "kg",
    "㏄": "cc",
    "㎎": "mg",
    "∶": ":",
}
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u061c\ufe0e\ufe0f\u20e3")
_BREAKS = re.compile(r"\r\n?|[\u2028\u0085\v\f]")
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+\n")


def plain(text: str, keep_stand_ins: bool = False) -> tuple[str, list[str]]:
    """The text with plain characters, and what was left out of it: pictures, controls, private characters.

    Superscripts become `^2`, fractions `1/2`, circled and Roman numerals digits. Line breaks are `\\n`.
    keep_stand_ins: those of voices.text.lexicon.Kept stay, which no client can have sent.
    """
    text = _BLANK_LINES.sub("\n\n", _BREAKS.sub("\n", text).replace("\u2029", "\n\n"))
    if text.isascii() and text.isprintable():
        return text, []
    for square, unit in _SQUARE_UNITS.items():
        text = text.replace(square, unit)
    text = _BETWEEN_DIGITS.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    text = _RAISED.sub(lambda m: "^" + m[0].translate(_SUPERSCRIPT), text)
    text = _VULGAR.sub(_fraction, text)
    text = _ROMAN.sub(lambda m: str(int(unicodedata.numeric(m[0]))), text)
    text = _CIRCLED.sub(_circled, text)
    out: list[str] = []
    dropped: list[str] = []
    for place, char in enumerate(text):
        if char.isascii():
            # The accent of a keycap was invisible: its digit is a picture too, see languages.has_speech.
            kept = char if char.isprintable() or char in "\n\t" else " "
            if kept != char:
                dropped.append(char)
            if char in "0123456789#*" and text[place + 1 : place + 3] in ("\ufe0f\u20e3", "\u20e3"):
                dropped.append(char)
                kept = " "
            out.append(kept)
            continue
        if keep_stand_ins and ord(char) >= FIRST_STAND_IN:
            out.append(char)
            continue
        made, left_out = _plain_character(char)
        out.append(made)
        if left_out:
            dropped.append(char)
    return unicodedata.normalize("NFC", "".join(out)), dropped


@lru_cache(maxsize=16384)
def _plain_character(char: str) -> tuple[str, bool]:
    """What a character becomes, and whether something of it is lost."""
    if char in _KEPT:
        return ("~" if char in "〜～" else "-" if char == "−" else char), False
    category = unicodedata.category(char)
    if char in _INVISIBLE or (category in ("Cf", "Me") and not char.isalpha()):
        return "", char not in _INVISIBLE and category == "Cf"
    if category == "Mn":
        # An accent belongs to its letter and is composed afterwards.
        return (char if "\u0300" <= char <= "\u036f" or script_of(char) or "\u3099" <= char <= "\u309a" else ""), False
    if category[0] in "CZ":
        return " ", category[0] == "C"
    if category in ("So", "Sk"):
        spelled = unicodedata.normalize("NFKC", char)
        if spelled != char and spelled.isalnum():
            return spelled, False  # circled and squared letters
        # A modifier of another picture is no second loss.
        return " ", not ("\U0001f3fb" <= char <= "\U0001f3ff" or category == "Sk")
    if unicodedata.decomposition(char).startswith("<"):
        if char in _WIDE_MARKS:
            return char, False
        return unicodedata.normalize("NFKC", char), False
    return char, False


def _fraction(match: re.Match[str]) -> str:
    upper, _, lower = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
    following = match.string[match.end() : match.end() + 1]
    gap = " " if following.isdigit() else ""
    before = f"{match[1].strip()} " if match[1] else ""
    return f"{before}{upper}/{lower}{gap}"


def _circled(match: re.Match[str]) -> str:
    number = str(int(unicodedata.numeric(match[1])))
    before = match.string[match.start() - 1 : match.start()] if match.start() else ""
    after = match.string[match.end() : match.end() + 1]
    return (
        (" " if before.isdigit() else "")
        + number
        + (", " if after and (_CIRCLED.match(after) or after.isdigit()) else "")
    )


def joined_lines(text: str) -> str:
    """A text without line breaks: one is a space, and nothing between Han characters or kana."""
    parts = [part.strip() for part in text.split("\n")]
    out = ""
    pieces: list[str] = []
    for part in parts:
        if not part:
            continue
        if out:
            wide = (HAN, KANA)
            tight = _wide(out[-1], wide) and _wide(part[0], wide)
            pieces.append("" if tight else " ")
        pieces.append(part)
        out = part
    return re.sub(r"\s+", " ", "".join(pieces)).strip()


def _wide(char: str, scripts: tuple[str, ...]) -> bool:
    return script_of(char) in scripts or char in "。、，！？；：「」『』（）《》“”…・"
