"""Cuts a text into the sentences that an engine speaks, each in one language. Pure Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from voices.text.characters import joined_lines
from voices.text.languages import (
    DIGIT,
    HAN,
    HANGUL,
    KANA,
    LATIN,
    NEUTRAL,
    OTHER,
    han_language,
    has_speech,
    script_of,
)
from voices.text.pieces import CLOSERS, OPENERS, WORD, early_cut, fit
from voices.text.spans import ATOM, MAX_WEIGHT, QUOTES, uncut
from voices.text.words.terms import words

# A quarter of a minute of speech, about: a Han character or a kana says as much as three or four letters.
DEFAULT_MAX_CHARS = {"en": 220, "zh": 45, "yue": 45, "ja": 55, "ko": 80, "und": 200}
# Four seconds, about: what somebody who listens already should wait for at first.
EARLY_MAX_CHARS = {"en": 60, "zh": 16, "yue": 16, "ja": 20, "ko": 28, "und": 60}

EMBEDDED_WORDS = 3  # so many Latin words in a row stay inside a Chinese or Japanese sentence
EMBEDDED_LETTERS = 12  # in all, where there are two Han characters or kana
EMBEDDED_LETTERS_PER_CHARACTER = 1.5  # else no more than this for each of them
SOFT_END_WEIGHT = 24  # `;` `:` `…` end a piece only after this much (Latin letter 1, wide character 3)

_HARD_ENDS = frozenset("。｡！？．!?‼⁇⁈⁉؟।")
_SOFT_ENDS = frozenset("；：;:…⋯")
WIDE = (HAN, KANA, HANGUL)
_WIDE_ENDS = frozenset(mark for mark in _HARD_ENDS if not mark.isascii())
_MARKS = re.compile(rf"\n|[.{''.join(_HARD_ENDS | _SOFT_ENDS)}]+")
# What goes with the word behind it, read backwards: opening marks, signs of numbers, numbers that are written onto it.
_LEADS = dict.fromkeys(OPENERS, "(") | dict.fromkeys("-+−±~〜№", "-")
_LEAD = re.compile(r"(?:\(|(?<=0)-|(?<=a)0+(?![a0]))*")

# The end of one only where the next word is one that starts sentences.
_ABBREVIATIONS = frozenset(words("last")) | frozenset(words("may end"))
# Never the end of a sentence: what they stand before follows.
_TITLES = frozenset(map(str.lower, words("title") | words("abbreviation") | words("goes on"))) - _ABBREVIATIONS - {"no"}
_STARTERS = frozenset(words("starter"))
# Else they are words, which may end a sentence.
_BEFORE_NUMBERS = frozenset({"no", "sat", "sun", *words("numbering word")})
_WORD_BEFORE_DOT = re.compile(r"[^\W\d_](?:[^\W\d_]|\.(?=[^\W\d_])|['’](?=\w))*\Z")
_NUMBERED = re.compile(r"(?:[A-Z]{1,4}-?)?\d")  # "No. 5", "no. KX-250"
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*\Z")
_INITIALS_ALONE = re.compile(r"(?<![A-Za-z])(?:[A-Z]{1,5}|[a-z])(?![A-Za-z])")
_LATIN_RUN = re.compile(
    r"(?P<unit>(?<=\d) ?[A-Za-zμ]{1,4}(?![A-Za-z])|(?<![A-Za-z])[A-Za-z]{1,4}[.$]? ?(?=\d))"
    r"|[A-Za-zÀ-ÖØ-öø-ɏ]+|(?P<wide>[\u1100-\U0003ffff])"
)
# A line break that ends a sentence: the line after it is blank, or an item of a list.
_LINE_ENDS = re.compile(r"\n[^\S\n]*(?:\n|[-*+•◦▪‣][^\S\n]+\S|・|\(?\d{1,3}[.)、][^\S\n]+\S)")
_BREAKS = re.compile(r"\r\n?|[\u2028\u2029\u0085\v\f]")


@dataclass(frozen=True)
class Sentence:
    """A piece of text, not empty and with something in it to speak, and the language to read it in.

    ends_paragraph: a blank line follows, or an item of a list.
    """

    text: str
    language: str
    ends_paragraph: bool = False


def _dot_ends(text: str, dot: int, after: int, piece_start: int) -> bool:
    """Whether the full stop at `dot` ends a sentence; `after` is where the text goes on behind closing marks."""
    before = text[max(piece_start, dot - 24) : dot]
    match = _WORD_BEFORE_DOT.search(before)
    word = match[0].casefold() if match else ""
    if after < len(text) and not text[after].isspace():
        # "U.S.の", "Mr.スミス"
        return not ("." in word or word in _TITLES | _ABBREVIATIONS) and script_of(text[after]) in WIDE
    following = text[after : after + 24].lstrip()
    if not following:
        return True
    if following[0].islower() or following[0] == "&" or word in _TITLES:
        return False
    if before.strip().isdigit() and len(before.strip()) <= 3 and not text[piece_start:dot].strip(" \t0123456789"):
        return False  # "1. First": a list's number stays with its line
    if word in _BEFORE_NUMBERS:
        return not _NUMBERED.match(following)
    if word not in _ABBREVIATIONS and (word == "i" or not _INITIALS.match(word)):
        return True
    if following.lstrip("'’$€£¥#")[:1].isdigit():
        return False  # "Oct. 3", "the U.S. 7th Fleet"
    next_word = WORD.match(following)
    if not next_word:
        return len(word) > 1
    return next_word[0].casefold() in _STARTERS  # "J. Smith", but "plan B. The next"


def _weight(text: str) -> int:
    return sum(3 if script_of(char) in WIDE else 1 for char in text)


def _sentences(text: str) -> Iterator[str]:
    """Cuts at the ends of sentences; every character but white space comes out again, in order."""
    inside = uncut(text)
    start = 0
    for mark in _MARKS.finditer(text):
        end = _end_at(mark, start)
        if end and not (end < len(text) and inside[end]):
            yield text[start:end]
            start = end
    if start < len(text):
        yield text[start:]


def _end_at(mark: re.Match[str], start: int) -> int:
    """Where the sentence from `start` on ends, if it does at this mark, else 0."""
    text, run, position, stop = mark.string, mark[0], mark.start(), mark.end()
    if run == "\n":
        return stop if _LINE_ENDS.match(text, position) else 0
    after = stop
    while text[after : after + 1] in CLOSERS:
        after += 1
    at_gap = not text[after : after + 1].strip()
    next_script = script_of(text[after]) if after < len(text) else NEUTRAL
    following = text[after : after + 8].lstrip()[:1]
    if not _WIDE_ENDS.isdisjoint(run):
        bracketed = "）" in text[stop:after] and text.rfind("（", start, stop) > start
        ends = not (bracketed and next_script) and not _goes_on_behind(text, run, stop, after, start)
    elif "!" in run or "?" in run:
        quoted = after > stop and following.islower()  # "Really?" he said.
        factorial = following in "=≠≈<>≤≥×÷は" and text[position - 1 : position].isdigit()
        ends = not (quoted or factorial) and (at_gap or next_script in WIDE or text[after : after + 1] in OPENERS)
    elif run == ".":
        ends = _dot_ends(text, position, after, start)
    elif set(run) == {"."}:
        ends = (at_gap or next_script in WIDE) and not following.islower()
    else:
        ends = (
            (at_gap or not run.isascii())
            and _weight(text[max(start, position - SOFT_END_WEIGHT) : position]) >= SOFT_END_WEIGHT
            and _weight(text[after : after + SOFT_END_WEIGHT]) >= SOFT_END_WEIGHT // 2
        )
    return after if ends else 0


def _goes_on_behind(text: str, run: str, stop: int, after: int, start: int) -> bool:
    """Whether a sentence goes on behind a quotation: `“好！”他说`, not `他说：“好。”我`. run: the marks inside."""
    if after >= len(text) or not (script_of(text[after]) or text[after] in "、，,"):
        return False
    opener = next((QUOTES[char] for char in text[stop:after] if char in QUOTES), "")
    place = text.rfind(opener, max(0, stop - MAX_WEIGHT), stop) if opener else -1
    introduced = "。" in run and place > start and text[place - 1] in "：:"
    return place >= 0 and not introduced


def finished(text: str) -> int:
    """How much of a text that still grows is whole sentences, in characters: nothing that follows can go on with them.

    `Dr. ` may, and so may `example.` without a space behind it.
    """
    last = ""
    for last in _sentences(text + "X"):  # noqa: B007 - only the last one counts
        pass
    return max(0, len(text) + 1 - len(last))


# --- runs of one language --------------------------------------------------------------------------------------------


def _runs(sentence: str, languages: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Cuts a sentence where its language changes. Digits and marks go with a neighbour; leading ones with the first.

    languages: from script to language.
    """
    scripts = [script_of(char) for char in sentence]
    for atom in ATOM.finditer(sentence):
        # Numbers and addresses are in the language around them, whatever marks they have.
        scripts[atom.start() : atom.end()] = [DIGIT] * (atom.end() - atom.start())
    if any(script == DIGIT or (script in languages and script != OTHER) for script in scripts):
        # One Greek or Cyrillic letter beside other text or numbers is a symbol ("5 μm"), not a word.
        padded = [NEUTRAL, *scripts, NEUTRAL]
        for index, script in enumerate(scripts):
            if script == OTHER and OTHER not in (padded[index], padded[index + 2]):
                scripts[index] = NEUTRAL
    backwards = "".join(
        "a" if script in languages else "0" if script == DIGIT else _LEADS.get(char, " ")
        for char, script in zip(reversed(sentence), reversed(scripts), strict=True)
    )
    start, current = 0, ""
    for index, script in enumerate(scripts):
        language = languages.get(script, current)
        if current and language != current:
            lead = _LEAD.match(backwards, len(sentence) - index)
            cut = max(start + 1, index - len(lead[0] if lead else ""))
            yield sentence[start:cut], current
            start = cut
        current = language
    yield sentence[start:], current


