"""What the tests of other services' clients share."""

from __future__ import annotations

import numpy as np


def pitch(samples: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * rate / len(samples))


def assert_(true: bool) -> None:
    assert true
