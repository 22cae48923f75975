"""The accompaniment's pitch is moved, and its time stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from voiceproject.media import transposing

RATE = 44_100


def transposed(folder: Path, samples: np.ndarray, semitones: float) -> np.ndarray:
    sf.write(folder / "in.wav", samples, RATE, subtype="FLOAT")
    transposing.transpose(folder / "in.wav", folder / "out.wav", semitones)
    out, rate = sf.read(folder / "out.wav", always_2d=True)
    assert rate == RATE
    return np.asarray(out)


def peak_hz(samples: np.ndarray, near: float) -> float:
    size = 1 << 20
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), size))
    low, high = (int(near * factor * size / RATE) for factor in (0.95, 1.05))
    return float((low + spectrum[low:high].argmax()) * RATE / size)


@pytest.mark.parametrize("semitones", [3, -5])
def test_tones_move_attacks_stay_and_blocks_are_seamless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, semitones: int
) -> None:
    monkeypatch.setattr(transposing, "BLOCK_SECONDS", 4.0)
    monkeypatch.setattr(transposing, "OVERLAP_SECONDS", 1.0)
    n = 10 * RATE
    time = np.arange(n) / RATE
    tones = sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in (220.0, 329.6, 880.0))
    clicks = np.zeros(n)
    places = [round(k * 0.5 * RATE) for k in range(1, 19)]
    for place in places:
        clicks[place : place + 300] = 0.5 * np.random.default_rng(3).normal(0, 1, 300) * np.exp(-np.arange(300) / 60)
    out = transposed(tmp_path, np.stack([tones, clicks], axis=1), semitones)
    assert len(out) == n
    for hz in (220.0, 329.6, 880.0):
        wanted = hz * 2 ** (semitones / 12)
        assert abs(1200 * np.log2(peak_hz(out[:, 0], wanted) / wanted)) < 8
    for place in places:
        around = np.abs(out[place - 2000 : place + 2000, 1])
        assert abs(int(around.argmax()) - 2000) < 3 + RATE // 1000
    level = np.sqrt(np.mean(out[: n // 2205 * 2205, 0].reshape(-1, 2205) ** 2, axis=1))[4:-4]
    assert level.min() > 0.5 * np.median(level)
    assert np.std(out[:, 0]) == pytest.approx(np.std(tones), rel=0.1)


@pytest.mark.parametrize("count", [1, 300])
def test_less_than_a_window_stays_as_long(tmp_path: Path, count: int) -> None:
    assert len(transposed(tmp_path, np.full((count, 2), 0.1), 3)) == count
