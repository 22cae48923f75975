"""Speech filtered and moved in pitch in its own waveform."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from tests.support.recordings import speech
from tests.support.recordings.speech import MAN, SAMPLE_RATE, SENTENCE, WOMAN, Person
from voices.engines.builtin import conversion, psola, world
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.builtin.world import Analysis, Float32, Float64
from voices.engines.interface import Reference


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture(scope="module")
def spoken() -> Float64:
    samples, rate = speech.base_voice("heart").speak(SENTENCE, 1.0, np.random.default_rng(1), 0.7)
    return world.resample(samples, rate)


@pytest.fixture(scope="module")
def analysis(spoken: Float64) -> Analysis:
    return world.analyze(spoken)


def flat(analysis: Analysis, gain: float = 0.0) -> Float32:
    return np.full_like(analysis.log_spectrum, gain)


def power_db(samples: NDArray[np.floating], low_hz: float, high_hz: float) -> float:
    frequency, power = scipy.signal.welch(samples, SAMPLE_RATE, nperseg=2048)
    return float(10 * np.log10(power[(frequency >= low_hz) & (frequency < high_hz)].sum() + 1e-20))


def test_speech_whose_pitch_and_filter_stay_comes_out_as_it_was(spoken: Float64, analysis: Analysis) -> None:
    again = psola.render(spoken, analysis.f0, analysis.f0, flat(analysis))
    assert len(again) == len(spoken)
    assert np.abs(again - spoken).max() < 1e-4


def test_marks_are_a_period_apart_in_voiced_speech_and_5_ms_elsewhere(spoken: Float64, analysis: Analysis) -> None:
    marks, voiced = psola.pitch_marks(spoken, analysis.f0)
    steps = np.diff(marks)
    assert steps.min() > 0 and steps.max() < 0.02 * SAMPLE_RATE
    both = voiced[:-1] & voiced[1:]
    hz = analysis.f0[np.rint(marks[:-1][both] / psola.HOP).astype(int)]
    assert np.median(np.abs(steps[both] * hz / SAMPLE_RATE - 1)) < 0.02
    # A single voiced frame may be passed over: how the pitch is found there differs between processors.
    frames = (marks / psola.HOP).astype(int)
    passed = [bool(analysis.f0[one : next_one + 2].any()) for one, next_one in itertools.pairwise(frames)]
    neither = ~voiced[:-1] & ~voiced[1:] & ~np.array(passed)
    assert neither.sum() > 100 and np.allclose(steps[neither], psola.HOP)


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.3])
def test_pitch_moves_by_its_factor_and_length_and_loudness_stay(
    spoken: Float64, analysis: Analysis, factor: float
) -> None:
    moved = psola.render(spoken, analysis.f0, analysis.f0 * factor, flat(analysis))
    assert len(moved) == len(spoken)
    f0, _ = world.track_f0(moved)
    both = (f0 > 0) & (analysis.f0 > 0)
    assert both.sum() > 0.8 * (analysis.f0 > 0).sum()
    assert np.median(f0[both] / analysis.f0[both]) == pytest.approx(factor, rel=0.01)
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(np.sqrt(np.mean(spoken**2)), rel=0.2)


@pytest.mark.parametrize("speed", [0.5, 0.9, 2.0])
def test_speed_changes_the_length_and_not_the_pitch(spoken: Float64, analysis: Analysis, speed: float) -> None:
    changed = psola.render(spoken, analysis.f0, analysis.f0, flat(analysis), speed)
    assert len(changed) == round(len(spoken) / speed)
    assert speech.pitch(changed.astype(np.float32)) == pytest.approx(np.median(analysis.f0[analysis.f0 > 0]), rel=0.04)


def test_the_filter_gives_each_frequency_its_gain_at_once(spoken: Float64, analysis: Analysis) -> None:
    gain = flat(analysis)
    gain[:, 256:] = -6.0
    low = psola.render(spoken, analysis.f0, analysis.f0, gain)
    lost = -6.0 * 10 / np.log(10)
    assert power_db(low, 6500, 10000) - power_db(spoken, 6500, 10000) == pytest.approx(lost, abs=1.5)
    assert power_db(low, 100, 5500) - power_db(spoken, 100, 5500) == pytest.approx(0, abs=0.2)
    # Zero phase: nothing comes later than it did.
    sections = scipy.signal.butter(4, 4000, fs=SAMPLE_RATE, output="sos")
    first, second = (scipy.signal.sosfiltfilt(sections, x) for x in (spoken, low))
    lags = scipy.signal.correlation_lags(len(first), len(second))
    assert abs(lags[np.argmax(scipy.signal.correlate(first, second, method="fft"))]) <= 1


def test_silence_stays_silence_and_noise_stays_noise() -> None:
    silence = np.zeros(SAMPLE_RATE // 2)
    noise = np.random.default_rng(3).standard_normal(SAMPLE_RATE // 2) * 0.1
    both = np.concatenate([silence, noise, silence])
    f0 = np.zeros(len(both) // psola.HOP + 1)
    gain = np.zeros((len(f0), world.BINS), np.float32)
    slow = psola.render(both, f0, f0, gain, 0.5)
    assert max(np.abs(slow[: SAMPLE_RATE - 1000]).max(), np.abs(slow[-SAMPLE_RATE + 1000 :]).max()) < 1e-6
    part = slow[SAMPLE_RATE + 1000 : 2 * SAMPLE_RATE - 1000]
    spectrum = np.correlate(part[:8000], part[:8000], "full")[8000:]
    assert spectrum[60:1200].max() < 0.6 * float(part[:8000] @ part[:8000])


def test_creaky_periods_and_an_f0_that_is_wrong_by_an_octave_leave_no_holes() -> None:
    rng = np.random.default_rng(4)
    pulses = np.zeros(SAMPLE_RATE)
    pulses[np.cumsum(rng.integers(300, 420, 60))[:60].clip(max=SAMPLE_RATE - 1)] = 1
    creak = scipy.signal.lfilter([1], [1, -1.6, 0.8], pulses) * 0.1
    for hz in (66.0, 133.0):
        f0 = np.full(len(creak) // psola.HOP + 1, hz)
        moved = psola.render(creak, f0, f0 * 1.2, np.zeros((len(f0), world.BINS), np.float32))
        assert np.isfinite(moved).all() and np.abs(moved).max() < 3 * np.abs(creak).max()
        loud = [np.sqrt(np.mean(part**2)) for part in np.array_split(moved[1000:20000], 12)]
        assert min(loud) > 0.3 * max(loud)


@pytest.mark.parametrize("person", [MAN, WOMAN], ids=["man", "woman"])
def test_a_converted_sentence_has_the_persons_pitch_and_range(synthesizer: Synthesizer, person: Person) -> None:
    profile = synthesizer.prepare(person.reference())
    texts = (SENTENCE, "You can find the tickets in the drawer under the telephone.")
    said = [synthesizer.speak(text, "en", profile, temperature=0.1, seed=2).samples for text in texts]
    median, spread = conversion.melody([world.analyze(x) for x in said])
    assert abs(median - profile.statistics.log_f0_mean) * 12 / np.log(2) < 1.5
    assert 0.5 < spread / profile.statistics.log_f0_deviation < 2


def test_nothing_is_added_above_the_band_of_the_base_voice(synthesizer: Synthesizer) -> None:
    profile = synthesizer.prepare(MAN.reference())
    said = synthesizer.speak(SENTENCE, "en", profile, seed=1).samples
    # A man is made of a woman's voice at .84 of its rate.
    assert power_db(said, 10400, 12000) < power_db(said, 100, 4000) - 60


@pytest.mark.parametrize("kind", ["short", "noisy", "telephone"])
def test_poor_references_give_whole_sentences_of_the_right_pitch(synthesizer: Synthesizer, kind: str) -> None:
    samples = WOMAN.say(speech.REFERENCE_TEXT)
    if kind == "short":
        samples = samples[: 3 * SAMPLE_RATE]
    elif kind == "noisy":
        noise = np.random.default_rng(6).standard_normal(len(samples))
        samples = (samples + 0.05 * samples.std() / noise.std() * noise * 2).astype(np.float32)
    else:
        narrow = world.resample(world.resample(samples, SAMPLE_RATE, 8000), 8000)
        samples = scipy.signal.sosfilt(
            scipy.signal.butter(4, 300, "highpass", fs=SAMPLE_RATE, output="sos"), narrow
        ).astype(np.float32)
    digest = hashlib.sha256(samples.tobytes()).hexdigest()
    profile = synthesizer.prepare(Reference(samples, SAMPLE_RATE, digest, None, "en"))
    said = synthesizer.speak(SENTENCE, "en", profile, seed=1).samples
    assert 1.5 < len(said) / SAMPLE_RATE < 5 and np.isfinite(said).all()
    assert abs(12 * np.log2(speech.pitch(said) / profile.statistics.median_hz)) < 3
