"""Written English made ready for a grapheme-to-phoneme converter that knows words, numbers, dates, units and titles.

What it does not know is spelled out here: addresses of the web, version numbers, long digit strings, telephone numbers,
several amounts of money in a row, shouted text, compatibility forms and pictures.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Read by the converter itself, so left as they are although they have compatibility forms or are symbols.
KEPT_CHARACTERS = frozenset("½¼¾²³°©®™¢£¥€₹₩$§¶±×÷→+=<>~^|`´µ")
MAX_DIGITS = 15  # a longer number is read digit by digit
# Short words that are nothing but emphasis when they stand in capitals (others, like "US", may be initials).
_SHOUTED = (
    "ALL AND ANY ARE AS AT BAD BE BIG BUT BY CAN DAY DID DO DON'T FOR FROM GET GO GOOD HAD HAS HAVE HE HER HERE "
    "HIM HIS HOW IF INTO IS ITS JUST LIKE ME MORE MOST MUST MY NEVER NEW NO NOT NOW OF OFF OLD ON ONE ONLY OR OUR "
    "OUT OVER SAID SEE SHE SO STOP SUCH THAN THAT THE THEIR THEM THEN THERE THEY THIS TO TOO TWO UP VERY WAS WE "
    "WERE WHAT WHEN WHY WILL WITH YES YOU YOUR "
)
SHOUTED = frozenset(_SHOUTED.split())
CURRENCY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", "")}
TOP_LEVEL = "com|org|net|edu|gov|io|ai|co|info|dev|app|uk|us|de|fr|jp|cn|eu|ca|au|me|tv|xyz"

_LINK = re.compile(r"\[([^\[\]]*)\]\((?:https?://|www\.|/|#)[^)\s]*\)")
_EMAIL = re.compile(r"\b([\w.+-]+)@((?:[\w-]+\.)+[A-Za-z]{2,})\b")
_URL = re.compile(
    rf"\b(?:(?:https?|ftp)://(?P<full>[^\s<>()\"']+)|(?P<bare>(?:[\w-]+\.)+(?:{TOP_LEVEL})(?:/[^\s<>()\"']*)?)(?![\w@]))",
    re.IGNORECASE,
)
_DOTTED = re.compile(r"(?<![\w.])(v?)(\d+(?:\.\d+){2,})(?![\w.]*\w)", re.IGNORECASE)
_PHONE = re.compile(r"(?<!\w)(\+\d{1,3}[ .-]?)?(?:\((\d{3})\) ?|(\d{3})[ .-])(\d{3})[ .-](\d{4})(?!\w)")
_LONG_DIGITS = re.compile(rf"\d(?:,?\d){{{MAX_DIGITS},}}")
_MONEY = re.compile(
    r"([$€£¥])\s?(\d+(?:,\d{3})*)(?:\.(\d{2}))?(?![\d.]*\d)(?!\s?(?:hundred|thousand|million|billion|trillion|[kmb]\b))",
    re.IGNORECASE,
)
_CAPITALS = re.compile(r"(?<![\w'])[A-Z][A-Z']*[A-Z](?![\w'])|(?<![\w'])[AI](?![\w'.])")
_STRETCHED = re.compile(r"\b\w*([^\W\d_])\1{2,}\w*")
_MARKS = re.compile(r"([!?.,;:\-_*=~#/\\|])\1{3,}")
_SPACES = re.compile(r"\s+")


def normalize(text: str, is_word: Callable[[str], bool]) -> str:
    """Text with nothing in it that the converter trips over; may come back empty.

    is_word: whether a lower-case string is in the dictionary (tells shouted words from initials).
    """
    text = _LINK.sub(r"\1", plain_characters(text))
    text = text.replace("[", "(").replace("]", ")")  # the converter reads [word](/phonemes/) as pronunciation markup
    text = _EMAIL.sub(lambda m: f"{_say_dots(m[1])} at {_say_dots(m[2])}", text)
    text = _URL.sub(lambda m: _say_address(m["full"] or m["bare"]), text)
    text = _DOTTED.sub(lambda m: ("version " if m[1] else "") + m[2].replace(".", " dot "), text)
    text = _PHONE.sub(_say_phone, text)
    text = _MONEY.sub(_say_money, text)
    text = _LONG_DIGITS.sub(lambda m: " ".join(m[0].replace(",", "")), text)
    text = _STRETCHED.sub(lambda m: _shorten(m[0], is_word), _MARKS.sub(r"\1\1\1", text))
    return _SPACES.sub(" ", _calm(text, is_word)).strip()


def plain_characters(text: str) -> str:
    """Compatibility forms made plain; pictures, controls and private characters made spaces; joiners dropped."""
    out = []
    for char in text:
        category = unicodedata.category(char)
        if char in KEPT_CHARACTERS:
            out.append(char)
        elif category in ("Cf", "Mn", "Me") and not char.isalpha():
            # A combining accent belongs to its letter and is composed below; joiners and selectors have no sound.
            out.append(char if category == "Mn" and "\u0300" <= char <= "\u036f" else "")
        elif category[0] in "CZ" or category in ("So", "Sk"):
            out.append(unicodedata.normalize("NFKC", char) if category == "So" and _spells(char) else " ")
        elif not char.isascii() and unicodedata.decomposition(char).startswith("<"):
            plain = unicodedata.normalize("NFKC", char)
            out.append(f" {plain} " if "fraction" in unicodedata.decomposition(char) else plain)
        else:
            out.append(char)
    return unicodedata.normalize("NFC", "".join(out)).replace("\u2044", "/")


def _spells(char: str) -> bool:
    """Circled and squared letters and digits, which are symbols only by their frame."""
    plain = unicodedata.normalize("NFKC", char)
    return plain != char and plain.isalnum()


def _say_dots(text: str) -> str:
    for mark, word in ((".", " dot "), ("-", " dash "), ("_", " underscore "), ("+", " plus ")):
        text = text.replace(mark, word)
    return text


def _say_address(address: str) -> str:
    """`www.example.com/a/b?x=1.` -> `example dot com slash a slash b.`: the query and the fragment are left out."""
    rest = address.rstrip(".,;:!?")
    end = address[len(rest) :]
    host, _, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    host = re.sub(r"^(?:[^@/]*@)?(?:www\.)?", "", host, flags=re.IGNORECASE)
    words = _say_dots(re.sub(r":(\d+)$", r" colon \1", host))
    for part in path.split("/"):
        if part:
            words += " slash " + _say_dots(re.sub(r"%[0-9A-Fa-f]{2}", " ", part))
    return words + end


def _say_phone(match: re.Match[str]) -> str:
    country = match[1] or ""
    groups = [re.sub(r"\D", "", country), match[2] or match[3], match[4], match[5]]
    return ("plus " if country else "") + ", ".join(" ".join(group) for group in groups if group)


def _say_money(match: re.Match[str]) -> str:
    whole, parts = match[2], int(match[3] or 0)
    unit, part = CURRENCY[match[1]]
    words = f"{whole} {unit if whole == '1' or not part else unit + 's'}"
    if parts and part:
        words += f" and {parts} " + ({"penny": "pence"}.get(part, part + "s") if parts != 1 else part)
    return words


def _shorten(word: str, is_word: Callable[[str], bool]) -> str:
    """`soooo` -> `so`, `goooood` -> `good`: one letter where that is a word, else two."""
    single, double = (re.sub(r"(\w)\1{2,}", form, word) for form in (r"\1", r"\1\1"))
    return single if is_word(single.lower()) and not is_word(double.lower()) else double


def _calm(text: str, is_word: Callable[[str], bool]) -> str:
    """Shouted text in lower case: runs of capitals with an ordinary word among them, and single emphasised words."""
    words = list(_CAPITALS.finditer(text))
    out, position, index = [], 0, 0
    while index < len(words):
        run = [words[index]]
        while index + len(run) < len(words):
            between = text[run[-1].end() : words[index + len(run)].start()]
            if any(c.isalnum() for c in between) or len(between) > 4:
                break
            run.append(words[index + len(run)])
        shouting = len(run) > 1 and any(w[0] in SHOUTED or (len(w[0]) > 3 and is_word(w[0].lower())) for w in run)
        for word in run:
            plain = word[0].lower()
            known = is_word(plain) or "'" in plain or word[0] in SHOUTED
            lower = word[0] != "I" and (word[0] in SHOUTED or (shouting and known))
            out += [text[position : word.start()], plain if lower else word[0]]
            position = word.end()
        index += len(run)
    return "".join(out) + text[position:]
