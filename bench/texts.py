"""How many texts are read as they should be, and how long the longest take: `python -m bench.texts`.

The references are those of tests/text/readings: 1069 texts of the kinds in which readers of texts err, written by hand
for this, with the words as a careful person says them, before the code that reads them. Candidate libraries read the
same texts where they are installed: `pip install wetext==0.1.8 cn2an==0.5.24`. They get the text without its markup
only where they take it off themselves.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.text.references import LANGUAGES, Reference, is_right, matches, references
from voiceproject.errors import PublicError
from voices.text.lexicon import Entry, Lexicon
from voices.text.reading import occurring, read

LONG = 5000
NASTY = {
    "digits": "1", "numbers": "12 34 ", "brackets": "(", "open quotes": "“", "quotes": '"a" ', "flags": "🇯🇵",
    "abbreviations": "Dr. ", "initials": "U.S. ", "tags": "<b>x</b>", "open tags": "<b ", "zero width": "a\u200b",
    "stars": "*a", "links": "[a](", "entities": "&amp;", "addresses": "http://a.b/", "fractions": "½", "lines": "a\n",
    "breaks": "\n", "Han": "我", "kana": "あ~", "superscripts": "a⁴", "capitals": "AAAA ", "versions": "v1.1.1 ",
    "compound units": "5 mg/", "sizes": "9x13-", "hexadecimals": "0xA ", "scores": "1-0 ", "scripts": "aあ我1가",
    "two scripts": "我a", "letters in kana": "あA1", "circles": "①", "square units": "㎡", "mixed numbers": "1½",
    "Roman": "Ⅳ", "titles": "Henry VIII ", "combining": "e\u0301", "families": "👨‍👩‍👧‍👦", "nested tags": "<b><i>",
    "phonemes": "<phoneme ph='a'>b</phoneme>", "pauses": "a<break time='1ms'/>", "quoted": "“好！”他",
    "closing quotes": "！”", "durations": "2:03:59 ", "fractions of seconds": "1:23.45 ", "matches": "日本2-1",
    "items": "1. a\n", "headings": "# a\n", "tables": "|a|b|\n", "bare numbers": "No. ", "long Chinese": "的是在不了有",
    "long kana": "はがをにのも", "mail": "a@b.co ", "paths": "C:\\a\\", "money": "$1 ", "dates": "Oct 3 ",
    "spoken as": "<say-as interpret-as='digits'>12</say-as> ", "substituted": "<sub alias='b'>a</sub> ",
    "emphases": "<emphasis>a</emphasis> ", "rates": "<prosody rate='80%'>a</prosody> ", "voices": "<voice>a",
    "speeches": "<p><s>a</s></p>", "sums": "2x-5=", "minus signs": "5 - 3 ", "unclosed sums": "a-",
    "subtitles": "1\n00:01:02,345 --> 00:01:03,456\nHi.\n\n", "times run": "3′25″4 ", "degrees": "39°54′20″ ",
    "rulers": "King Zog I ", "ratings": "8/10 ", "pressures": "BP 120/80 ", "sizes apart": "24\" W x ",
    "halves": "w/ ", "long words": "supercalifragilistic", "long addresses": "http://a.b/" + "c" * 4000,
    "queries": "http://a.b/?" + "c=d&" * 1000, "long mail": "a" * 4000 + "@b.co",
    "names of hosts": "a." * 2000 + "com", "dots": ".", "commas": "1,", "dashes": "—",
    "lines of items": "- a\n\n1. b\n", "wide digits": "１", "letters of sums": "𝐀", "Braille": "⠿", "Arabic": "س",
    "Devanagari": "न", "hieroglyphs": "𓀀", "rare Han": "𠀀", "boxes": "─", "narrow kana": "ｶﾞ", "jamo": "ᄀ",
    "variants": "a\ufe0f", "private": "\ue000", "tags of flags": "🏴\U000e0067", "all scripts": "a我あ가س",
    "bidi": "a\u202e", "controls": "a\x07", "directions": "[sighs] ", "voiced kana": "は゛",
    "addresses in Japan": "2-21-1 ", "floors": "B1F ", "batting": "打率.312", "years of a season": "2024-25赛季",
    "accounts": "GB29 NWBK 6016 ", "cards": "4111 ", "parts of standards": "ISO 1-1", "keys": "a * ",
    "factorials": "5! ", "frosts": "气温-3~-", "hours and minutes": "1h1m", "dates in rows": "2025-1-1-",
    "discounts": "满1-", "shouting": "GO A ", "days without a year": "02/28 ", "doses": "1 mg/1 mL/", "hyphens": "A-1 ",
    "hours of doses": "q12h ", "rows of dates": "2023.05.01-", "goals": "Kane 88' ", "scores of ten": "got 7/10 ",
    "months": "05/2024–", "years in Chinese": "701年—", "brackets in words": "a(b",
    "days to": "Mon 1/2-", "banks": "AB12 ", "codes": "GB/T 19001-2016", "per": "克/升",
    "prose": "The quick brown fox jumps over the lazy dog. ",
}  # fmt: skip


ENTRIES = 10_000


def nasty_lexicon(unit: str) -> Lexicon:
    """As many entries as a lexicon may have, of which many match at every place of a text that repeats `unit`."""
    longest = (unit * 100)[:100]
    words = {longest[:length].strip() for length in range(1, 101)} - {""}
    return Lexicon(Entry(word, "x") for word in sorted(words | {f"{unit}{n}" for n in range(ENTRIES - len(words))}))


def candidates(language: str) -> dict[str, Callable[[str], str]]:
    found: dict[str, Callable[[str], str]] = {}
    if importlib.util.find_spec("wetext"):
        from wetext import Normalizer

        found["wetext"] = Normalizer(lang=language, operator="tn").normalize
    if language == "zh" and importlib.util.find_spec("cn2an"):
        import cn2an

        found["cn2an"] = lambda text: cn2an.transform(text, "an2cn")
    return found


def read_by(normalize: Callable[[str], str], reference: Reference) -> bool:
    try:
        said = normalize(reference.text)
    except Exception:  # whatever a library raises, it has not read the text
        return False
    return any(matches(reference, [said], words) for words in reference.words)


def shares() -> None:
    for language in LANGUAGES:
        found = references(language)
        readers: dict[str, Callable[[Reference], bool]] = {"here": is_right}
        for name, normalize in candidates(language).items():
            readers[name] = lambda reference, by=normalize: read_by(by, reference)
        total = Counter(reference.kind for reference in found)
        right = {
            name: Counter(reference.kind for reference in found if reader(reference))
            for name, reader in readers.items()
        }
        print(f"\n{language:14}{'texts':>6}" + "".join(f"{name:>9}" for name in readers))
        for kind in [*total, ""]:
            count = total[kind] if kind else len(found)
            cells = [right[name][kind] if kind else sum(right[name].values()) for name in readers]
            print(f"{kind or 'all':14}{count:6}" + "".join(f"{100 * cell / count:8.0f}%" for cell in cells))


def times() -> None:
    print(f"\n{LONG} characters of     seconds   with a lexicon of {ENTRIES}")
    for name, unit in NASTY.items():
        text = (unit * LONG)[: LONG - 1] + "a"
        lexicon = nasty_lexicon(unit)
        plain, by_lexicon = seconds(text, []), seconds(text, [lexicon])
        print(f"{name:22}{plain:8.3f}{by_lexicon:10.3f}")


def seconds(text: str, lexicons: list[Lexicon]) -> float:
    """The least of three readings: of the processor, not of the clock."""
    taken = []
    for _ in range(3):
        begin = time.process_time()
        try:
            read(text, "auto", lexicon=occurring(text, lexicons))
        except PublicError:
            pass  # a refusal is an answer too
        taken.append(time.process_time() - begin)
    return min(taken)


if __name__ == "__main__":
    if sys.argv[1:] != ["--only", "times"]:
        shares()
    times()
