"""What language a text is in, and how it is cut into the pieces that an engine speaks. Pure Python.

Languages are told by script alone: kana make Japanese of the Han near them, Han without kana are Chinese, Hangul is
Korean (`ko`), Latin letters are read as English, any other alphabet is `und` (no engine here reads it).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# A quarter of a minute of speech, about: a Han character or a kana says as much as three or four letters.
DEFAULT_MAX_CHARS = {"en": 220, "zh": 45, "yue": 45, "ja": 55, "ko": 80, "und": 200}
# Four seconds, about: what somebody who listens already should wait for at first.
EARLY_MAX_CHARS = {"en": 60, "zh": 16, "yue": 16, "ja": 20, "ko": 28, "und": 60}

# Characters a second of slow speech.
NARROW_PER_SECOND, WIDE_PER_SECOND = 12.0, 3.5

EMBEDDED_WORDS = 3  # so many Latin words in a row stay inside a Chinese or Japanese sentence
EMBEDDED_LETTERS_PER_CHARACTER = 1.5  # and no more Latin letters than this for each Han character or kana
SOFT_END_WEIGHT = 24  # `;` `:` `…` end a piece only after this much (Latin letter 1, wide character 3)

_LATIN, _HAN, _KANA, _HANGUL, _DIGIT, _OTHER, _NEUTRAL = "latin", "han", "kana", "hangul", "digit", "other", ""

_HARD_ENDS = frozenset("。｡！？．!?‼⁇⁈⁉؟।")
_SOFT_ENDS = frozenset("；：;:…⋯")
_CLOSERS = frozenset("\"'”’»›)]}」』】）〉》〕］｝＂＇｣〗〙")
_OPENERS = frozenset("“‘«‹([{「『【（〈《〔［｛｢〖〘¿¡$€£¥￥#＃＄")
_COMMAS = frozenset(",，、､;；:：·・—–)）」』…")
_SIGNS = frozenset("-+−±~〜№")  # before a digit they belong to the number
_NO_LINE_START = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶーｰ々゛゜ﾞﾟｧｨｩｪｫｬｭｮｯ")
_QUOTE_PARTICLES = frozenset("とって、，,はがをにのもで")

# Never the end of a sentence: what they stand before follows.
_TITLES = frozenset(
    str.split(
        "dr mr mrs ms mx prof st sr jr gen col capt lt sgt rev hon gov sen rep pres messrs mme mlle vs e.g i.e cf viz "
        "al fig figs eq sec ch vol vols pp ed eds approx est dept univ assn bros mt ft ave blvd rd ph.d m.d b.a m.a"
    )
)
# The end of one only where the next word is one that starts sentences.
_ABBREVIATIONS = frozenset(
    str.split(
        "etc inc ltd co corp llc plc jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri "
        "a.m p.m min max tel ext hr hrs sq oz lb lbs ie eg"
    )
)
_STARTERS = frozenset(
    str.split(
        "the a an it its he she we they you i in on at this that these those there here but and so if when while "
        "what who where why how my our your his her their after before then now as for with from no not yes most"
    )
)
_CLAUSE_STARTERS = frozenset(
    str.split("and but or nor so yet because although though while when whenever where which who whose if unless until")
)
_INVISIBLE_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
_WORD_BEFORE_DOT = re.compile(r"[^\W\d_](?:[^\W\d_]|\.(?=[^\W\d_])|['’](?=\w))*\Z")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*\Z")
_WORD = re.compile(r"[^\W\d_]+")
# A character asked to be drawn as a picture (keycaps, the information sign) is not there to be read.
_PICTURED = re.compile("[^\ufe0f\u20e3]\ufe0f?\u20e3|[^\ufe0f]\ufe0f", re.DOTALL)
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Sentence:
    """A piece of text, not empty and with something in it to speak, and the language to read it in."""

    text: str
    language: str


@lru_cache(maxsize=16384)
def _script(char: str) -> str:
    if char.isascii():
        return _LATIN if char.isalpha() else _DIGIT if char.isdigit() else _NEUTRAL
    if char in _INVISIBLE_LETTERS:
        return _NEUTRAL
    if char in "〇〻":
        return _HAN
    if char in "々ーｰゝゞヽヾ":
        return _KANA
    category = unicodedata.category(char)
    if category[0] == "N":
        return _DIGIT
    if category[0] != "L" or category == "Lm":
        return _NEUTRAL
    name = unicodedata.name(unicodedata.normalize("NFKC", char)[0], "")
    for prefix, script in (
        ("LATIN ", _LATIN),
        ("CJK ", _HAN),
        ("BOPOMOFO ", _HAN),
        ("HIRAGANA ", _KANA),
        ("KATAKANA ", _KANA),
        ("HALFWIDTH KATAKANA ", _KANA),
        ("HANGUL ", _HANGUL),
        ("DIGIT ", _DIGIT),
    ):
        if name.startswith(prefix):
            return script
    return _OTHER


def has_speech(text: str) -> bool:
    """Whether there is at least one letter, digit or ideograph: punctuation and pictures alone say nothing."""
    return any(
        _script(char) and unicodedata.category(char) != "Lm" for char in _PICTURED.sub(" ", text) if not char.isspace()
    )


def speaking_seconds(text: str) -> float:
    """About how long a text takes to speak at its usual speed; rather too long than too short."""
    wide = sum(char >= "\u1100" for char in text)  # Hangul, kana, Han, and signs as wide as they
    return 0.5 + wide / WIDE_PER_SECOND + (len(text) - wide) / NARROW_PER_SECOND


@lru_cache(maxsize=8192)
def _han_evidence(char: str) -> str:
    """`zh` for a character that Japanese does not have, `ja` for one that Chinese does not have, else ''."""

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


def _han_language(sentence: str, japanese_near: bool) -> str:
    """The language of the Han characters of one sentence. japanese_near: there are kana in the sentences around it."""
    kana = sum(1 for char in sentence if _script(char) == _KANA)
    if kana:
        return "ja"
    evidence = [_han_evidence(char) for char in sentence if _script(char) == _HAN]
    chinese, japanese = evidence.count("zh"), evidence.count("ja")
    if chinese != japanese:
        return "zh" if chinese > japanese else "ja"
    if _CHINESE_WORDS.search(sentence):
        return "zh"
    return "ja" if japanese_near else "zh"


def detect_language(text: str) -> str:
    """The language of most of `text`: `en`, `zh`, `ja`, `ko` or `und`. A text without letters is `en`."""
    counts = dict.fromkeys((_LATIN, _HAN, _KANA, _HANGUL, _OTHER), 0)
    for char in text:
        script = _script(char)
        if script in counts and script:
            counts[script] += 1
    wide = counts[_HAN] + counts[_KANA]
    weights = {
        "en": counts[_LATIN],
        "cjk": 3 * wide,
        "ko": 3 * counts[_HANGUL],
        "und": counts[_OTHER],
    }
    best = max(weights, key=lambda language: weights[language])
    if best != "cjk":
        return best
    if counts[_KANA] == 0:
        return _han_language(text, japanese_near=False)
    # A quoted kana or two do not make a long Chinese text Japanese; in Japanese a third or more are kana.
    if counts[_KANA] * 12 < counts[_HAN]:
        chinese = sum(1 for char in text if _script(char) == _HAN and _han_evidence(char) == "zh")
        return "zh" if chinese or _CHINESE_WORDS.search(text) else "ja"
    return "ja"


# --- sentences -------------------------------------------------------------------------------------------------------


def _dot_ends(text: str, dot: int, after: int, piece_start: int) -> bool:
    """Whether the full stop at `dot` ends a sentence; `after` is where the text goes on behind closing marks."""
    if after < len(text) and not text[after].isspace():
        return _script(text[after]) in (_HAN, _KANA, _HANGUL) and after > dot
    following = text[after : after + 24].lstrip()
    before = text[max(piece_start, dot - 24) : dot]
    if not following:
        return True
    if following[0].islower():
        return False
    if before.strip().isdigit() and len(before.strip()) <= 3 and not text[piece_start:dot].strip(" \t0123456789"):
        return False  # "1. First": a list's number stays with its line
    match = _WORD_BEFORE_DOT.search(before)
    if not match:
        return True
    word = match.group().casefold()
    next_word = _WORD.match(following)
    if word in _TITLES:
        return False
    if word == "no":
        return not following[0].isdigit()
    if word in _ABBREVIATIONS or (_INITIALS.match(word) and word != "i"):
        if "." not in word and len(word) == 1:
            # "J. Smith", but "plan B. The next": an initial begins a name.
            return bool(next_word and next_word.group().casefold() in _STARTERS)
        return not next_word or next_word.group().casefold() in _STARTERS
    return True


def _weight(text: str) -> int:
    return sum(3 if _script(char) in (_HAN, _KANA, _HANGUL) else 1 for char in text)


def _sentences(text: str) -> Iterator[str]:
    """Cuts at the ends of sentences; every character but white space comes out again, in order."""
    start = position = 0
    length = len(text)
    while position < length:
        char = text[position]
        end = -1
        if char in "\n\r\u2028\u2029\u0085\v\f":
            following = text[position + 1 : position + 40].lstrip(" \t")
            previous = text[position - 1] if position else ""
            # A wrapped line: the sentence goes on in the next one.
            wrapped = following[:1].islower() and bool(previous) and (previous.islower() or previous in ",-–—")
            if not wrapped:
                end = position + 1
            position += 1
        elif char in _HARD_ENDS or char in _SOFT_ENDS or char == ".":
            stop = position + 1
            while stop < length and (text[stop] in _HARD_ENDS or text[stop] in _SOFT_ENDS or text[stop] == "."):
                stop += 1
            run = text[position:stop]
            after = stop
            while after < length and text[after] in _CLOSERS:
                after += 1
            at_gap = after >= length or text[after].isspace()
            next_script = _script(text[after]) if after < length else _NEUTRAL
            wide_next = next_script in (_HAN, _KANA, _HANGUL)
            if any(mark in _HARD_ENDS and not mark.isascii() for mark in run):
                # A quotation that its sentence goes on from is no end of it.
                if not (after > stop and after < length and text[after] in _QUOTE_PARTICLES):
                    end = after
            elif "!" in run or "?" in run:
                goes_on = after > stop and text[after : after + 8].lstrip()[:1].islower()  # "Really?" he said.
                if (at_gap and not goes_on) or wide_next or (after < length and text[after] in _OPENERS):
                    end = after
            elif run == ".":
                if _dot_ends(text, position, after, start):
                    end = after
            elif set(run) == {"."}:
                following = text[after : after + 8].lstrip()
                if (at_gap or wide_next) and not following[:1].islower():
                    end = after
            elif (
                (at_gap or any(not mark.isascii() for mark in run))
                and _weight(text[max(start, position - SOFT_END_WEIGHT) : position]) >= SOFT_END_WEIGHT
                and _weight(text[after : after + SOFT_END_WEIGHT]) >= SOFT_END_WEIGHT // 2
            ):
                end = after
            position = after
        else:
            position += 1
        if end >= 0:
            yield text[start:end]
            start = position = end
    if start < length:
        yield text[start:]


# --- over-long pieces ------------------------------------------------------------------------------------------------


def _is_extender(char: str) -> bool:
    """Whether it is drawn with the character before it."""
    return (
        unicodedata.combining(char) != 0
        or unicodedata.category(char) in ("Mn", "Mc", "Me")
        or char in "\u200c\u200d\ufe0e\ufe0f\u20e3"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
        or char in _NO_LINE_START
    )


def _may_cut(text: str, index: int) -> bool:
    """Whether a cut before text[index] leaves whole characters on both sides."""
    before, after = text[index - 1], text[index]
    if before == "\u200d" or _is_extender(after):
        return False
    if "\U0001f1e6" <= after <= "\U0001f1ff" and "\U0001f1e6" <= before <= "\U0001f1ff":
        first = index - 1
        while first > 0 and "\U0001f1e6" <= text[first - 1] <= "\U0001f1ff":
            first -= 1
        return (index - first) % 2 == 0  # flags are pairs
    return not ("\u1100" <= before <= "\u11ff" and "\u1100" <= after <= "\u11ff")  # Hangul in parts


def _clause_ends(text: str, index: int) -> bool:
    """Whether a comma or its like stands before text[index], and belongs to nothing behind it."""
    return (
        text[index - 1] in _COMMAS
        and text[index] not in _CLOSERS
        and text[index] not in _COMMAS
        and not (text[index].isdigit() and text[index - 1] in ",，:：·")
    )


def _cut_point(text: str, start: int, limit: int) -> int:
    """Where to end a piece that starts at `start` and should not be longer than `limit` characters."""
    stop = start + limit
    least = start + max(1, limit // 4)
    for index in range(stop, least, -1):
        if _clause_ends(text, index):
            return index
    for index in range(stop, least, -1):
        if text[index].isspace() or text[index - 1].isspace():
            return index
    for index in range(stop, least, -1):
        # Between scripts, or at least not inside a word or a number.
        if _may_cut(text, index) and _script(text[index]) != _script(text[index - 1]) and text[index] not in _CLOSERS:
            return index
    for index in range(stop, start, -1):
        if _may_cut(text, index):
            return index
    index = stop + 1
    while index < len(text) and not _may_cut(text, index):
        index += 1
    return index


def _early_cut(text: str, limit: int) -> int:
    """Where to cut a sentence whose beginning is wanted soon: the end of a clause, else 0 (between other words a voice
    does not pause). limit: for the piece in front, in characters; twice as much where no clause ends earlier.
    """
    least = limit // 4
    if len(text) <= limit + least:
        return 0
    for index in range(limit, least, -1):
        if _clause_ends(text, index):
            return index
    for index in range(limit, least, -1):
        word = _WORD.match(text, index)
        if text[index - 1].isspace() and word and word.group() in _CLAUSE_STARTERS:
            return index
    for index in range(limit + 1, min(2 * limit, len(text) - least)):
        if _clause_ends(text, index):
            return index
    return 0


def _fit(text: str, limit: int) -> Iterator[str]:
    start = 0
    while len(text) - start > limit:
        rest = len(text) - start
        # What is a little too long is cut near its middle rather than into a whole and a crumb.
        middle = max(limit * 3 // 4, min(limit, (rest + 1) // 2 + limit // 8))
        end = _cut_point(text, start, min(limit if rest > 2 * limit else middle, rest - 1))
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


# --- runs of one language --------------------------------------------------------------------------------------------


def _runs(sentence: str, languages: dict[str, str]) -> list[tuple[str, str]]:
    """Cuts a sentence where its language changes. Digits and marks go with a neighbour; leading ones with the first.

    languages: from script to language.
    """
    scripts = [_script(char) for char in sentence]
    if any(script in languages and script != _OTHER for script in scripts):
        # One Greek or Cyrillic letter in other text is a symbol ("5 μm"), not a word.
        padded = [_NEUTRAL, *scripts, _NEUTRAL]
        for index, script in enumerate(scripts):
            if script == _OTHER and _OTHER not in (padded[index], padded[index + 2]):
                scripts[index] = _NEUTRAL
    pieces: list[tuple[str, str]] = []
    start, current = 0, ""
    for index, script in enumerate(scripts):
        language = languages.get(script, "")
        if not language or language == current:
            continue
        if not current:
            current = language
            continue
        cut = index
        # Opening brackets, signs and a number written onto the next word go with it.
        while cut > start + 1 and (
            sentence[cut - 1] in _OPENERS
            or (sentence[cut - 1] in _SIGNS and scripts[cut] == _DIGIT)
            or (scripts[cut - 1] == _DIGIT and _digits_join_right(sentence, scripts, cut))
        ):
            cut -= 1
        pieces.append((sentence[start:cut], current))
        start, current = cut, language
    pieces.append((sentence[start:], current))
    return pieces


def _digits_join_right(sentence: str, scripts: list[str], cut: int) -> bool:
    first = cut - 1
    while first > 0 and scripts[first - 1] == _DIGIT:
        first -= 1
    glued_left = first > 0 and bool(scripts[first - 1])
    glued_right = cut < len(sentence) and bool(scripts[cut])
    return glued_right and not glued_left


def _keeps_its_latin(sentence: str, base_scripts: frozenset[str]) -> bool:
    """Whether the Latin words of a Chinese or Japanese sentence are few enough to be read within it."""
    letters = wide = words = 0
    in_word = False
    for char in sentence:
        script = _script(char)
        if script == _LATIN:
            letters += 1
            words += not in_word
            in_word = True
            if words > EMBEDDED_WORDS:
                return False
            continue
        in_word = False
        if script in base_scripts:
            wide += 1
            words = 0
    return letters <= EMBEDDED_LETTERS_PER_CHARACTER * wide


def _script_languages(sentence: str, language: str, japanese_near: bool) -> dict[str, str]:
    """From script to language for one sentence."""
    languages = {_LATIN: "en", _HANGUL: "ko", _KANA: "ja", _OTHER: "und"}
    if language in ("zh", "yue", "ja", "ko"):
        languages[_HAN] = language
    else:
        languages[_HAN] = _han_language(sentence, japanese_near)
    base = languages[_HAN]
    if base in ("zh", "yue", "ja") and language != "en":
        scripts = frozenset((_HAN, _KANA) if base == "ja" else (_HAN,))
        if _keeps_its_latin(sentence, scripts):
            languages[_LATIN] = base
    return languages


def _main_language(sentence: str, japanese_near: bool) -> str:
    """As detect_language, but '' for a sentence without letters, and with a look at its neighbours."""
    if all(_script(char) in (_NEUTRAL, _DIGIT) for char in sentence):
        return ""
    name = detect_language(sentence)
    return _han_language(sentence, japanese_near) if name in ("zh", "ja") else name


def split(
    text: str,
    language: str = "auto",
    max_chars: int | None = None,
    early: bool = False,
    mixed: bool = True,
) -> list[Sentence]:
    """Cuts a text into sentences, each of one language. Nothing that can be spoken is lost; the order is the text's.

    language: `auto`, or a code that all of the text is in: other scripts are then still read in their own language
    (kana in a text said to be English), and a few Latin words stay inside a Chinese or Japanese sentence.
    max_chars: the longest piece, in characters (default: about 15 s of speech, by language). early: for an early first
    sound a long first sentence is cut after its first clauses (about 4 s). mixed False leaves a sentence whole, under
    the language of most of it, for engines that read several scripts at once. A text with nothing to speak gives an
    empty list.
    """
    if max_chars is not None and max_chars < 1:
        raise ValueError("max_chars is at least 1")
    sentences = list(_sentences(text))
    kana = [any(_script(char) == _KANA for char in sentence) for sentence in sentences]
    found: list[tuple[str, str]] = []
    for index, sentence in enumerate(sentences):
        near = any(kana[max(0, index - 2) : index + 3])
        if not mixed:
            found.append((sentence, language if language != "auto" else _main_language(sentence, near)))
        else:
            found.extend(_runs(sentence, _script_languages(sentence, language, near)))
    # A number by itself is read in the language around it.
    fallback = language if language != "auto" else next((name for _, name in found if name), "en")
    pieces: list[Sentence] = []
    pending = ""  # marks in front of the first words
    for raw, name in found:
        fallback = name or fallback
        if not has_speech(raw):
            if pieces:
                last = pieces[-1]
                pieces[-1] = Sentence(_SPACES.sub(" ", last.text + raw).rstrip(), last.language)
            else:
                pending += raw
            continue
        cleaned = _SPACES.sub(" ", pending + raw).strip()
        pending = ""
        pieces.append(Sentence(cleaned, fallback))
    fitted: list[Sentence] = []
    for piece in pieces:
        limit = max_chars or DEFAULT_MAX_CHARS.get(piece.language, DEFAULT_MAX_CHARS["en"])
        soon = min(limit, EARLY_MAX_CHARS.get(piece.language, EARLY_MAX_CHARS["en"]))
        cut = _early_cut(piece.text, soon) if early and not fitted else 0
        for part in (*_fit(piece.text[:cut], limit), *_fit(piece.text[cut:], limit)):
            part = part.strip()
            if has_speech(part):
                fitted.append(Sentence(part, piece.language))
    return fitted
