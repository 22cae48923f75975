"""The features of a reference, which conversion aims at, and its alignment with a base voice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from voiceproject.errors import PublicError
from voices.engines.interface import Reference
from voices.text.languages import detect_language
from voices.text.reading import read

from . import conversion, prosody, world
from .base_voices import CALIBRATION_SEED, Base, analyze_base, base_file
from .conversion import Frames, Pairs, Statistics
from .world import Analysis, Float32

# Raise it when the computation changes, so that engine data of saved voices is computed again.
PROFILE_VERSION = 4
REFERENCE_BLOCK_SECONDS = 15.0
MIN_VOICED_FRAMES = 40

# Where female and male voices meet: F0, the geometric mean of third and fourth formants, and the natural logarithm's
# deviation of each among women or among men.
BORDER_F0_HZ, F0_DEVIATION = 160.0, 0.17
BORDER_FORMANTS_HZ, FORMANT_DEVIATION = 3320.0, 0.04

# A transcript is believed while its warped distance stays under this share of what other words give: right ones are
# at .78 to .87, half wrong ones at .92, wrong ones at .99 and more.
MAX_ALIGNED_RATIO = 0.91


@dataclass
class VoiceProfile:
    """What is known of a reference: its statistics, its frames, its transcript and the pairs with base voices.

    frames None: read from what is kept of a saved voice, with the pairs of one language's base voice. tempo: how much
    faster than that base voice the speaker said the transcript, 0 where that is not known.
    """

    statistics: Statistics
    frames: Frames | None
    transcript: str | None
    transcript_language: str
    active_seconds: float
    femininity: float
    pairs: dict[tuple[str, bool], Pairs] = field(default_factory=dict)
    tempo: float = 0.0

    @property
    def nbytes(self) -> int:
        own = self.frames.cepstrum.nbytes + self.frames.match.nbytes if self.frames else 0
        # Pairs without a transcript share their match vectors with the base voice.
        return own + sum(p.nbytes if aligned else p.delta.nbytes for (_, aligned), p in self.pairs.items())


def measure_profile(reference: Reference) -> VoiceProfile:
    """Measures a reference. Raises PublicError invalid_audio if there is no voice in it."""
    analyses, bandwidth = analyze_long(reference.samples, reference.sample_rate)
    voiced = sum(int((a.active & a.voiced).sum()) for a in analyses)
    if voiced < MIN_VOICED_FRAMES:
        message = "No voice could be found in the reference audio."
        raise PublicError(
            "invalid_audio",
            message,
            {"field": "reference_audio", "reason": "no_voice", "voiced_seconds": voiced / 200},
        )
    statistics = replace(
        conversion.measure(analyses, bandwidth),
        movement=prosody.movement([a.cepstrum for a in analyses], [a.active for a in analyses]),
        pauses=prosody.pause_factor(analyses),
    )
    frames = conversion.active_frames(analyses, statistics)
    transcript = (reference.transcript or "").strip() or None
    language = transcript_language(transcript, reference.language) if transcript else ""
    return VoiceProfile(
        statistics,
        frames,
        transcript,
        language,
        len(frames) * world.FRAME_SECONDS,
        femininity(analyses, statistics),
    )


def femininity(analyses: Sequence[Analysis], statistics: Statistics) -> float:
    """Above 0 for a voice that a female base voice is nearer to, below 0 for a male one.

    Pitch alone misleads for high male and low female voices: the third and fourth formants, which go by the length of
    the vocal tract, weigh in where the reference's bandwidth has them. Both are in deviations within one sex.
    """
    score = (statistics.log_f0_mean - np.log(BORDER_F0_HZ)) / F0_DEVIATION
    formants = world.upper_formants(analyses) if statistics.bandwidth > 1.05 * world.FORMANT_RANGE_HZ else None
    if formants is not None:
        score += (np.log(formants) - np.log(BORDER_FORMANTS_HZ)) / FORMANT_DEVIATION
    return float(score)


def analyze_long(samples: Float32, sample_rate: int) -> tuple[list[Analysis], float]:
    """Up to a minute of speech, analysed in blocks to bound memory, and its bandwidth in Hz.

    Frames count as active against the loudest parts of the whole, not of their block.
    """
    x = world.resample(samples, sample_rate)
    count = max(1, round(len(x) / (REFERENCE_BLOCK_SECONDS * world.SAMPLE_RATE)))
    analyses = [world.analyze(part) for part in np.array_split(x, count)]
    if count > 1:
        active = world.active_frames(np.concatenate([a.log_spectrum for a in analyses]))
        ends = np.cumsum([len(a) for a in analyses])[:-1]
        for analysis, mask in zip(analyses, np.split(active, ends), strict=True):
            analysis.active[:] = mask
    return analyses, world.bandwidth(x)


def align(base: Base, profile: VoiceProfile) -> Pairs | None:
    """Pairs by the transcript: the base voice says what the reference says. None where the two do not fit.

    Sets the profile's tempo where they do.
    """
    rng = np.random.default_rng(CALIBRATION_SEED)
    analyses = []
    try:
        sentences = read(profile.transcript or "", profile.transcript_language).sentences
    except PublicError:
        return None  # markup that is none, or another language
    for sentence in sentences:
        if sentence.language != base.voice.language:
            continue
        try:
            samples, sample_rate = base.voice.speak(sentence.words, 1.0, rng, 0.7)
        except PublicError:
            continue  # a sentence of signs alone
        analyses.append(analyze_base(samples, sample_rate))
    seconds = sum(int(a.active.sum()) for a in analyses) * world.FRAME_SECONDS
    if not 0.4 < seconds / profile.active_seconds < 2.5:
        return None
    assert profile.frames is not None
    spoken = conversion.active_frames(analyses, base.statistics)
    pairs, distance = conversion.pair_aligned(spoken, profile.frames)
    # The distance that other words of the same voice have to the same reference.
    count = min(len(spoken), len(base.frames))
    share = round(len(profile.frames) * count / len(spoken))
    _, other = conversion.pair_aligned(base.frames.first(count), profile.frames.first(share))
    if distance >= MAX_ALIGNED_RATIO * other:
        return None
    profile.tempo = seconds / profile.active_seconds
    return pairs


def transcript_language(transcript: str, language: str) -> str:
    if language != "auto":
        return language
    return detect_language(transcript)


def kept_version(base: Base) -> str:
    """A version of the engine data of a voice: another one whenever its computation or the base voice changes."""
    parts = [
        PROFILE_VERSION, base_file(base.voice), world.CEPSTRUM_SIZE, world.FRAME_SECONDS, world.ACTIVE_RANGE_DB,
        conversion.MATCH_SIZE, conversion.CONTEXT_SIZE, conversion.CONTEXT_FRAMES, conversion.CONTEXT_WEIGHT,
        conversion.VOICED_WEIGHT, conversion.PAIR_NEIGHBOURS, MAX_ALIGNED_RATIO,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
