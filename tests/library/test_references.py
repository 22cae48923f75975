"""References that are kept after they were decoded."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, wav_bytes
from tests.support.audio import upload as upload_file
from tests.support.tenants import Tenant
from voiceproject.errors import PublicError
from voiceproject.media import audio
from voices.library import consents, quality, recordings, reference_audio, saved, selection
from voices.library.models import Voice
from voices.library.references import ReferenceCache, references
from voices.speech.models import Synthesis

RATE = 16_000


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded, and not taken from what is kept."""
    names: list[str] = []
    real = audio.load_reference

    def load(path: Path, *, field: str, warnings: list[str] | None = None) -> tuple[np.ndarray, int]:
        names.append(Path(path).name)
        return real(path, field=field, warnings=warnings)

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


def test_what_is_forgotten_is_decoded_again_and_leaves_its_room(tmp_path: Path, decoded: list[str]) -> None:
    a, b = (upload(tmp_path, f"{n}.wav", n) for n in (4, 5))
    cache = ReferenceCache(max_bytes=9 * RATE * 4)
    names = [cache.load(path, field="reference_audio")[2] for path in (a, b)]
    cache.forget(names[0], "nothing that is kept")
    for path in (a, b):
        cache.load(path, field="reference_audio")
    assert decoded == ["4.wav", "5.wav", "4.wav"]


def test_what_nobody_asks_for_goes_by_itself(tmp_path: Path) -> None:
    cache = ReferenceCache(max_seconds=0.3)
    for index, seconds in enumerate((4, 5, 4)):
        cache.load(upload(tmp_path, f"{index}.wav", seconds), field="reference_audio")
        time.sleep(0.1)
    assert len(cache._kept) == 2
    for _ in range(100):
        if not cache._kept:
            break
        time.sleep(0.02)
    assert not cache._kept and cache._bytes == 0
    cache.load(upload(tmp_path, "again.wav", 4), field="reference_audio")
    assert cache._sweeper and cache._sweeper.is_alive()
    cache._sweeper.cancel()


def test_a_deleted_synthesis_reference_is_forgotten(api: APIClient, engine: FakeEngine, reference_wav: bytes) -> None:
    for end in (lambda url: api.delete(url), lambda url: Synthesis.objects.get().revoke()):
        form = {"text": "Hello", "reference_audio": upload_file(reference_wav)}
        made = api.post("/api/v1/voice/synthesize", form)["X-Synthesis-ID"]
        name = hashlib.sha256(reference_wav).hexdigest()
        assert name in references._kept
        end(f"/api/v1/voice/syntheses/{made}")
        assert name not in references._kept


def test_a_saved_voices_recordings_are_forgotten_when_it_changes_is_taken_down_or_deleted(
    tenant: Tenant, engine: FakeEngine
) -> None:
    def decoded_of(voice: Voice) -> set[str]:
        assert selection.choose(voice, engine).reference.samples.size
        for sample in voice.samples.all():
            references.kept(f"saved {sample.audio_hash}", lambda: reference_audio.read_audio(sample.audio))  # noqa: B023
        return {name for name in references._kept if name.startswith("saved ")}

    who = consents.Provider(tenant.user, "", "")
    recording = recordings.Recording(speech_like(4.0), RATE, quality.measure(speech_like(4.0), RATE), "0" * 64)
    other = recordings.Recording(speech_like(5.0), RATE, quality.measure(speech_like(5.0), RATE), "1" * 64)
    statement = "The speaker has agreed to this voice."
    for end in (
        lambda voice: saved.delete(voice),
        lambda voice: saved.take_down(voice.pk),
        lambda voice: saved.add_sample(who, voice, other, "", statement),
    ):
        references.forget(*[name for name in references._kept if name.startswith("saved ")])
        voice = saved.create(who, [(recording, "")], statement, name="Ada")
        known = decoded_of(voice)
        old = f"saved {voice.reference_hash}"
        assert old in known
        end(voice)
        assert old not in references._kept


def test_what_was_refused_is_refused_again(tmp_path: Path, decoded: list[str]) -> None:
    cache = ReferenceCache()
    path = upload(tmp_path, "short.wav", 1)
    for field in ("reference_audio", "reference_voice"):
        with pytest.raises(PublicError) as caught:
            cache.load(path, field=field)
        assert caught.value.code == "reference_too_short" and field in caught.value.message
    assert len(decoded) == 2