def _keeps_its_latin(sentence: str, base_scripts: frozenset[str], said: bool) -> bool:
    """Whether the Latin words of a Chinese or Japanese sentence are few enough to be read within it.

    said: the request says that it is in that language; then single letters are, too.
    """
    letters = words = 0
    for run in _LATIN_RUN.finditer(ATOM.sub("0", sentence)):
        if run["wide"]:
            words = words if script_of(run[0]) not in base_scripts else 0
        elif not run["unit"]:
            letters += len(run[0])
            words += 1
            if words > EMBEDDED_WORDS:
                return False
    wide = sum(script_of(char) in base_scripts for char in sentence)
    if not wide and not said:
        return False
    # Initials and single letters are read in any language.
    letters -= sum(map(len, _INITIALS_ALONE.findall(sentence)))
    return letters <= max(EMBEDDED_LETTERS_PER_CHARACTER * wide, EMBEDDED_LETTERS if wide > 1 else 0)


def _script_languages(sentence: str, language: str, japanese_near: bool) -> dict[str, str]:
    """From script to language for one sentence."""
    base = language if language in ("zh", "yue", "ja", "ko") else han_language(sentence, japanese_near)
    languages = {LATIN: "en", HANGUL: "ko", KANA: "ja", OTHER: "und", HAN: base}
    if base != "ko" and language != "en":
        scripts = frozenset((HAN, KANA) if base == "ja" else (HAN,))
        if _keeps_its_latin(sentence, scripts, said=language == base):
            languages[LATIN] = base
    return languages


