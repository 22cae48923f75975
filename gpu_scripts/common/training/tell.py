"""What a training tells its caller on stdout: `PROGRESS 0.42 train_sovits` and `WARNING code A sentence.`"""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Told of a stage from 0 to 1.
Progress = Callable[[float], None]


class Teller:
    """shares: each stage's share of the whole run, in order; they add up to about 1."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        whole = sum(shares.values())
        self._spans: dict[str, tuple[float, float]] = {}
        start = 0.0
        for stage, share in shares.items():
            self._spans[stage] = (start, share / whole)
            start += share / whole
        self._told = ""
        self._furthest = 0.0
        self._warned: set[tuple[str, str]] = set()

    def progress(self, stage: str, done: float) -> None:
        """Never falls; at most a line for each thousandth, and one for each stage."""
        start, share = self._spans[stage]
        self._furthest = max(self._furthest, start + share * min(max(done, 0.0), 1.0))
        line = f"PROGRESS {int(self._furthest * 1000 + 1e-6) / 1000:g} {stage}"
        if line != self._told:
            self._told = line
            print(line, flush=True)

    def within(self, stage: str, first: float = 0.0, last: float = 1.0) -> Progress:
        """A callback whose 0 to 1 is this part of the stage."""
        return lambda done: self.progress(stage, first + (last - first) * min(max(done, 0.0), 1.0))

    def warn(self, code: str, sentence: str) -> None:
        if (code, sentence) not in self._warned:
            self._warned.add((code, sentence))
            print(f"WARNING {code} {' '.join(sentence.split())}", flush=True)
