"""Cuts a text into the sentences that an engine speaks, each in one language. Pure Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from voices.text.languages import (
    DIGIT,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    NEUTRAL,
    OTHER,
    detect_language,
    han_language,
    has_speech,
    script_of,
)
from voices.text.pieces import CLOSERS, OPENERS, WORD, early_cut, fit

# A quarter of a minute of speech, about: a Han character or a kana says as much as three or four letters.
DEFAULT_MAX_CHARS = {"en": 220, "zh": 45, "yue": 45, "ja": 55, "ko": 80, "und": 200}
# Four seconds, about: what somebody who listens already should wait for at first.
EARLY_MAX_CHARS = {"en": 60, "zh": 16, "yue": 16, "ja": 20, "ko": 28, "und": 60}

EMBEDDED_WORDS = 3  # so many Latin words in a row stay inside a Chinese or Japanese sentence
EMBEDDED_LETTERS_PER_CHARACTER = 1.5  # and no more Latin letters than this for each Han character or kana
SOFT_END_WEIGHT = 24  # `;` `:` `…` end a piece only after this much (Latin letter 1, wide character 3)

_HARD_ENDS = frozenset("。｡！？．!?‼⁇⁈⁉؟।")
_SOFT_ENDS = frozenset("；：;:…⋯")
_SIGNS = frozenset("-+−±~〜№")  # before a digit they belong to the number
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
_WORD_BEFORE_DOT = re.compile(r"[^\W\d_](?:[^\W\d_]|\.(?=[^\W\d_])|['’](?=\w))*\Z")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*\Z")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Sentence:
    """A piece of text, not empty and with something in it to speak, and the language to read it in."""

    text: str
    language: str


def _dot_ends(text: str, dot: int, after: int, piece_start: int) -> bool:
    """Whether the full stop at `dot` ends a sentence; `after` is where the text goes on behind closing marks."""
    if after < len(text) and not text[after].isspace():
        return script_of(text[after]) in (HAN, KANA, HANGUL) and after > dot
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
    next_word = WORD.match(following)
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
    return sum(3 if script_of(char) in (HAN, KANA, HANGUL) else 1 for char in text)


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
            while after < length and text[after] in CLOSERS:
                after += 1
            at_gap = after >= length or text[after].isspace()
            next_script = script_of(text[after]) if after < length else NEUTRAL
            wide_next = next_script in (HAN, KANA, HANGUL)
            if any(mark in _HARD_ENDS and not mark.isascii() for mark in run):
                # A quotation that its sentence goes on from is no end of it.
                if not (after > stop and after < length and text[after] in _QUOTE_PARTICLES):
                    end = after
            elif "!" in run or "?" in run:
                goes_on = after > stop and text[after : after + 8].lstrip()[:1].islower()  # "Really?" he said.
                if (at_gap and not goes_on) or wide_next or (after < length and text[after] in OPENERS):
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


def finished(text: str) -> int:
    """How much of a text that still grows is whole sentences, in characters: nothing that follows can go on with them.

    `Dr. ` may, and so may `example.` without a space behind it.
    """
    last = ""
    for last in _sentences(text + "X"):  # noqa: B007 - only the last one counts
        pass
    return max(0, len(text) + 1 - len(last))


# --- runs of one language --------------------------------------------------------------------------------------------


def _runs(sentence: str, languages: dict[str, str]) -> list[tuple[str, str]]:
    """Cuts a sentence where its language changes. Digits and marks go with a neighbour; leading ones with the first.

    languages: from script to language.
    """
    scripts = [script_of(char) for char in sentence]
    if any(script in languages and script != OTHER for script in scripts):
        # One Greek or Cyrillic letter in other text is a symbol ("5 μm"), not a word.
        padded = [NEUTRAL, *scripts, NEUTRAL]
        for index, script in enumerate(scripts):
            if script == OTHER and OTHER not in (padded[index], padded[index + 2]):
                scripts[index] = NEUTRAL
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
            sentence[cut - 1] in OPENERS
            or (sentence[cut - 1] in _SIGNS and scripts[cut] == DIGIT)
            or (scripts[cut - 1] == DIGIT and _digits_join_right(sentence, scripts, cut))
        ):
            cut -= 1
        pieces.append((sentence[start:cut], current))
        start, current = cut, language
    pieces.append((sentence[start:], current))
    return pieces


def _digits_join_right(sentence: str, scripts: list[str], cut: int) -> bool:
    first = cut - 1
    while first > 0 and scripts[first - 1] == DIGIT:
        first -= 1
    glued_left = first > 0 and bool(scripts[first - 1])
    glued_right = cut < len(sentence) and bool(scripts[cut])
    return glued_right and not glued_left


def _keeps_its_latin(sentence: str, base_scripts: frozenset[str]) -> bool:
    """Whether the Latin words of a Chinese or Japanese sentence are few enough to be read within it."""
    letters = wide = words = 0
    in_word = False
    for char in sentence:
        script = script_of(char)
        if script == LATIN:
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
    languages = {LATIN: "en", HANGUL: "ko", KANA: "ja", OTHER: "und"}
    if language in ("zh", "yue", "ja", "ko"):
        languages[HAN] = language
    else:
        languages[HAN] = han_language(sentence, japanese_near)
    base = languages[HAN]
    if base in ("zh", "yue", "ja") and language != "en":
        scripts = frozenset((HAN, KANA) if base == "ja" else (HAN,))
        if _keeps_its_latin(sentence, scripts):
            languages[LATIN] = base
    return languages


def _main_language(sentence: str, japanese_near: bool) -> str:
    """As detect_language, but '' for a sentence without letters, and with a look at its neighbours."""
    if all(script_of(char) in (NEUTRAL, DIGIT) for char in sentence):
        return ""
    name = detect_language(sentence)
    return han_language(sentence, japanese_near) if name in ("zh", "ja") else name


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
    kana = [any(script_of(char) == KANA for char in sentence) for sentence in sentences]
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
        cut = early_cut(piece.text, soon) if early and not fitted else 0
        for part in (*fit(piece.text[:cut], limit), *fit(piece.text[cut:], limit)):
            part = part.strip()
            if has_speech(part):
                fitted.append(Sentence(part, piece.language))
    return fitted