def split(
    text: str,
    language: str = "auto",
    max_chars: int | None = None,
    early: bool = False,
    japanese: bool = False,
) -> list[Sentence]:
    """Cuts a text into sentences, each of one language. Nothing that can be spoken is lost; the order is the text's.

    language: `auto`, or a code that all of the text is in: other scripts are then still read in their own language
    (kana in a text said to be English), and a few Latin words stay inside a Chinese or Japanese sentence.
    max_chars: the longest piece, in characters (default: about 15 s of speech, by language). early: for an early first
    sound a long first sentence is cut after its first clauses (about 4 s). japanese: Han characters that could be
    both are Japanese, not Chinese. A text with nothing to speak gives an empty list.

    A single line break is a space, a blank line ends a paragraph.
    """
    if max_chars is not None and max_chars < 1:
        raise ValueError("max_chars is at least 1")
    sentences = list(_sentences(_BREAKS.sub("\n", text)))
    kana = [not part.isascii() and any(script_of(char) == KANA for char in part) for part in sentences]
    found: list[tuple[str, str]] = []
    for index, sentence in enumerate(sentences):
        near = japanese or any(kana[max(0, index - 2) : index + 3])
        found.extend(_runs(sentence, _script_languages(sentence, language, near)))
    # A number by itself is read in the language around it.
    fallback = language if language != "auto" else next((name for _, name in found if name), "en")
    pieces: list[Sentence] = []
    pending = ""  # marks in front of the first words
    for raw, name in found:
        fallback = name or fallback
        if has_speech(raw):
            if pieces and raw.startswith("\n"):
                pieces[-1] = replace(pieces[-1], ends_paragraph=True)
            pieces.append(Sentence(joined_lines(pending + raw), fallback, raw.endswith("\n")))
            pending = ""
        elif pieces:
            last = pieces[-1]
            pieces[-1] = Sentence(joined_lines(last.text + raw), last.language, last.ends_paragraph or "\n" in raw)
        else:
            pending += raw
    if pieces:
        pieces[-1] = replace(pieces[-1], ends_paragraph=False)
    fitted: list[Sentence] = []
    for piece in pieces:
        limit = max_chars or DEFAULT_MAX_CHARS.get(piece.language, DEFAULT_MAX_CHARS["en"])
        soon = min(limit, EARLY_MAX_CHARS.get(piece.language, EARLY_MAX_CHARS["en"]))
        cut = early_cut(piece.text, soon) if early and not fitted else 0
        parts = [part.strip() for part in (*fit(piece.text[:cut], limit), *fit(piece.text[cut:], limit))]
        parts = [part for part in parts if has_speech(part)]
        fitted += [Sentence(part, piece.language) for part in parts[:-1]]
        fitted += [replace(piece, text=part) for part in parts[-1:]]
    return fitted
