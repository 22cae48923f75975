"""How texts should be read: the written-out references of tests/text/readings, and what a reading is compared by.

A line is a kind, a text (`\\n` and `\\r` stand for line breaks) and the words, with ` | ` between what is right as
well (also `{a|b}` within the words), ` / ` where a sentence ends, and `(0.5)` for a pause of so many
seconds. English is compared by its words, Chinese by its characters (of the kind `readings` by its pinyin), Japanese by
its pronunciation as the analysis has it (where ハ and ワ are one, since a reference in kana has no particles), the kind
`language` by what the text is taken for, where its language is not said.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voiceproject.errors import PublicError
from voices.engines.builtin.languages import chinese, english, japanese
from voices.text.reading import read

FOLDER = Path(__file__).parent / "readings"
LANGUAGES = ("en", "zh", "ja")
# Kinds in which it counts where sentences end.
CUT = ("abbreviations", "lines", "markup", "quotations", "uncut")


@dataclass(frozen=True)
class Reference:
    language: str
    kind: str
    text: str
    words: tuple[str, ...]


def references(language: str) -> list[Reference]:
    rows = []
    for line in (FOLDER / f"{language}.tsv").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            kind, text, words = line.split("\t")
            text = text.replace("\\n", "\n").replace("\\r", "\r")
            rows.append(Reference(language, kind, text, ways(words)))
    return rows


def later_references(name: str = "later.tsv") -> list[Reference]:
    """Texts that were written after the code, to see how it reads what it was not made for."""
    rows = []
    for line in (FOLDER / name).read_text("utf-8").splitlines():
        if not line.startswith("#"):
            language, kind, text, words = line.split("\t")
            rows.append(Reference(language, kind, text.replace("\\n", "\n"), ways(words)))
    return rows


def ways(words: str) -> tuple[str, ...]:
    """Every way in which words with ` | ` between them, or `{a|b}` within them, can be said."""
    found = []
    for one in words.split(" | "):
        parts = re.split(r"\{([^}]*)\}", one)
        found += ["".join(way) for way in itertools.product(*(part.split("|") for part in parts))]
    return tuple(found)


def fold_english(text: str) -> str:
    text = re.sub(r"(?<=\b[a-z])\.(?=[a-z]\b)", " ", text.lower().replace("-", " "))
    text = re.sub(r"\boh\b", "zero", re.sub(r"[^\w\s'’]", " ", text)).replace("’", "'")
    return " ".join(re.sub(r"\b(hundred|thousand|million) and\b", r"\1", text).split())


def fold_chinese(text: str) -> str:
    return re.sub(r"[\W_]", "", text.lower().replace("〇", "零"))


def fold_japanese(text: str) -> str:
    said = "".join(word.pron for word in japanese._analyzer().run_frontend(re.sub(r"\s+", " ", text)))
    said = (
        re.sub(r"[\W_]", "", said)
        .replace("エイ", "エー")
        .replace("ケイ", "ケー")
        .replace("ジェイ", "ジェー")
        .replace("ハ", "ワ")
    )
    return re.sub("(?<=[ニゴ])ー", "", said)


def pinyin(text: str) -> str:
    han = re.sub("[^一-龥〇]", "", text)
    return " ".join(syllable for word in chinese.syllables(han) for syllable in word)


def polyphones() -> list[tuple[str, list[str], list[str]]]:
    """Chinese texts, how characters of several readings are read in them, and how they should be (`行hang2`)."""
    rows = []
    for line in (FOLDER / "polyphones.tsv").read_text("utf-8").splitlines()[1:]:
        text, wanted = line.split("\t")
        said = [
            char + syllable
            for part in re.findall("[一-龥]+", text)
            for char, syllable in zip(part, (one for word in chinese.syllables(part) for one in word), strict=True)
        ]
        found, position = [], 0
        for want in wanted.split():
            position = next(place for place in range(position, len(said)) if said[place][0] == want[0])
            found.append(said[position])
            position += 1
        rows.append((text, found, wanted.split()))
    return rows


def heteronyms() -> list[tuple[str, str, str]]:
    """English texts, their sounds, and those of the same with other words for what could be said in two ways."""
    rows = []
    for line in (FOLDER / "heteronyms.tsv").read_text("utf-8").splitlines()[1:]:
        text, respelled = line.split("\t")
        found, wanted = (re.sub("[ˈˌ]", "", "".join(english.phonemes()(one))) for one in (text, respelled))
        rows.append((text, found, wanted))
    return rows


FOLDS: dict[str, Callable[[str], str]] = {"en": fold_english, "zh": fold_chinese, "ja": fold_japanese}


def said(reference: Reference) -> list[str]:
    """What is spoken of a reference's text, sentence by sentence, with pauses."""
    parts = [""]
    for sentence in read(reference.text, reference.language).sentences:
        if sentence.words:
            parts[-1] += f" {sentence.words}"
            if sentence.end in ("sentence", "paragraph"):
                parts.append("")
        if sentence.pause_seconds:
            parts += [f"({sentence.pause_seconds})", ""]
    return [part.strip() for part in parts if part.strip()]


def is_right(reference: Reference) -> bool:
    """Whether the text is read as its reference says."""
    try:
        if reference.kind == "language":
            return {sentence.language for sentence in read(reference.text).sentences} == set(reference.words)
        parts = said(reference)
    except PublicError:
        return False
    return any(matches(reference, parts, words) for words in reference.words)


def matches(reference: Reference, parts: list[str], words: str) -> bool:
    fold = pinyin if reference.kind == "readings" and reference.language == "zh" else FOLDS[reference.language]
    if reference.kind == "readings" and reference.language == "zh":
        return fold("".join(parts)) == words
    if reference.kind == "ssml":
        wanted = [part.strip() for part in re.split(r"(\(\d\.\d+\))", words) if part.strip()]
        merged: list[str] = []
        for part in parts:
            if merged and not part.startswith("(") and not merged[-1].startswith("("):
                merged[-1] += f" {part}"
            else:
                merged.append(part)
        return [_part(part, fold) for part in merged] == [_part(part.replace(" / ", " "), fold) for part in wanted]
    if reference.kind in CUT:
        return [fold(part) for part in parts] == [fold(part) for part in words.split(" / ")]
    return fold(" ".join(parts)) == fold(words.replace(" / ", " " if reference.language == "en" else "。"))


def _part(part: str, fold: Callable[[str], str]) -> str:
    return f"({float(part[1:-1])})" if part.startswith("(") else fold(part)
