"""How loud speech is, as ITU-R BS.1770 measures it: weighted as the ear hears, without the pauses."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

BLOCK_SECONDS, STEP_SECONDS = 0.4, 0.1
SILENT_LUFS, RELATIVE_LU = -70.0, -10.0
OFFSET = -0.691  # of the standard: 997 Hz at 0 dBFS in one channel is -3.01 LUFS


def block_powers(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """The weighted mean square of each overlapping block; of what is shorter than a block, of all of it.

    samples: float32 (n,); sample_rate in Hz.
    """
    from scipy.signal import lfilter  # A second of loading, which only those who make dialogues wait for.

    weighted = samples.astype(np.float64)
    for b, a in _weighting(sample_rate):
        weighted = lfilter(b, a, weighted)
    squares = np.concatenate([[0.0], np.cumsum(weighted**2)])
    size, step = round(BLOCK_SECONDS * sample_rate), round(STEP_SECONDS * sample_rate)
    if len(samples) <= size:
        return np.array([squares[-1] / len(samples)]) if len(samples) else np.zeros(0)
    starts = np.arange(0, len(samples) - size + 1, step)
    return np.asarray((squares[starts + size] - squares[starts]) / size)


def loudness(powers: NDArray[np.float64]) -> float | None:
    """In LUFS, of the blocks of one recording or several; None for silence."""
    loud = powers[powers > _power(SILENT_LUFS)]
    if not len(loud):
        return None
    loud = loud[loud > _power(_level(float(loud.mean())) + RELATIVE_LU)]
    return _level(float(loud.mean()))


def _level(power: float) -> float:
    return OFFSET + 10 * math.log10(power)


def _power(level: float) -> float:
    return float(10 ** ((level - OFFSET) / 10))


@functools.lru_cache(maxsize=16)
def _weighting(rate: int) -> list[tuple[list[float], list[float]]]:
    """The two filters of K-weighting at this rate, from their analogue parameters (BS.1770-4, annex 1)."""
    gain, q, frequency = 3.999843853973347, 0.7071752369554196, 1681.974450955533
    k = math.tan(math.pi * frequency / rate)
    high = 10 ** (gain / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = (
        [(high + band * k / q + k * k) / norm, 2 * (k * k - high) / norm, (high - band * k / q + k * k) / norm],
        [1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm],
    )
    q, frequency = 0.5003270373238773, 38.13547087602444
    k = math.tan(math.pi * frequency / rate)
    norm = 1 + k / q + k * k
    pass_ = ([1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm])
    return [shelf, pass_]
