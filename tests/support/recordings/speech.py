"""Speech to test with: a base voice turned by WORLD into another person, whose every sentence can be had."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from voices.engines.builtin import world
from voices.engines.builtin.languages import english
from voices.engines.builtin.world import Float32
from voices.engines.interface import Reference

SAMPLE_RATE = world.SAMPLE_RATE
REFERENCE_TEXT = (
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow. "
    "People look, but no one ever finds it."
)
SENTENCE = "The train to the coast leaves early in the morning."


@dataclass(frozen=True)
class Person:
    """base: the voice that is altered; pitch multiplies its F0, formants its spectral envelope's frequencies."""

    base: str
    pitch: float
    formants: float

    def say(self, text: str) -> Float32:
        """float32 mono at 24 kHz, always the same for the same text."""
        return _say(self, text)

    def reference(self, text: str = REFERENCE_TEXT, transcript: str | None = None, language: str = "en") -> Reference:
        samples = self.say(text)
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        return Reference(samples, SAMPLE_RATE, digest, transcript, language)


WOMAN = Person("heart", pitch=1.2, formants=1.15)
MAN = Person("joe", pitch=1.2, formants=1.0)


@lru_cache(maxsize=2)
def base_voice(name: str) -> english.BaseVoice:
    return english.load(name)


def pitch(samples: Float32, sample_rate: int = SAMPLE_RATE) -> float:
    """Median F0 of the voiced parts in Hz."""
    f0, _ = world.track_f0(world.resample(samples, sample_rate))
    return float(np.median(f0[f0 > 0]))


def log_mel(samples: Float32, bands: int = 24) -> NDArray[np.float64]:
    """Short-time spectrum in dB on 24 mel bands up to 8 kHz, (frames, bands), 10 ms a frame, pauses left out.

    Nothing of WORLD is in it: a judge of its own for what conversion does.
    """
    _, _, spectrum = scipy.signal.stft(samples, SAMPLE_RATE, nperseg=600, noverlap=360, boundary=None)
    power = np.abs(spectrum.T) ** 2
    mel = 2595 * np.log10(1 + np.linspace(0, SAMPLE_RATE / 2, power.shape[1]) / 700)
    edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), bands + 2)
    weights = np.maximum(0, 1 - np.abs(mel[:, None] - edges[None, 1:-1]) / (edges[1] - edges[0]))
    level = 10 * np.log10(power @ weights + 1e-9)
    loud = level.max(axis=1)
    return level[loud > loud.max() - 45]


@lru_cache(maxsize=64)
def _say(person: Person, text: str) -> Float32:
    samples, rate = base_voice(person.base).speak(text, 1.0, np.random.default_rng(7), 0.7)
    spoken = world.analyze(samples, rate)
    bins = np.arange(world.BINS)
    source = np.clip(bins / person.formants, 0, world.BINS - 1)
    warped = np.stack([np.interp(source, bins, row) for row in spoken.log_spectrum]).astype(np.float32)
    noise = world.aperiodicity(world.resample(samples, rate), spoken.f0)
    aperiodicity = np.stack([np.interp(source, bins, row) for row in noise]).astype(np.float32)
    out = world.synthesize(spoken.f0 * person.pitch, warped, aperiodicity, spoken.sample_count)
    return (out / np.abs(out).max() * 0.6).astype(np.float32)
