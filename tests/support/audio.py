"""Recordings that pass for speech, WAV files of samples, and uploads of them."""

from __future__ import annotations

import io
from functools import lru_cache

import av
import numpy as np
import soundfile as sf
from django.core.files.uploadedfile import SimpleUploadedFile

from tests.support.recordings.buzzing import buzz


def speech_like(seconds: float = 4.0, rate: int = 16_000, pitch: float = 120.0) -> np.ndarray:
    """float32 (n,): a buzz with the rhythm of syllables, which passes for a reference where no voice is needed."""
    return _speech_like(seconds, rate, pitch).copy()


@lru_cache(maxsize=32)
def _speech_like(seconds: float, rate: int, pitch: float) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    sound = buzz(pitch, len(time), rate, sum(pitch * k < rate / 2 for k in range(1, 15)))
    return (0.2 * sound * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def wav_bytes(samples: np.ndarray, rate: int, subtype: str = "PCM_16", format: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, subtype=subtype, format=format)
    return buffer.getvalue()


def upload(content: bytes, name: str = "reference.wav", content_type: str = "audio/wav") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, content_type)


def decode(content: bytes) -> tuple[np.ndarray, int]:
    """By FFmpeg, which reads a stream as a player does: float32 (n,) mono, Hz."""
    with av.open(io.BytesIO(content)) as container:
        (stream,) = container.streams.audio
        resampler = av.AudioResampler("flt", "mono", stream.rate)
        frames = [f for frame in container.decode(stream) for f in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), stream.rate
