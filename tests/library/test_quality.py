"""What is measured of a recording: on clean, noisy, clipped, dull and empty audio."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.signal
import soundfile as sf
import soxr

from voiceproject.media.audio import encode
from voices.library import quality


@pytest.fixture(scope="module")
def speech() -> tuple[np.ndarray, int]:
    return sf.read("voiceproject/samples/reference.flac", dtype="float32")


def with_noise(samples: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(len(samples)) * np.sqrt(np.mean(samples**2)) * 10 ** (-snr_db / 20)
    return (samples + noise).astype(np.float32)


def clipped(samples: np.ndarray, gain_db: float) -> np.ndarray:
    top = np.abs(samples).max()
    return np.clip(samples * 10 ** (gain_db / 20), -top, top).astype(np.float32)


def test_a_clean_recording_has_nothing_to_warn_of(speech: tuple[np.ndarray, int]) -> None:
    found = quality.measure(*speech)
    assert found.duration_seconds == pytest.approx(len(speech[0]) / speech[1])
    assert 0.6 < found.speech_ratio < 0.95
    assert found.snr_db > 30
    assert found.clipping_ratio < 1e-5
    assert found.bandwidth_hz > 10_000
    assert found.warnings == []


def test_the_noise_under_the_voice_is_told_within_a_few_decibels(speech: tuple[np.ndarray, int]) -> None:
    samples, rate = speech
    found = {snr: quality.measure(with_noise(samples, snr), rate) for snr in (25, 15, 5)}
    # Speech alone is louder than the mean over speech and pauses, to which the noise was set.
    for snr, measured in found.items():
        assert snr - 1 < measured.snr_db < snr + 7
    assert [any("noise" in text for text in found[snr].warnings) for snr in (25, 15, 5)] == [False, True, True]


def test_noise_is_found_where_nobody_pauses(speech: tuple[np.ndarray, int]) -> None:
    samples, rate = speech
    loud = [part for part in np.array_split(samples, 100) if np.std(part) > 0.5 * np.std(samples)]
    assert quality.measure(with_noise(np.concatenate(loud), 5), rate).snr_db < 11
    gated = np.where(np.abs(scipy.signal.lfilter([0.01], [1, -0.99], np.abs(samples))) > 0.01, samples, 0)
    assert quality.measure(gated.astype(np.float32), rate).snr_db > 20


def test_cut_off_peaks_are_counted_wherever_the_ceiling_is(speech: tuple[np.ndarray, int]) -> None:
    samples, rate = speech
    ratios = [quality.clipping_ratio(clipped(samples, gain)) for gain in (0, 3, 6, 12)]
    assert ratios == sorted(ratios)
    assert quality.clipping_ratio(0.3 * clipped(samples, 6)) == pytest.approx(ratios[2], rel=0.05)
    share_over_the_top = np.mean(np.abs(samples) * 4 > np.abs(samples).max())
    assert ratios[3] == pytest.approx(share_over_the_top, rel=0.3)
    warned = [any("clipping" in text for text in quality.measure(clipped(samples, gain), rate).warnings)
              for gain in (0, 6)]  # fmt: skip
    assert warned == [False, True]


def test_a_telephone_is_recognised_at_any_sample_rate(speech: tuple[np.ndarray, int]) -> None:
    samples, rate = speech
    narrow = soxr.resample(samples, rate, 8000)
    again = soxr.resample(narrow, 8000, 44_100)
    through_mp3, mp3_rate = sf.read(io.BytesIO(encode(again, 44_100, "mp3")), dtype="float32")
    for heard, its_rate in ((narrow, 8000), (again, 44_100), (through_mp3, mp3_rate)):
        found = quality.measure(heard, its_rate)
        assert 3300 < found.bandwidth_hz < 4200
        assert any("telephone" in text for text in found.warnings)
    filtered = scipy.signal.sosfilt(scipy.signal.butter(10, 5000, fs=rate, output="sos"), samples)
    dull = quality.measure(filtered.astype(np.float32), rate)
    assert 4500 < dull.bandwidth_hz < 6500
    assert any("dull" in text for text in dull.warnings)


def test_pauses_lower_the_share_of_speech_and_are_cut_off_at_the_ends(speech: tuple[np.ndarray, int]) -> None:
    samples, rate = speech
    alone = quality.measure(samples, rate).speech_ratio * len(samples)
    pause = np.zeros(5 * rate, np.float32)
    padded = with_noise(np.concatenate([pause, samples, pause]), 40)
    assert quality.measure(padded, rate).speech_ratio * len(padded) == pytest.approx(alone, rel=0.1)
    start, stop = quality.speech_range(padded, rate)
    assert 4.5 < start / rate < 5.5
    assert 4.5 < (len(padded) - stop) / rate < 5.7


@pytest.mark.parametrize("sound", ["hiss", "hum", "silence"])
def test_a_steady_sound_is_no_speech(sound: str) -> None:
    time = np.arange(5 * 24_000) / 24_000
    samples = {
        "hiss": 0.1 * np.random.default_rng(0).standard_normal(len(time)),
        "hum": 0.1 * np.sin(2 * np.pi * 150 * time),
        "silence": np.zeros(len(time)),
    }[sound].astype(np.float32)
    found = quality.measure(samples, 24_000)
    assert found.speech_ratio == 0
    assert any("only 0.0 s of speech" in text for text in found.warnings)
