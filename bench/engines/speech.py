"""Likeness, words, pitch and speed of English speech by the built-in engine, per speaker, against the bars."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.engines import corpus, scorers
from bench.engines.pace import pace, speech_seconds
from voices.engines.builtin import conversion, world
from voices.engines.builtin.profiles import VoiceProfile
from voices.engines.builtin.synthesizer import Synthesizer
from voices.engines.interface import Reference
from voices.text.reading import read

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

# Least VF and DM, most WER. Of speakers that nothing was tuned on less is asked.
BARS = {"default": (0.74, 3.9, 0.09), "clear": (0.60, 4.2, 0.07), "transcript": (0.82, 4.0, 0.09)}
NEW_BARS = {"default": (0.70, 3.8, 0.09)}
MAX_RTF = 0.15


@dataclass
class Row:
    speaker: str
    voicefilter: float
    resemblyzer: float
    errors: int
    words: int
    distillmos: float
    dnsmos: float
    pitch_cents: float
    range_ratio: float
    pace_ratio: float
    rate_ratio: float
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
    group: str = "known",
    count: int = 12,
) -> bool:
    """Prints a table for each mode; whether all bars are met. group: known, checked or new (see corpus.py)."""
    synthesizer = Synthesizer(folder / "cache")
    people = [s for s in corpus.GROUPS[group](folder) if only is None or only in s.name]
    print(f"{len(people)} speakers ({group}), references of about 10 s, {count} sentences each\n", flush=True)
    plain = {s.name: measure(synthesizer, s, "base", wer, count) for s in people}
    report("unconverted base", list(plain.values()))
    bars = BARS if group == "known" else NEW_BARS
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
            met &= report(mode, rows, bars.get(mode))
    return met


def measure(synthesizer: Synthesizer, speaker: corpus.Speaker, mode: str, wer: bool, count: int) -> Row:
    transcript = speaker.transcript if mode == "transcript" else None
    digest = hashlib.sha256(speaker.reference.tobytes()).hexdigest()
    reference = Reference(speaker.reference, corpus.SAMPLE_RATE, digest, transcript, "en")
    profile = synthesizer.prepare(reference)
    base = synthesizer.choose_base("en", profile)
    synthesizer.pairs(base, profile)
    started = time.process_time()  # of this process: others may be at work on the machine
    audio = [_speak(synthesizer, profile, text, number, mode) for number, text in enumerate(SENTENCES[:count])]
    elapsed = time.process_time() - started
    rate = world.SAMPLE_RATE
    errors = said = 0
    if wer:
        for text, samples in zip(SENTENCES, audio, strict=False):
            errors += scorers.word_errors(scorers.words(text), scorers.recognise(samples, rate))
    said = sum(len(scorers.words(text)) for text in SENTENCES[:count])
    groups = [np.concatenate(audio[i : i + GROUP]) for i in range(0, count, GROUP)]
    own, wanted = ([world.analyze(x) for x in parts] for parts in (audio, np.array_split(speaker.held_out, 3)))
    (median, spread), (wanted_median, wanted_spread) = conversion.melody(own), conversion.melody(wanted)
    return Row(
        speaker.name,
        _likeness(scorers.voicefilter, groups, speaker),
        _likeness(scorers.resemblyzer, groups, speaker),
        errors,
        said,
        float(np.mean([scorers.distillmos(g, rate) for g in groups])),
        float(np.mean([scorers.dnsmos(g, rate) for g in groups])),
        1200 / np.log(2) * (median - wanted_median),
        spread / wanted_spread,
        pace(own) / pace(wanted),
        same_words(synthesizer, profile, speaker, mode),
        elapsed / (sum(map(len, audio)) / rate),
        base.voice.name,
        audio=audio,
    )


def same_words(synthesizer: Synthesizer, profile: VoiceProfile, speaker: corpus.Speaker, mode: str) -> float:
    """How much faster the engine says words that the speaker is known to have said; nan where none are known."""
    if speaker.said is None:
        return float("nan")
    texts = [sentence.words for sentence in read(speaker.text, "en").sentences]
    own = [world.analyze(_speak(synthesizer, profile, text, number, mode)) for number, text in enumerate(texts)]
    return speech_seconds([world.analyze(speaker.said)]) / speech_seconds(own)


def report(title: str, rows: list[Row], bars: tuple[float, float, float] | None = None) -> bool:
    print(f"## {title}" + ("  (bars: VF >= {}, DM >= {}, WER <= {})".format(*bars) if bars else ""))
    print(
        f"{'speaker':20} {'base':9} {'VF':>6} {'gain':>6} {'Res':>6} {'WER':>6} {'DM':>5} {'DNS':>5} "
        f"{'cents':>6} {'range':>6} {'pace':>5} {'rate':>5} {'RTF':>5}"
    )
    for r in rows:
        print(
            f"{r.speaker:20} {r.base:9} {r.voicefilter:6.3f} {r.gain:+6.3f} {r.resemblyzer:6.3f} {r.wer:6.3f} "
            f"{r.distillmos:5.2f} {r.dnsmos:5.2f} {r.pitch_cents:+6.0f} {r.range_ratio:6.2f} {r.pace_ratio:5.2f} "
            f"{r.rate_ratio:5.2f} {r.rtf:5.2f}"
        )

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    wer = sum(r.errors for r in rows) / sum(r.words for r in rows)
    vf, dm = mean(r.voicefilter for r in rows), mean(r.distillmos for r in rows)
    rtf = mean(r.rtf for r in rows)
    known = [abs(r.rate_ratio - 1) for r in rows if not np.isnan(r.rate_ratio)]
    # Of pitch, range, pace and rate the mean of how far off they are.
    print(
        f"{'mean':20} {'':9} {vf:6.3f} {mean(r.gain for r in rows):+6.3f} {mean(r.resemblyzer for r in rows):6.3f} "
        f"{wer:6.3f} {dm:5.2f} {mean(r.dnsmos for r in rows):5.2f} {mean(abs(r.pitch_cents) for r in rows):6.0f} "
        f"{mean(abs(r.range_ratio - 1) for r in rows):6.2f} {mean(abs(r.pace_ratio - 1) for r in rows):5.2f} "
        f"{mean(known) if known else float('nan'):5.2f} {rtf:5.2f}"
    )
    met = rtf <= MAX_RTF
    if bars:
        met &= vf >= bars[0] and dm >= bars[1] and wer <= bars[2]
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
