"""Sounds that are made of sines; of numpy alone, for programs too."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

KEPT_SOUNDS, KEPT_SAMPLES = 16, 1_000_000
# By pitch, rate and partials: many a test makes the same one hundreds of times, and so do the fakes that speak.
_kept: OrderedDict[tuple[float, int, int], np.ndarray] = OrderedDict()


def buzz(pitch: float, count: int, rate: int, partials: int) -> np.ndarray:
    """float64 (count,): sines at multiples of a pitch in Hz, the k-th 1 / k high."""
    key = (pitch, rate, partials)
    made = _kept.get(key)
    if made is None or len(made) < count:
        made = _made(pitch, count, rate, partials)
        if count <= KEPT_SAMPLES:
            _kept[key] = made
            while len(_kept) > KEPT_SOUNDS:
                _kept.popitem(last=False)
    return made[:count].copy()  # A shorter one is the beginning of a longer one.


def _made(pitch: float, count: int, rate: int, partials: int) -> np.ndarray:
    """Each sine is made of the two before it, since a sine takes many times as long as a product."""
    phase = 2 * np.pi * pitch * np.arange(count) / rate
    twice, before, now = 2 * np.cos(phase), np.zeros(count), np.sin(phase)
    total = now.copy()
    for k in range(2, partials + 1):
        before, now = now, twice * now - before
        total += now / k
    return total
