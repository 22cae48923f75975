"""voiceproject.media.mixing: loudness, levels, peaks and lengths of a mix, and the memory it takes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile as sf
from numpy.typing import NDArray
from scipy import signal

from tests.support.recordings.audio_files import PEAK_MB, Samples, pitch, tone, voice
from voiceproject.errors import EngineError
from voiceproject.media.mixing import LoudnessMeter, loudness, mix

AnyFloat = NDArray[np.floating[Any]]

ROOT = Path(__file__).resolve().parents[2]
RATE = 44_100


def lufs(samples: AnyFloat, rate: int = RATE) -> float:
    return float(pyloudnorm.Meter(rate).integrated_loudness(samples))


def true_peak_db(samples: Samples) -> float:
    """By a filter of its own, 4x, and not the one of the code."""
    return 20 * math.log10(float(np.max(np.abs(signal.resample_poly(samples, 4, 1, axis=0)))))


def blocks(samples: AnyFloat, size: int) -> list[Any]:
    two = samples if samples.ndim == 2 else samples[:, None]
    return [two[start : start + size] for start in range(0, len(two), size)]


def wav(path: Path, samples: AnyFloat, rate: int = RATE) -> Path:
    sf.write(path, samples, rate, subtype="FLOAT")
    return path


def band(seconds: float, level: float = 0.1, seed: int = 3) -> Samples:
    """Something like a backing track: chords and noise that differ from side to side (n, 2)."""
    random = np.random.default_rng(seed)
    chord = np.sum([tone(seconds, RATE, hz, level) for hz in (110, 165, 220, 277)], axis=0)
    noise = random.normal(0, level / 4, (len(chord), 2))
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 0.3 * np.arange(len(chord)) / RATE)
    return ((chord * swell)[:, None] + noise).astype(np.float32)


class Stems:
    """vocal.wav, original.wav and backing.wav of one song, and its mix."""

    def __init__(self, folder: Path, vocal: AnyFloat, original: AnyFloat, backing: AnyFloat, rate: int = RATE) -> None:
        self.out = folder / "mix.wav"
        self.paths = (
            wav(folder / "vocal.wav", vocal, rate),
            wav(folder / "original.wav", original),
            wav(folder / "backing.wav", backing),
        )
        self.frames = len(backing)

    def mix(self, **options: float) -> Samples:
        options.setdefault("frames", self.frames)
        self.info = mix(*self.paths, self.out, **options)  # type: ignore[arg-type]
        samples, rate = sf.read(self.out, dtype="float32", always_2d=True)
        assert (rate, samples.shape[1], sf.info(self.out).subtype) == (RATE, 2, "PCM_16")
        return samples


# --- loudness


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_agrees_with_pyloudnorm_whatever_the_blocks(rate: int, channels: int) -> None:
    random = np.random.default_rng(1)
    quiet_middle = np.repeat([1, 0.01, 0.5, 0.0, 0.8, 0.003], 2 * rate)
    samples = random.normal(0, 0.1, (12 * rate, channels)) * quiet_middle[:, None]
    samples += 0.2 * tone(12, rate, 300)[:, None] * quiet_middle[:, None]
    expected = lufs(samples, rate)
    for size in (1_000, 65_536, len(samples)):
        assert loudness(blocks(samples, size), rate) == pytest.approx(expected, abs=0.1)


def test_a_full_scale_sine_on_one_side_is_minus_3_lufs() -> None:
    # The calibration point of BS.1770: 997 Hz, 0 dBFS, left or right only.
    samples = np.stack([tone(5, 48_000, 997, 1.0), np.zeros(240_000)], axis=1)
    assert loudness(blocks(samples, 4_800), 48_000) == pytest.approx(-3.01, abs=0.02)


def test_pauses_do_not_count() -> None:
    singing = tone(4, RATE, 440, 0.2)
    paused = np.concatenate([singing, np.zeros(20 * RATE, np.float32), singing])
    assert loudness(blocks(paused, 10_000), RATE) == pytest.approx(loudness(blocks(singing, 10_000), RATE), abs=0.2)


def test_silence_and_nothing_are_minus_infinity_and_a_blip_has_a_level() -> None:
    assert loudness([], RATE) == -math.inf
    assert loudness([np.zeros((RATE, 2), np.float32)], RATE) == -math.inf
    assert LoudnessMeter(RATE, 2).lufs() == -math.inf
    blip = loudness([tone(0.2, RATE, 997, 0.5)[:, None]], RATE)
    assert blip == pytest.approx(-9.03, abs=0.6)


# --- the mix


def test_the_mix_is_minus_14_lufs_exactly_as_long_and_free_of_clipping(tmp_path: Path) -> None:
    stems = Stems(tmp_path, 0.3 * voice(20, RATE), 0.5 * voice(20, RATE, seed=1), band(20))
    samples = stems.mix()
    assert len(samples) == 20 * RATE
    assert lufs(samples) == pytest.approx(-14, abs=0.3) or true_peak_db(samples) == pytest.approx(-1, abs=0.2)
    assert true_peak_db(samples) < -1
    assert stems.info.loudness_lufs == pytest.approx(lufs(samples), abs=0.1)
    assert stems.info.true_peak_dbtp == pytest.approx(true_peak_db(samples), abs=0.1)


def balance(samples: Samples) -> float:
    """The singer's 600 Hz against the backing's 110 Hz, in dB."""
    return 20 * math.log10(partial(samples, 600) / partial(samples, 110))


@pytest.mark.parametrize("level", [0.05, 0.3, 4.0])
def test_the_vocal_stands_where_the_songs_own_vocal_stood(level: float, tmp_path: Path) -> None:
    backing, original = band(10), tone(10, RATE, 600, 0.15)
    samples = Stems(tmp_path, tone(10, RATE, 600, level), original, backing).mix()
    assert balance(samples) == pytest.approx(balance(backing + original[:, None]), abs=0.5)


def test_a_nearly_empty_vocal_is_raised_by_20_db_and_no_more(tmp_path: Path) -> None:
    backing, faint = band(10), tone(10, RATE, 600, 0.003)
    stems = Stems(tmp_path, faint, tone(10, RATE, 600, 0.15), backing)
    assert balance(stems.mix()) - balance(backing + faint[:, None]) == pytest.approx(20, abs=0.5)
    assert stems.info.vocal_gain_db == 20


def partial(samples: Samples, hz: float) -> float:
    """The level of one partial on the left."""
    left = samples[:, 0] * np.hanning(len(samples))
    return float(np.abs(np.sum(left * np.exp(-2j * np.pi * hz * np.arange(len(left)) / RATE))))


@pytest.mark.parametrize(("vocal_db", "backing_db"), [(6.0, 0.0), (0.0, -6.0), (-24.0, 0.0), (24.0, -24.0)])
def test_gains_move_the_vocal_against_the_backing(vocal_db: float, backing_db: float, tmp_path: Path) -> None:
    tune = tone(10, RATE, 600, 0.15)
    stems = Stems(tmp_path, tune, tune, band(10))
    plain = stems.mix()
    moved = stems.mix(vocal_gain_db=vocal_db, instrumental_gain_db=backing_db)
    assert true_peak_db(moved) < -1

    assert balance(moved) - balance(plain) == pytest.approx(vocal_db - backing_db, abs=0.3)


def test_peaks_between_the_samples_are_held_down_too(tmp_path: Path) -> None:
    # A quarter of the rate, 45 degrees off: samples at .707 of the peak. Sparse: -14 LUFS would ask for more.
    count = 10 * RATE
    click = np.sin(2 * np.pi * np.arange(count) / 4 + np.pi / 4) * (np.arange(count) % RATE < 400)
    backing = np.repeat((0.2 * click)[:, None], 2, axis=1).astype(np.float32)
    samples = Stems(tmp_path, np.zeros(count), np.zeros(count), backing).mix()
    assert 20 * math.log10(np.max(np.abs(samples))) < -3
    assert -1.2 < true_peak_db(samples) < -1


def test_sides_of_the_backing_stay_apart_and_a_mono_vocal_is_in_the_middle(tmp_path: Path) -> None:
    backing = np.stack([tone(6, RATE, 200, 0.2), tone(6, RATE, 300, 0.2)], axis=1)
    silence = np.zeros(6 * RATE, np.float32)
    samples = Stems(tmp_path, silence, silence, backing).mix()
    assert (pitch(samples[:, 0], RATE), pitch(samples[:, 1], RATE)) == pytest.approx((200, 300), abs=0.2)
    singer = tone(6, RATE, 500, 0.2)
    samples = Stems(tmp_path, singer, singer, np.zeros((6 * RATE, 2))).mix()
    assert np.array_equal(samples[:, 0], samples[:, 1])
    assert lufs(samples) == pytest.approx(-14, abs=0.1)


@pytest.mark.parametrize("rate", [24_000, 40_000, 48_000])
def test_a_vocal_of_another_rate_and_length_lands_in_time_and_in_tune(rate: int, tmp_path: Path) -> None:
    late = np.concatenate([np.zeros(2 * rate, np.float32), tone(1, rate, 700, 0.4)])
    original = np.concatenate([np.zeros(2 * RATE, np.float32), tone(1, RATE, 700, 0.4)])
    samples = Stems(tmp_path, late, original, np.zeros((5 * RATE + 17, 2)), rate).mix()
    assert len(samples) == 5 * RATE + 17
    assert pitch(samples[2 * RATE : 3 * RATE, 0], RATE) == pytest.approx(700, abs=0.5)
    starts = int(np.argmax(np.abs(samples[:, 0]) > 0.1))
    assert starts == pytest.approx(2 * RATE, abs=60)
    assert np.max(np.abs(samples[3 * RATE + 300 :])) < 1e-3


@pytest.mark.parametrize("frames", [1, 65_535, 65_536, 65_537, 200_000])
def test_the_result_has_exactly_the_frames_that_are_asked_for(frames: int, tmp_path: Path) -> None:
    stems = Stems(tmp_path, voice(2, 24_000), tone(3), band(2.5), rate=24_000)
    assert len(stems.mix(frames=frames)) == frames


def test_a_song_of_silence_stays_silent(tmp_path: Path) -> None:
    silence = np.zeros(2 * RATE, np.float32)
    stems = Stems(tmp_path, silence, silence, np.zeros((2 * RATE, 2)))
    assert not stems.mix().any()
    assert stems.info.master_gain_db == 0


def test_a_song_without_vocals_keeps_what_the_converter_made_of_it_unraised(tmp_path: Path) -> None:
    breath = tone(5, RATE, 600, 0.001)
    stems = Stems(tmp_path, breath, np.zeros(5 * RATE), band(5))
    stems.mix()
    assert stems.info.vocal_gain_db == 0


def test_a_stem_that_is_no_audio_is_the_engines_error(tmp_path: Path) -> None:
    stems = Stems(tmp_path, voice(2, RATE), voice(2, RATE), band(2))
    broken = voice(2, RATE)
    broken[1_000] = np.nan
    wav(stems.paths[0], broken)
    with pytest.raises(EngineError):
        stems.mix()
    stems.paths[0].write_text("no audio")
    with pytest.raises(EngineError):
        stems.mix()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_length_of_a_mix(tmp_path: Path) -> None:
    minutes = np.tile(band(10), (12, 1))  # 21 MB for each of its sides
    stems = Stems(tmp_path, np.tile(voice(10, 24_000), 12), minutes[:, 0] * 0.5, minutes, rate=24_000)
    program = (
        PEAK_MB + "import sys\nimport scipy.signal\n"
        "from voiceproject.media.mixing import mix\n"
        "before = peak_mb()\n"
        "info = mix(*sys.argv[1:5], frames=120 * 44100)\n"
        "print(peak_mb() - before, info.loudness_lufs)\n"
    )
    command = [sys.executable, "-c", program, *map(str, stems.paths), str(stems.out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)
    grown_mb, level = done.stdout.split()
    assert int(grown_mb) < 40  # 24, measured; any one side of any of the three, kept whole, would be 21 more
    assert float(level) <= -13.9
    assert sf.info(stems.out).frames == 120 * RATE
