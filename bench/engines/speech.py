"""Likeness, words, pitch and speed of English speech by the built-in engine, per speaker, against the bars."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.engines import corpus, scorers
from voices.engines.builtin import world
from voices.engines.builtin.profiles import VoiceProfile
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.interface import Reference

# Plain prose, none of it in the engine's calibration sentences nor in what the speakers say.
SENTENCES = (
    "The meeting was moved to Thursday afternoon because the train was late.",
    "She opened the window and looked out over the quiet garden.",
    "Most people in the village had never seen the ocean before.",
    "He asked the waiter for a glass of water and a piece of bread.",
    "The weather report promised heavy rain for the rest of the week.",
    "They walked along the river until it was too dark to see the path.",
    "A small dog followed the children all the way to school.",
    "The doctor said that the old man would be well again by summer.",
    "Nobody knew why the lights in the house were still on.",
    "We should leave early in the morning if we want a good seat.",
    "The company will open three new offices in the south next year.",
    "My brother left his keys on the kitchen table last night.",
)
GROUP = 3  # sentences that are scored together: about ten seconds of speech

BARS = {
    "default": "VF >= .70, Res >= .75, WER <= .17, VF gain >= +.20 for each",
    "clear": "VF >= .58, WER <= .09",
    "transcript": "VF >= .80, WER <= .16",
}


@dataclass
class Row:
    speaker: str
    voicefilter: float
    resemblyzer: float
    errors: int
    words: int
    pitch_cents: float
    rtf: float
    base: str
    gain: float = 0.0
    audio: list[NDArray[np.float32]] = field(default_factory=list, repr=False)

    @property
    def wer(self) -> float:
        return self.errors / self.words


def run(
    folder: Path,
    modes: tuple[str, ...],
    only: str | None = None,
    wer: bool = True,
    unseen: bool = False,
    count: int = 12,
) -> bool:
    """Prints a table for each mode; whether all bars are met."""
    synthesizer = Synthesizer(folder / "cache")
    everyone = corpus.unseen(folder) if unseen else corpus.speakers(folder)
    people = [s for s in everyone if only is None or only in s.name]
    print(f"{len(people)} speakers, references of about 10 s, {count} sentences each\n", flush=True)
    plain = {s.name: measure(synthesizer, s, "base", wer, count) for s in people}
    report("unconverted base", list(plain.values()))
    met = True
    for mode in modes:
        rows = []
        for speaker in people:
            if mode == "transcript" and speaker.transcript is None:
                continue
            row = measure(synthesizer, speaker, mode, wer, count)
            row.gain = row.voicefilter - plain[speaker.name].voicefilter
            rows.append(row)
        if rows:
            met &= report(mode, rows)
    return met


def measure(synthesizer: Synthesizer, speaker: corpus.Speaker, mode: str, wer: bool, count: int) -> Row:
    transcript = speaker.transcript if mode == "transcript" else None
    digest = hashlib.sha256(speaker.reference.tobytes()).hexdigest()
    reference = Reference(speaker.reference, corpus.SAMPLE_RATE, digest, transcript, "en")
    started = time.perf_counter()
    profile = synthesizer.prepare(reference)
    base = synthesizer.choose_base("en", profile)
    audio = [_speak(synthesizer, profile, text, number, mode) for number, text in enumerate(SENTENCES[:count])]
    elapsed = time.perf_counter() - started
    rate = world.SAMPLE_RATE
    errors = said = 0
    if wer:
        for text, samples in zip(SENTENCES, audio, strict=False):
            errors += scorers.word_errors(scorers.words(text), scorers.recognise(samples, rate))
    said = sum(len(scorers.words(text)) for text in SENTENCES[:count])
    groups = [np.concatenate(audio[i : i + GROUP]) for i in range(0, count, GROUP)]
    return Row(
        speaker.name,
        _likeness(scorers.voicefilter, groups, speaker),
        _likeness(scorers.resemblyzer, groups, speaker),
        errors,
        said,
        1200 / np.log(2) * (_log_pitch(np.concatenate(audio)) - _log_pitch(speaker.held_out)),
        elapsed / (sum(map(len, audio)) / rate),
        base.voice.name,
        audio=audio,
    )


def report(title: str, rows: list[Row]) -> bool:
    print(f"## {title}" + (f"  (bars: {BARS[title]})" if title in BARS else ""))
    print(f"{'speaker':20} {'base':6} {'VF':>6} {'gain':>6} {'Res':>6} {'WER':>6} {'cents':>6} {'RTF':>5}")
    for r in rows:
        print(
            f"{r.speaker:20} {r.base:6} {r.voicefilter:6.3f} {r.gain:+6.3f} {r.resemblyzer:6.3f} {r.wer:6.3f} "
            f"{r.pitch_cents:+6.0f} {r.rtf:5.2f}"
        )
    vf, res = (float(np.mean([getattr(r, key) for r in rows])) for key in ("voicefilter", "resemblyzer"))
    wer = sum(r.errors for r in rows) / sum(r.words for r in rows)
    gain, rtf = float(np.mean([r.gain for r in rows])), float(np.mean([r.rtf for r in rows]))
    cents = float(np.mean([abs(r.pitch_cents) for r in rows]))
    print(f"{'mean':20} {'':6} {vf:6.3f} {gain:+6.3f} {res:6.3f} {wer:6.3f} {cents:6.0f} {rtf:5.2f}")
    met = rtf <= 0.5
    if title == "default":
        met &= vf >= 0.70 and res >= 0.75 and wer <= 0.17 and min(r.gain for r in rows) >= 0.20
    elif title == "clear":
        met &= vf >= 0.58 and wer <= 0.09
    elif title == "transcript":
        met &= vf >= 0.80 and wer <= 0.16
    if title in BARS:
        print("bars met" if met else "BARS MISSED")
    print(flush=True)
    return met


def _speak(synthesizer: Synthesizer, profile: VoiceProfile, text: str, number: int, mode: str) -> NDArray[np.float32]:
    if mode == "base":
        base = synthesizer.choose_base("en", profile)
        samples, rate = base.voice.speak(text, 1.0, np.random.default_rng((1, number)), 0.7)
        return world.resample(samples, rate).astype(np.float32)
    return synthesizer.speak(text, "en", profile, seed=(1, number), clear=mode == "clear").samples


def _likeness(
    encoder: Callable[[NDArray[np.float32], int], NDArray[np.float64]],
    groups: list[NDArray[np.float32]],
    speaker: corpus.Speaker,
) -> float:
    """Mean cosine of each group of sentences against speech of the speaker that the engine was not given."""
    target = encoder(speaker.held_out, corpus.SAMPLE_RATE)
    return float(np.mean([scorers.cosine(encoder(g, world.SAMPLE_RATE), target) for g in groups]))


def _log_pitch(samples: NDArray[np.float32]) -> float:
    f0, _ = world.track_f0(samples.astype(np.float64))
    return float(np.median(np.log(f0[f0 > 0])))
