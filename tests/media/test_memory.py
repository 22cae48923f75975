"""The budget of decoded audio: never more than it has, in turns between tenants, and nothing kept of who failed."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.support.audio import speech_like
from voiceproject.errors import PublicError
from voiceproject.media import memory
from voiceproject.media.clipping import ClippingMeter
from voiceproject.media.memory import MIB, Budget
from voiceproject.media.uploads import Bounds
from voiceproject.media.voice import read_voice
from voices.library import recordings
from voices.library.references import ReferenceCache


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Holder:
    """A claim that is held in a thread of its own until it is let go."""

    def __init__(self, budget: Budget, amount: int, tenant: str, granted: list[str] | None = None) -> None:
        self.error: PublicError | None = None
        self.granted, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(budget, amount, tenant, granted))
        self._thread.start()

    def _hold(self, budget: Budget, amount: int, tenant: str, granted: list[str] | None) -> None:
        try:
            with budget.claim(amount, tenant):
                if granted is not None:
                    granted.append(tenant)
                self.granted.set()
                assert self._go.wait(20)
        except PublicError as error:
            self.error = error

    def end(self) -> None:
        self._go.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def waiting(budget: Budget) -> int:
    return sum(map(len, budget._waiting.values()))


def test_many_claims_at_once_never_hold_more_than_the_budget() -> None:
    budget = Budget(100, most_waiting=200, most_waiting_of_one=200)
    most, failed = 0, 0
    lock = threading.Lock()

    def decode(number: int) -> None:
        nonlocal most, failed
        amount = 7 + number % 41
        try:
            with budget.claim(amount, f"tenant-{number % 5}") as claim:
                with lock:
                    most = max(most, budget.held)
                time.sleep(0.001)
                claim.shrink(amount // 2)
                if number % 3 == 0:
                    raise ValueError("what was sent is no audio")
        except ValueError:
            failed += 1

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(decode, range(300)))
    assert 60 < most <= 100
    assert failed == 100
    assert budget.held == 0
    assert waiting(budget) == 0


def test_a_tenant_has_half_of_it_and_the_lines_take_turns() -> None:
    budget = Budget(100)
    granted: list[str] = []
    held = [Holder(budget, 50, "a", granted)]
    until(held[0].granted.is_set)
    held += [Holder(budget, 50, "a", granted) for _ in range(4)]
    until(lambda: waiting(budget) == 4)
    # The other half is not for A, however long its line is: B finds it free.
    held.append(Holder(budget, 50, "b", granted))
    until(held[-1].granted.is_set)
    later = [Holder(budget, 50, tenant, granted) for tenant in "bc"]
    until(lambda: waiting(budget) == 6)
    assert granted == ["a", "b"]
    left = [*held, *later]
    while left:
        until(lambda: any(holder.granted.is_set() for holder in left))
        ready = next(holder for holder in left if holder.granted.is_set())
        left.remove(ready)
        ready.end()
    # A's line of four is served between those of B and C, not before them. Threads that are granted together may note
    # it in any order.
    assert sorted(granted) == ["a"] * 5 + ["b"] * 2 + ["c"]
    assert granted.index("c") < max(place for place, tenant in enumerate(granted) if tenant == "a")
    assert budget.held == 0


def test_more_than_the_budget_is_served_alone_and_nobody_overtakes_it_for_ever() -> None:
    budget = Budget(100)
    small = Holder(budget, 10, "a")
    until(small.granted.is_set)
    large = Holder(budget, 500, "b")
    until(lambda: waiting(budget) == 1)
    behind = Holder(budget, 10, "c")  # It would fit now, and comes after what waited before it.
    until(lambda: waiting(budget) == 2)
    small.end()
    until(large.granted.is_set)
    assert budget.held == 500
    assert not behind.granted.is_set()
    large.end()
    until(behind.granted.is_set)
    behind.end()
    assert budget.held == 0


def test_who_waits_too_long_or_finds_the_line_full_is_told_when_to_come_again() -> None:
    budget = Budget(100, most_waiting=2, most_waiting_of_one=1, wait_seconds=0.3)
    first = Holder(budget, 100, "a")
    until(first.granted.is_set)
    second = Holder(budget, 100, "a")
    until(lambda: waiting(budget) == 1)
    with pytest.raises(PublicError) as refused, budget.claim(1, "a"):
        pass
    assert (refused.value.code, refused.value.status, refused.value.retry_after) == ("too_many_waiting", 503, 5)
    began = time.monotonic()
    with pytest.raises(PublicError), budget.claim(100, "b"):
        pass
    assert 0.2 < time.monotonic() - began < 5
    second.end()
    assert second.error is not None and second.error.code == "too_many_waiting"
    first.end()
    assert (budget.held, waiting(budget)) == (0, 0)


def test_a_claim_within_a_claim_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(100, wait_seconds=0.2)
    monkeypatch.setattr(memory, "budget", lambda: budget)
    with memory.claim(80), memory.claim(80) as inner:
        inner.shrink(1)
        assert budget.held == 80
    assert budget.held == 0


def write(path: Path, samples: np.ndarray, rate: int, format: str = "FLAC") -> Path:
    sf.write(path, samples, rate, format=format, subtype=None if format == "OGG" else "PCM_16")
    return path


def test_a_claim_is_made_from_the_header_and_corrected_when_the_length_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = Budget(1000 * MIB)
    monkeypatch.setattr(memory, "budget", lambda: budget)
    claimed: dict[str, list[int]] = {}
    for name in ("flac", "ogg"):
        path = write(tmp_path / name, speech_like(4.0), 16_000, name.upper())
        found = claimed[name] = [memory.to_decode(path, 60, 1000)]
        with recordings.reading([path], "sample") as [recording]:
            found.append(budget.held)
            assert recording.quality.sample_rate == 16_000
        assert budget.held == 0
    # Both take a process that decodes. Ogg tells its length at its end: it may be as long as is allowed.
    assert claimed["flac"][0] == memory.BLOCKS_BYTES + 4000 + memory.CHILD_BYTES
    assert claimed["ogg"][0] == memory.BLOCKS_BYTES + 60_000 + memory.CHILD_BYTES
    for _, held in claimed.values():
        assert held == memory.BLOCKS_BYTES + recordings.BYTES_PER_FRAME * 64_000


def test_only_a_wav_of_plain_samples_is_asked_for_its_length_in_this_process(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.mp3", speech_like(4.0), 16_000, "WAV")
    assert memory.to_decode(plain, 60, 1000) == memory.BLOCKS_BYTES + 4000
    # Its codec is a stranger's to choose: MP3 for instance.
    adpcm = tmp_path / "adpcm.wav"
    sf.write(adpcm, speech_like(4.0), 16_000, subtype="MS_ADPCM")
    (tmp_path / "text").write_bytes(b"RIFF")
    for other in (adpcm, tmp_path / "text"):
        assert memory.to_decode(other, 60, 1000) == memory.BLOCKS_BYTES + 60_000 + memory.CHILD_BYTES


def test_192_khz_is_never_held_and_its_cut_off_peaks_are_found_at_its_own_rate(tmp_path: Path) -> None:
    at = np.arange(6 * 192_000) / 192_000
    wave = 0.7 * np.sin(2 * np.pi * 440 * at) * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * at))
    clipped, whole = np.clip(wave, -0.5, 0.5), wave * 0.7
    found = {}
    for name, samples in (("clipped", clipped), ("whole", whole)):
        path = write(tmp_path / name, np.stack([samples, samples], axis=1), 192_000)
        read = read_voice(path, Bounds("sample", 3, 60), count_clipped=True)
        assert (read.sample_rate, read.own_rate, len(read.samples)) == (48_000, 192_000, 6 * 48_000)
        assert read.samples.dtype == np.float32
        # It is the same sound: what a sine of 440 Hz loses on the way is under -60 dB.
        assert np.abs(read.samples[4800:-4800] - samples[::4][4800:-4800]).max() < 1e-3 + 0.05 * (name == "clipped")
        found[name] = read.clipped / len(samples)
        alone = ClippingMeter()
        alone.add(samples.astype(np.float32))
        assert read.clipped == pytest.approx(alone.samples, rel=0.1, abs=200)
    assert found["clipped"] > 0.1
    assert found["whole"] < found["clipped"] / 50


def test_an_uploaded_reference_is_held_by_the_cache_alone(tmp_path: Path) -> None:
    cache = ReferenceCache(max_bytes=300_000)
    file = io.BytesIO()
    sf.write(file, speech_like(4.0), 16_000, format="WAV")
    path = tmp_path / "upload"
    path.write_bytes(file.getvalue())
    reference = cache.reference(path, None, "auto", field="reference_audio", tenant=1)
    first = reference.samples
    assert reference.samples is first
    assert (reference.frames, reference.duration_seconds) == (64_000, 4.0)
    other = write(tmp_path / "other", speech_like(3.5), 16_000)
    cache.load(other, field="reference_audio")  # There is no room for both.
    again = reference.samples
    assert again is not first
    assert np.array_equal(again, first)


def test_a_short_reference_does_not_keep_the_room_of_a_long_one(tmp_path: Path) -> None:
    sf.write(tmp_path / "voice.wav", speech_like(4.0), 16_000)
    samples = read_voice(tmp_path / "voice.wav", Bounds("reference", 3.0, 60.0, reference=True)).samples
    assert samples.base is None and samples.nbytes == 4 * 16_000 * 4
