"""Which of the trained pairs is published: the one most like the speaker among those that say what they should."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_MORE_ERRORS = 0.05  # than the base's, of the characters
MAX_LENGTH = math.log(1.5)  # further off than the base
MAX_FAILED = 0.2


@dataclass(frozen=True)
class Row:
    """What a pair did, over all its takes. None: nobody could tell. out: why it is no candidate."""

    gpt_epoch: int  # 0: the base's
    sovits_epoch: int
    errors: float | None
    likeness: float | None
    length: float  # log of how much longer than the speaker, the median of its size
    failed: float
    out: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "gpt_epoch": self.gpt_epoch,
            "sovits_epoch": self.sovits_epoch,
            "cer": None if self.errors is None else round(self.errors, 4),
            "likeness": None if self.likeness is None else round(self.likeness, 4),
            "length_ratio": round(math.exp(self.length), 3),
            "failed": round(self.failed, 3),
            **({"out": self.out} if self.out else {}),
        }


def row(epochs: tuple[int, int], takes: list[dict[str, Any]], seconds: list[float]) -> Row:
    """takes: of steps.py's `speak`; seconds: how long the speaker took for each sentence."""
    good = [take for take in takes if "error" not in take]
    errors = [take.get("cer") for take in good]
    likeness = [take.get("likeness") for take in good]
    lengths = [abs(math.log(take["seconds"] / seconds[take["sentence"]])) for take in good]
    lost = len(takes) - len(good)
    heard = bool(good) and None not in errors
    known = bool(good) and None not in likeness
    return Row(
        epochs[0],
        epochs[1],
        (sum(min(float(rate or 0), 1.0) for rate in errors) + lost) / len(takes) if heard else None,
        float(np.sum([float(one or 0) for one in likeness])) / len(takes) if known else None,
        float(np.median(lengths)) if lengths else math.log(10),
        lost / len(takes),
    )


def choose(base: Row, rows: list[Row]) -> tuple[Row | None, list[Row]]:
    """(the best pair or None, all with why they are out). Without likeness the longest trained pair that is not out."""
    judged = []
    for one in rows:
        out = ""
        if one.failed > MAX_FAILED:
            out = "it failed to speak"
        elif one.errors is not None and base.errors is not None and one.errors > base.errors + MAX_MORE_ERRORS:
            out = "more words are wrong than with the base"
        elif one.length > base.length + MAX_LENGTH:
            out = "its sentences are too long or too short"
        elif one.likeness is not None and base.likeness is not None and one.likeness <= base.likeness:
            out = "it is no more like the speaker than the base"
        judged.append(Row(**{**one.__dict__, "out": out}))
    left = [one for one in judged if not one.out]
    best = max(left, key=lambda one: (one.likeness or 0.0, one.sovits_epoch, one.gpt_epoch), default=None)
    return best, judged
