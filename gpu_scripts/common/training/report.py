"""Whether recordings will do, said before anything is trained: report.json.

{"usable_seconds", "clips", "speakers", "language", "problems": [{"code", "message", "file"?, "clips"?}],
 "warnings": [the same], "dropped": [{"file", "start", "end", "reason"}]}

speakers: how many were found, null where the engine's speaker model is not there. A problem refuses the dataset.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import script_io
from common.script_io import ScriptError

from . import sound
from .dataset import LANGUAGES, Clip, Dropped, File
from .work import write_json

MIN_SECONDS, FEW_SECONDS, MANY_SECONDS = 60.0, 180.0, 2400.0
MIN_CLIPS = 10
SAME_SPEAKER = 0.35  # cosine of ERes2NetV2's embeddings; 3D-Speaker's own threshold is 0.365
MAX_OTHER_SHARE = 0.3  # of the time; more than that, and nobody knows whose voice is meant
LETTERS_A_SECOND = {"zh": (1.0, 9.0), "yue": (1.0, 9.0), "ja": (1.5, 14.0), "ko": (1.0, 10.0), "en": (4.0, 30.0)}

_SCRIPTS = {
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7a3]"),
    "zh": re.compile(r"[\u3400-\u9fff]"),
    "en": re.compile(r"[A-Za-z]"),
}
_PUNCTUATION = re.compile(r"[,.;:!?…，。；：！？、]")


@dataclass
class Report:
    usable_seconds: float = 0.0
    clips: int = 0
    speakers: int | None = None
    language: str = "auto"
    problems: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)

    def problem(self, code: str, message: str, **facts: Any) -> None:
        self.problems.append({"code": code, "message": message, **facts})

    def warn(self, code: str, message: str, **facts: Any) -> None:
        if code not in {known["code"] for known in self.warnings}:
            self.warnings.append({"code": code, "message": message, **facts})

    def drop(self, found: Sequence[Dropped]) -> None:
        self.dropped += [asdict(one) for one in found]

    def count(self, clips: Sequence[Clip], min_clips: int = MIN_CLIPS, min_seconds: float = MIN_SECONDS) -> None:
        """What is left, and whether that is enough."""
        self.clips = len(clips)
        self.usable_seconds = round(sum(clip.seconds for clip in clips), 1)
        if self.usable_seconds < min_seconds:
            self.problem(
                "too_short",
                f"{self.usable_seconds:.0f} s of usable speech are left; at least {min_seconds:.0f} s are needed"
                f"{self._why()}. Record more, in a quiet room.",
            )
        elif len(clips) < min_clips:
            self.problem(
                "too_few_clips",
                f"only {len(clips)} usable clips are left; at least {min_clips} are needed{self._why()}.",
            )

    def _why(self) -> str:
        reasons = Counter(re.sub(r":.*| as .*", "", str(one["reason"])) for one in self.dropped)
        return f" (left out: {', '.join(f'{n} {reason}' for reason, n in reasons.most_common(3))})" if reasons else ""

    def look_at_length(self) -> None:
        if self.usable_seconds < FEW_SECONDS:
            self.warn("short", "Less than three minutes of speech: more makes a better voice.")
        elif self.usable_seconds > MANY_SECONDS:
            self.warn("long", "More than 40 minutes of speech: take fewer epochs, or the best part of it.")

    def finish(self, path: Path, tell: Callable[[str, str], None]) -> None:
        """Writes it and tells its warnings. Raises ScriptError (15): the dataset is refused."""
        if self.dropped:
            reasons = Counter(re.sub(r":.*", "", str(one["reason"])) for one in self.dropped)
            parts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(5))
            self.warnings = [known for known in self.warnings if known["code"] != "left_out"]
            self.warn("left_out", f"Parts of the recordings are left out: {parts}.", clips=len(self.dropped))
        write_json(path, asdict(self))
        for known in self.warnings:
            tell(known["code"], known["message"])
        if self.problems:
            raise ScriptError(
                script_io.DATASET_REFUSED,
                f"the dataset is refused ({self.problems[0]['code']}): {self.problems[0]['message']}",
            )


def script_of(text: str) -> str:
    """`ja`, `ko`, `zh` or `en` by the letters that a text is written in, "" where it has none of them."""
    counts: dict[str, float] = {language: len(pattern.findall(text)) for language, pattern in _SCRIPTS.items()}
    if counts["ja"] and counts["ja"] >= 0.1 * counts["zh"]:
        return "ja"
    counts["en"] /= 4  # letters against syllables
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] else ""


def look_at_files(report: Report, files: Sequence[File]) -> None:
    """What the files are like as wholes."""
    readable = [file for file in files if not file.error]
    if not readable:
        report.problem("unreadable", "None of the recordings can be read." if files else "There are no recordings.")
        return
    seconds = sum(file.seconds for file in readable)

    def share(chosen: Callable[[File], bool]) -> float:
        return sum(file.seconds for file in readable if chosen(file)) / seconds

    for file in files:
        if file.error:
            report.warn("unreadable", f"{file.source.path.name} cannot be read.", file=file.source.path.name)
    if share(lambda file: file.rate <= sound.NARROW_HZ or file.bandwidth < sound.NARROW_HZ / 2) > 0.3:
        report.warn("narrow_band", "Much of it has nothing above 8 kHz, as telephones do: the voice will be dull.")
    if share(lambda file: file.held > sound.HELD_SHARE) > 0.3:
        report.warn("music", "Much of it sounds sung, or has music in it. Train on speech, with the music taken out.")
    if share(lambda file: file.decay > sound.REVERB_SECONDS) > 0.3:
        report.warn("reverb", "Much of it was recorded in an echoing room, which will be heard in the voice.")
    speakers = {file.source.speaker for file in readable if file.source.speaker}
    if len(speakers) > 1:
        report.warn("speaker_names", f"The list names {len(speakers)} speakers; it is trained as one voice.")


def look_at_texts(report: Report, clips: list[Clip], files: Sequence[File], language: str) -> list[Clip]:
    """The language of all, and the clips whose texts are of it. language: as asked for, or `auto`."""
    texts = [file.source.text for file in files if file.source.text and not file.error]
    told = Counter(file.source.language for file in files if file.source.language)
    written = Counter(found for text in texts if (found := script_of(text)))
    if language == "auto" and told:
        language = told.most_common(1)[0][0]
    elif language == "auto" and written:
        language = written.most_common(1)[0][0]
    report.language = language
    if texts and language != "auto":
        if not written:
            report.problem("wrong_language", "The transcripts have no letters of a language that can be trained.")
        expected = {"yue": "zh"}.get(language, language)
        other = sum(
            count for found, count in written.items() if found != expected and (expected, found) != ("ja", "zh")
        )
        if written and other > 0.5 * written.total():
            report.problem(
                "wrong_language",
                f"The language is {language}, but {other} of {written.total()} transcripts are written in "
                f"{written.most_common(1)[0][0]}.",
            )
        if not any(_PUNCTUATION.search(text) for text in texts):
            report.warn("no_punctuation", "The transcripts have no punctuation: the voice will not learn its pauses.")
    kept, dropped = [], []
    for clip in clips:
        clip.language = clip.language or (language if language in LANGUAGES else "")
        reason = text_fault(clip) if clip.text else ""
        if reason:
            dropped.append(Dropped(Path(clip.file).name, clip.start, clip.end, reason))
        else:
            kept.append(clip)
    report.drop(dropped)
    return kept


def text_fault(clip: Clip) -> str:
    """Why a clip's text cannot be what is said in it."""
    text = clip.text or ""
    letters = sum(char.isalnum() for char in text)
    if not letters:
        return "its text has no letters"
    low, high = LETTERS_A_SECOND.get(clip.language, (1.0, 30.0))
    if not low <= letters / clip.seconds <= high:
        return f"odd rate: {letters / clip.seconds:.1f} letters a second"
    return ""


