"""Peaks that were cut off, found in audio that comes in blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A run of so many samples within this share of the extreme value is a peak that was cut off.
RUN, SHARE = 3, 0.004


class ClippingMeter:
    """Counts the samples that lie in flat tops at the audio's own extremes, wherever those are.

    Take it at the rate that the audio was recorded at: resampling makes flat tops round, and so does a lossy codec. A
    run over the border of two blocks is counted as two.
    """

    def __init__(self) -> None:
        # Of each side, above and below zero: its extreme so far, and of each block that came near it, the block's own
        # extreme and the samples in flat tops there.
        self._tops = [0.0, 0.0]
        self._found: list[list[tuple[float, int]]] = [[], []]

    def add(self, samples: NDArray[np.float32]) -> None:
        """float32 (n,)."""
        for side, extreme in enumerate((samples.max(initial=0.0), -samples.min(initial=0.0))):
            top = float(extreme)
            if top <= 0 or top < self._tops[side] * (1 - SHARE):
                continue
            self._tops[side] = max(self._tops[side], top)
            edge = np.float32(top * (1 - SHARE))
            near = samples >= edge if side == 0 else samples <= -edge
            edges = np.flatnonzero(np.diff(np.concatenate(([0], near.view(np.int8), [0]))))
            lengths = edges[1::2] - edges[::2]
            self._found[side].append((top, int(lengths[lengths >= RUN].sum())))

    @property
    def samples(self) -> int:
        """How many lie in flat tops."""
        return sum(
            count
            for highest, found in zip(self._tops, self._found, strict=True)
            for top, count in found
            if top >= highest * (1 - SHARE)
        )
