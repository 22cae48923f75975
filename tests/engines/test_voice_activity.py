"""Where somebody sings: what the detector says of voices, instruments and what is neither."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from tests.support.recordings import songs
from voices.engines.builtin import voice_activity
from voices.engines.builtin.voice_activity import FRAME_SECONDS, SAMPLE_RATE

SECONDS = 8.0
N = int(SECONDS * SAMPLE_RATE)


def low(samples: songs.Audio) -> np.ndarray:
    """(n,) or (n, 2) at 44.1 kHz -> float32 (n,) at 16 kHz."""
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    return soxr.resample(mono, songs.RATE, SAMPLE_RATE).astype(np.float32)[:N]


def instrument(kind: str, *, steady: bool = False) -> np.ndarray:
    """A melody within a voice's range, without words: with the vibrato and the slides of a singer, or with neither."""
    hz = np.repeat(songs.melody(SECONDS, 262.0, 4), SAMPLE_RATE // 200)[:N]
    if steady:
        hz = 262.0 * 2 ** (np.round(12 * np.log2(hz / 262.0)) / 12)
        hz = np.repeat(hz[:: SAMPLE_RATE // 2], SAMPLE_RATE // 2)[:N]
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE
    amplitudes = {
        "strings": [1 / k for k in range(1, 13)],
        "flute": [1, 0.25, 0.06, 0.02],
        "reed": [1 / k if k % 2 else 0.15 / k for k in range(1, 14)],
        "vowel": [
            np.exp(-((262 * k / 700 - 1) ** 2)) + 0.4 * np.exp(-((262 * k / 1150 - 1) ** 2)) for k in range(1, 20)
        ],
    }[kind]
    tone = sum(a * np.sin((k + 1) * phase) for k, a in enumerate(amplitudes))
    breath = np.random.default_rng(1).normal(0, 0.02, N)
    bow = 0.6 + 0.4 * np.abs(np.sin(np.pi * 1.7 * np.arange(N) / SAMPLE_RATE))
    return (0.1 * (tone * bow + breath)).astype(np.float32)


def nothing(kind: str) -> np.ndarray:
    rng = np.random.default_rng(2)
    return {
        "silence": np.zeros(N),
        "dc": np.full(N, 0.3),
        "noise": rng.normal(0, 0.1, N),
        "hum": 0.2 * np.sin(2 * np.pi * 50 * np.arange(N) / SAMPLE_RATE),
    }[kind].astype(np.float32)


@pytest.fixture(scope="module")
def band() -> np.ndarray:
    return low(songs.song(12.0)[2])


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    return low(songs.song(12.0)[1])


@pytest.mark.parametrize("kind", ["strings", "flute", "reed", "vowel"])
@pytest.mark.parametrize("alone", [False, True])
def test_only_a_melody_that_glides_as_a_singers_may_be_sung(kind: str, alone: bool, band: np.ndarray) -> None:
    rest = np.zeros_like(band) if alone else band
    steady, gliding = (voice_activity.detect(instrument(kind, steady=steady), rest) for steady in (True, False))
    assert (steady.heard, steady.seconds) == ("nobody", 0)
    assert gliding.heard == "melody" and gliding.seconds > 0.8 * SECONDS
    assert min(steady.pitched_seconds, gliding.pitched_seconds) > 0.8 * SECONDS


@pytest.mark.parametrize("kind", ["silence", "dc", "noise", "hum"])
def test_what_is_no_sound_of_a_voice_is_none(kind: str, band: np.ndarray) -> None:
    found = voice_activity.detect(nothing(kind), band)
    assert found.heard == "nobody"
    assert found.pitched_seconds < 0.5 or kind == "hum"


def test_a_voice_is_found_and_speech_too(voice: np.ndarray, band: np.ndarray) -> None:
    for gain in (1.0, 0.4):
        found = voice_activity.detect(voice * np.float32(gain), band)
        assert found.heard == "words" and found.seconds > 0.8 * SECONDS
    spoken = soxr.resample(np.concatenate([songs.speech(line) for line in songs.LINES]), 24000, SAMPLE_RATE)
    assert voice_activity.detect(spoken.astype(np.float32), np.zeros(len(spoken), np.float32)).heard == "words"
    assert not voice_activity.heard(np.stack([band, band], axis=1))
    assert voice_activity.heard(np.stack([voice + band, voice + band], axis=1))
    assert voice_activity.heard(np.stack([band + voice, band - voice], axis=1))  # one side of it inverted


def test_an_intro_and_a_break_are_not_sung_and_the_verses_are_whole(voice: np.ndarray, band: np.ndarray) -> None:
    quiet = instrument("strings") * np.float32(0.3)  # what a separator leaves of instruments in the vocal stem
    verse = voice[: 4 * SAMPLE_RATE]
    stem = np.concatenate([quiet, verse, quiet[: 4 * SAMPLE_RATE], verse])
    found = voice_activity.detect(stem, np.tile(band, 3)[: len(stem)])
    at = np.arange(len(found.sung)) * FRAME_SECONDS
    sung = found.sung
    assert not sung[at < 7.5].any()
    assert not sung[(at > 12.8) & (at < 15.5)].any()
    for start, end in ((8.3, 11.8), (16.3, 19.8)):
        assert sung[(at > start) & (at < end)].mean() > 0.95


def test_a_held_note_stays_with_the_words_before_it(voice: np.ndarray) -> None:
    held = 0.2 * sum(np.sin(2 * np.pi * 220 * k * np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE) / k for k in range(1, 9))
    verse = voice[: 4 * SAMPLE_RATE]
    stem = np.concatenate([verse, held.astype(np.float32) * np.std(verse) / np.std(held), np.zeros(SAMPLE_RATE)])
    stem = stem.astype(np.float32)
    found = voice_activity.detect(stem, np.zeros_like(stem))
    at = np.arange(len(found.sung)) * FRAME_SECONDS
    assert found.sung[(at > 4.2) & (at < 6.8)].all()
    assert not found.sung[at > 7.5].any()
    assert found.pitch_hz[(at > 4.5) & (at < 6.5)] == pytest.approx(220, rel=0.03)


def test_edges_are_smooth_and_lie_outside_of_what_is_sung() -> None:
    sung = np.zeros(100, bool)
    sung[30:60] = True
    rate = 44_100
    whole = voice_activity.gains(sung, 0, round(3.2 * rate), rate)
    assert np.max(np.abs(np.diff(whole))) < 2 / (0.03 * rate)
    assert whole[: round(0.9 * rate)].max() == 0 and whole[round(2.0 * rate) :].max() == 0
    assert whole[round(1.0 * rate) : round(1.85 * rate)].min() > 0.99
    parts = [voice_activity.gains(sung, at, 1000, rate) for at in range(0, 140_000, 1000)]
    np.testing.assert_allclose(np.concatenate(parts), whole[:140_000], atol=1e-6)
