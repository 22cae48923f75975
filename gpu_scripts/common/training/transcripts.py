"""What is said in each clip: given, or heard, or given for a long recording and laid on what was heard."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from common import script_io
from common.recognition import unit_starts, units
from common.script_io import ScriptError

from .dataset import LANGUAGES, Clip, Dropped, Source
from .report import Report, text_fault

_MARK = re.compile(r"[,.;:!?…，。；：！？、]+")
MAX_ERRORS = 0.2  # of the characters, against the recogniser; more only where all texts differ that much
HOPELESS_ERRORS = 0.6

Heard = dict[str, Any]  # {"language": "en", "words": [[text, start, end], ...]}


def error_rate(wanted: str, heard: str) -> float:
    """Character errors of `heard`, over the characters of `wanted`: letters and digits alone, in one case and width."""
    a, b = _letters(wanted), _letters(heard)
    if not a:
        return 0.0 if not b else 1.0
    row = np.arange(len(b) + 1)
    codes = np.array([ord(char) for char in b])
    for number, char in enumerate(a, 1):
        substituted = row[:-1] + (codes != ord(char))
        best = np.minimum(substituted, row[1:] + 1)
        new = np.concatenate([[number], best])
        # Insertions run along the row: what is cheapest so far, and one more for each step.
        steps = np.arange(len(new))
        row = np.minimum.accumulate(new - steps) + steps
    return float(row[-1]) / len(a)


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    try:  # the engine's own package for traditional characters, which recognisers write where a text has simple ones
        from opencc import OpenCC

        plain = OpenCC("t2s").convert(plain)
    except Exception:  # absent, or without its dictionaries: then they count as errors
        pass
    return "".join(char for char in plain if char.isalnum())


def complete(
    report: Report, clips: list[Clip], sources: Sequence[Source], heard: Mapping[str, Heard] | None
) -> list[Clip]:
    """The clips whose text is known and fits. heard: by the clips' names; None: there is no recogniser.

    Raises ScriptError (13): nothing was given, and nobody can hear.
    """
    texts = {str(source.path): source.text for source in sources}
    dropped: list[Dropped] = []
    kept: list[Clip] = []
    if heard is None:
        for clip in clips:
            if clip.text:
                kept.append(clip)
            else:
                long = texts.get(clip.file)
                reason = "its text is of a longer recording" if long else "no text"
                dropped.append(_drop(clip, f"{reason}, and there is no recogniser"))
        report.drop(dropped)
        if not kept:
            raise ScriptError(
                script_io.NO_LYRICS, "no clip has a transcript, and there is no recogniser (--asr-model) to make them"
            )
        report.warn("no_recogniser", "There is no recogniser: whether the transcripts are right was not checked.")
        return kept
    if report.language not in LANGUAGES:
        report.language = _language(report, clips, heard)
    _lay(clips, texts, heard)
    rates: dict[str, float] = {}
    for clip in clips:
        said = " ".join("".join(word[0] for word in heard[clip.name]["words"]).split())
        clip.language = clip.language or report.language
        if clip.text:
            rates[clip.name] = error_rate(clip.text, said)
        else:
            clip.text = said
    middle = float(np.median(list(rates.values()))) if rates else 0.0
    if middle > HOPELESS_ERRORS:
        report.problem(
            "wrong_transcripts",
            f"The transcripts differ from what is heard in {100 * middle:.0f} % of their letters: they are of other "
            "recordings, or in another language.",
            clips=len(rates),
        )
    for clip in clips:
        rate = rates.get(clip.name, 0.0)
        if not units(clip.text or ""):
            dropped.append(_drop(clip, "nothing was heard in it"))
        elif rate > max(MAX_ERRORS, middle + MAX_ERRORS):
            dropped.append(_drop(clip, f"its text is not what is heard: {100 * rate:.0f} % of the letters differ"))
        elif reason := text_fault(clip):
            dropped.append(_drop(clip, reason))
        else:
            kept.append(clip)
    report.drop(dropped)
    return kept


def _drop(clip: Clip, reason: str) -> Dropped:
    return Dropped(Path(clip.file).name, clip.start, clip.end, reason)


def _language(report: Report, clips: Sequence[Clip], heard: Mapping[str, Heard]) -> str:
    votes: Counter[str] = Counter()
    for clip in clips:
        votes[heard[clip.name]["language"]] += round(clip.seconds)
    language, spoken = votes.most_common(1)[0]
    if language not in LANGUAGES:
        report.problem("language_not_spoken", f"The recordings seem to be in {language!r}, which cannot be trained.")
    elif spoken < 0.8 * votes.total():
        report.warn("languages", "More than one language seems to be spoken: " + ", ".join(sorted(votes)) + ".")
    return language


def _lay(clips: Sequence[Clip], texts: Mapping[str, str | None], heard: Mapping[str, Heard]) -> None:
    """Gives the clips of a recording that has a text, and was cut, their parts of it: punctuation and spelling are the
    text's, and where one clip ends is what was heard in it."""
    for file in dict.fromkeys(clip.file for clip in clips):
        own = [clip for clip in clips if clip.file == file]
        text = texts.get(file)
        if not text or any(clip.text for clip in own):
            continue
        said: list[str] = []
        of_clip: list[int] = []
        for number, clip in enumerate(own):
            for word in heard[clip.name]["words"]:
                parts = units(word[0])
                said += parts
                of_clip += [number] * len(parts)
        wanted, starts = units(text), unit_starts(text)
        owner: list[int | None] = [None] * len(wanted)
        for block in SequenceMatcher(None, wanted, said, autojunk=False).get_matching_blocks():
            for offset in range(block.size):
                owner[block.a + offset] = of_clip[block.b + offset]
        known = [number for number, clip_number in enumerate(owner) if clip_number is not None]
        if not known:
            continue
        begin = 0
        for number, clip in enumerate(own):
            mine = [at for at in known if owner[at] == number]
            if not mine:
                continue
            following = [at for at in known if at > mine[-1]]
            end = starts[following[0]] if following else len(text)
            # Words that nobody heard stand between two clips: a mark of the text parts them.
            marks = [match.end() for match in _MARK.finditer(text, starts[mine[-1]], end)]
            end = marks[-1] if marks and following else end
            clip.text = text[begin:end].strip()
            begin = end
