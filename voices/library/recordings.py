"""Uploaded samples: decoded, checked, trimmed and brought to one level."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media import audio
from voices.library import quality
from voices.library.quality import Quality

MIN_SECONDS, MAX_SECONDS = 3.0, 60.0
MIN_SPEECH_SECONDS = 1.0
MAX_SAMPLE_RATE = 48_000
LEVEL = 0.1  # root mean square of the speech, -20 dBFS
PEAK = 0.95


@dataclass(frozen=True)
class Recording:
    """A sample as it is stored: float32 mono (n,), at most 48 kHz. quality: measured before its level was changed."""

    samples: NDArray[np.float32]
    sample_rate: int
    quality: Quality
    uploaded_hash: str


def read_sample(path: Path, field: str) -> Recording:
    """Decodes and checks an upload. Raises PublicError as audio.load_reference, and invalid_audio without speech."""
    samples, rate = audio.load_reference(path, field=field, min_seconds=MIN_SECONDS, max_seconds=MAX_SECONDS)
    start, stop = quality.speech_range(samples, rate)
    missing = round(MIN_SECONDS * rate) - (stop - start)
    if missing > 0:  # An engine wants its three seconds; the upload has them.
        start = max(0, min(start - missing // 2, len(samples) - round(MIN_SECONDS * rate)))
        stop = start + round(MIN_SECONDS * rate)
    samples = samples[start:stop]
    found = quality.measure(samples, rate)
    if found.speech_seconds < MIN_SPEECH_SECONDS:
        message = f"{field} has no speech in it, or too much noise over it. Send 10 to 30 s of one person speaking."
        details = {"field": field, "reason": "no_voice", "found": round(found.speech_seconds, 2)}
        raise PublicError("invalid_audio", message, details)
    if rate > MAX_SAMPLE_RATE:
        samples = soxr.resample(samples, rate, MAX_SAMPLE_RATE, quality="HQ").astype(np.float32)
        rate = MAX_SAMPLE_RATE
    gain = LEVEL / max(quality.speech_level(samples, rate), 1e-6)
    gain = min(gain, PEAK / max(float(np.abs(samples).max()), 1e-6))
    return Recording(samples * np.float32(gain), rate, found, audio.sha256_file(path))