def look_at_speakers(
    report: Report, clips: list[Clip], embeddings: NDArray[np.float64] | None
) -> tuple[list[Clip], NDArray[np.float64] | None]:
    """The clips of the main speaker, and their embeddings (clips, n). Without embeddings nobody knows."""
    if embeddings is None or not clips:
        return clips, None
    groups = speakers(embeddings)
    seconds = np.array([clip.seconds for clip in clips])
    times = Counter({group: float(seconds[groups == group].sum()) for group in set(groups.tolist())})
    main, spoken = times.most_common(1)[0]
    report.speakers = sum(time >= 0.1 * times.total() for time in times.values())
    others = groups != main
    if times.total() - spoken > MAX_OTHER_SHARE * times.total():
        report.problem(
            "several_speakers",
            f"Several people speak: the most frequent one has {100 * spoken / times.total():.0f} % of the time. "
            "Send recordings of one person.",
            clips=int(others.sum()),
        )
        return clips, embeddings
    report.drop(
        [Dropped(Path(c.file).name, c.start, c.end, "another speaker") for c, o in zip(clips, others, strict=True) if o]
    )
    return [clip for clip, other in zip(clips, others, strict=True) if not other], embeddings[~others]


def speakers(embeddings: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which clips are of one speaker: groups merged while their clips are alike on average."""
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
    # The mean cosine between two groups is the product of their sums, over both counts.
    sums, members = [unit.copy() for unit in units], [[number] for number in range(len(units))]
    if len(units) > 400:  # a long dataset: pieces that follow each other are one group at first
        sums, members = _paired(units)
    while len(sums) > 1:
        table = np.array(sums)
        counts = np.array([len(group) for group in members])
        likeness = table @ table.T / np.outer(counts, counts)
        np.fill_diagonal(likeness, -1.0)
        one, two = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
        if likeness[one, two] < SAME_SPEAKER:
            break
        sums[one] = sums[one] + sums[two]
        members[one] += members[two]
        del sums[two], members[two]
    groups = np.zeros(len(units), np.int64)
    for number, group in enumerate(members):
        groups[group] = number
    return groups


def _paired(units: NDArray[np.float64]) -> tuple[list[NDArray[np.float64]], list[list[int]]]:
    sums: list[NDArray[np.float64]] = []
    members: list[list[int]] = []
    for number, unit in enumerate(units):
        if members and len(members[-1]) < 8 and float(sums[-1] @ unit) / len(members[-1]) > SAME_SPEAKER + 0.15:
            sums[-1] = sums[-1] + unit
            members[-1].append(number)
        else:
            sums.append(unit.copy())
            members.append([number])
    return sums, members
