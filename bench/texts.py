"""How many texts are read as they should be, and how long the longest take: `python -m bench.texts`.

The references are those of tests/text/readings: 703 texts of the kinds in which readers of texts err, written by hand
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
    "compound units": "5 mg/", "sizes": "9x13-", "hexadecimals": "0xA ", "scores": "1-0 ",
    "money": "$1 ", "dates": "Oct 3 ", "prose": "The quick brown fox jumps over the lazy dog. ",
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
