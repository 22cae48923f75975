"""References that are kept after they were decoded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import speech_like, wav_bytes
from voiceproject import audio
from voiceproject.errors import PublicError
from voices.references import ReferenceCache

RATE = 16_000


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded, and not taken from what is kept."""
    names: list[str] = []
    real = audio.load_reference

    def load(path: Path, *, field: str) -> tuple[np.ndarray, int]:
        names.append(Path(path).name)
        return real(path, field=field)

    monkeypatch.setattr(audio, "load_reference", load)
    return names


def upload(folder: Path, name: str, seconds: float) -> Path:
    path = folder / name
    path.write_bytes(wav_bytes(speech_like(seconds, RATE), RATE))
    return path


def test_the_same_bytes_are_decoded_once_whatever_the_file_is_called(tmp_path: Path, decoded: list[str]) -> None:
    cache = ReferenceCache()
    first, second = upload(tmp_path, "a.wav", 4), upload(tmp_path, "b.wav", 4)
    samples, rate, content_hash = cache.load(first, field="reference_audio")
    again, _, _ = cache.load(second, field="reference_audio")
    assert decoded == ["a.wav"]
    assert again is samples and rate == RATE and len(samples) == 4 * RATE
    assert content_hash == hashlib.sha256(first.read_bytes()).hexdigest()
    assert np.array_equal(samples, audio.load_reference(first, field="reference_audio")[0])


def test_nobody_can_change_what_others_get_too(tmp_path: Path) -> None:
    samples, _, _ = ReferenceCache().load(upload(tmp_path, "a.wav", 4), field="reference_audio")
    with pytest.raises(ValueError, match="read-only"):
        samples[0] = 1


def test_the_least_used_goes_when_the_bytes_are_spent(tmp_path: Path, decoded: list[str]) -> None:
    a, b, c = (upload(tmp_path, f"{n}.wav", n) for n in (4, 5, 6))
    cache = ReferenceCache(max_bytes=10 * RATE * 4)
    for path in (a, b, a, c, a, b):  # a and b fill it; c takes the place of b, and leaves none for more than a
        cache.load(path, field="reference_audio")
    assert decoded == ["4.wav", "5.wav", "6.wav", "5.wav"]


def test_what_was_refused_is_refused_again(tmp_path: Path, decoded: list[str]) -> None:
    cache = ReferenceCache()
    path = upload(tmp_path, "short.wav", 1)
    for field in ("reference_audio", "reference_voice"):
        with pytest.raises(PublicError) as caught:
            cache.load(path, field=field)
        assert caught.value.code == "reference_too_short" and field in caught.value.message
    assert len(decoded) == 2
