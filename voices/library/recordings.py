"""Uploaded samples: decoded, checked, trimmed and brought to one level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceproject.errors import PublicError
from voiceproject.media import audio, memory, voice
from voiceproject.media.uploads import Bounds
from voices.library import quality
from voices.library.quality import Quality

MIN_SECONDS, MAX_SECONDS = 3.0, 60.0
MIN_SPEECH_SECONDS = 1.0
# A sample's float32, and three times as much while its spectra are compared, or while a reference is made of it.
BYTES_PER_FRAME = 4 * 4
BYTES_PER_SECOND = BYTES_PER_FRAME * voice.MAX_SAMPLE_RATE
LEVEL = 0.1  # root mean square of the speech, -20 dBFS
PEAK = 0.95


@dataclass(frozen=True)
class Recording:
    """A sample as it is stored: float32 mono (n,), at most 48 kHz. quality: measured before its level was changed."""

    samples: NDArray[np.float32]
    sample_rate: int
    quality: Quality
    uploaded_hash: str


@contextmanager
def reading(paths: Sequence[Path], field: str) -> Iterator[list[Recording]]:
    """Decodes and checks uploads; what they and a reference made of them take in memory is claimed for the block.

    Raises PublicError as read_sample.
    """
    amounts = [memory.to_decode(path, MAX_SECONDS, BYTES_PER_SECOND) for path in paths]
    with memory.claim(sum(amounts)) as claim:
        recordings = [read_sample(path, field) for path in paths]
        frames = sum(len(recording.samples) for recording in recordings)
        claim.shrink(memory.BLOCKS_BYTES + BYTES_PER_FRAME * frames)
        yield recordings


def read_sample(path: Path, field: str) -> Recording:
    """Decodes and checks an upload, as far as there is memory for it (`memory.claim`).

    Raises PublicError as audio.load_reference, invalid_audio without speech, and too_many_waiting.
    """
    bounds = Bounds(field, MIN_SECONDS, MAX_SECONDS, reference=True)
    with memory.claim(memory.to_decode(path, MAX_SECONDS, BYTES_PER_SECOND)) as claim:
        read = voice.read_voice(path, bounds, count_clipped=True)
        samples, rate = read.samples, read.sample_rate
        claim.shrink(memory.BLOCKS_BYTES + BYTES_PER_FRAME * len(samples))
        start, stop = quality.speech_range(samples, rate)
        missing = round(MIN_SECONDS * rate) - (stop - start)
        if missing > 0:  # An engine wants its three seconds; the upload has them.
            start = max(0, min(start - missing // 2, len(samples) - round(MIN_SECONDS * rate)))
            stop = start + round(MIN_SECONDS * rate)
        samples = samples[start:stop]
        # What lies before and behind the speech is quieter, and has no peaks to be cut off.
        clipping = read.clipped / (len(samples) * read.own_rate / rate)
        found = quality.measure(samples, rate, own_rate=read.own_rate, clipping=clipping)
        if found.speech_seconds < MIN_SPEECH_SECONDS:
            message = f"{field} has no speech in it, or too much noise over it. Send 10 to 30 s of one person speaking."
            details = {"field": field, "reason": "no_voice", "found": round(found.speech_seconds, 2)}
            raise PublicError("invalid_audio", message, details)
        found.warnings.extend(read.warnings)
        gain = LEVEL / max(quality.speech_level(samples, rate), 1e-6)
        gain = min(gain, PEAK / max(float(samples.max()), -float(samples.min()), 1e-6))
        samples *= np.float32(gain)  # They are nobody else's.
        return Recording(samples, rate, found, audio.sha256_file(path))
