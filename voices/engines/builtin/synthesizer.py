"""The built-in engine inside one process: what a reference sounds like, and one sentence said in its voice."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import logging
import os
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from voiceproject.errors import EngineError, PublicError
from voices.engines.interface import Piece, Reference, profile_key
from voices.text.languages import detect_language
from voices.text.sentences import split

from . import conversion, world
from .conversion import Frames, Pairs, Statistics
from .languages.base import BaseVoice
from .world import Analysis, Float32, Float64

log = logging.getLogger(__name__)

MODULES = {"en": "english", "ja": "japanese", "zh": "chinese"}
PRECOMPUTED = Path(__file__).parent / "features"
# Part of the name of every kept file: raise it when the features change.
FEATURES_VERSION = 1
# Part of what is kept of a saved voice, beside the numbers that decide it: raise it when its computation changes.
PROFILE_VERSION = 2
CALIBRATION_SEED = 20
REFERENCE_BLOCK_SECONDS = 15.0
MIN_VOICED_FRAMES = 40
OUTPUT_LEVEL = 0.08  # root mean square of a base voice's speech once converted, about -22 dBFS
PROFILE_BYTES = 96 << 20
LEAD_SECONDS, TAIL_SECONDS = 0.04, 0.08

# Prosody that is drawn anew for each sentence: standard deviations at temperature 1.
MELODY_SEMITONES = 0.7
MELODY_SMOOTH_FRAMES = 30
REGISTER_SEMITONES = 0.3
TEMPO = 0.02

# Where female and male voices meet: F0, the geometric mean of third and fourth formants, and the natural logarithm's
# deviation of each among women or among men.
BORDER_F0_HZ, F0_DEVIATION = 160.0, 0.17
BORDER_FORMANTS_HZ, FORMANT_DEVIATION = 3320.0, 0.04

# A transcript is believed while its warped distance stays under this share of what other words give: right ones are
# at .78 to .87, half wrong ones at .92, wrong ones at .99 and more.
MAX_ALIGNED_RATIO = 0.91


@dataclass(frozen=True)
class Base:
    """A base voice with its own statistics and about 45 s of its frames; level: root mean square of its speech."""

    voice: BaseVoice
    statistics: Statistics
    frames: Frames
    level: float


@dataclass
class VoiceProfile:
    """What is known of a reference: its statistics, its frames, its transcript and the pairs with base voices.

    frames None: read from what is kept of a saved voice, with the pairs of one language's base voice.
    """

    statistics: Statistics
    frames: Frames | None
    transcript: str | None
    transcript_language: str
    active_seconds: float
    femininity: float
    pairs: dict[tuple[str, bool], Pairs] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        own = self.frames.cepstrum.nbytes + self.frames.match.nbytes if self.frames else 0
        # Pairs without a transcript share their match vectors with the base voice.
        return own + sum(p.nbytes if aligned else p.delta.nbytes for (_, aligned), p in self.pairs.items())


class Synthesizer:
    """Speaks sentences in the voice of a reference. One thread at a time.

    cache_dir: where statistics of base voices are kept (several processes may share it). profile_bytes bounds the
    references that are remembered, the ones used longest ago are dropped first.
    """

    def __init__(self, cache_dir: Path | None = None, profile_bytes: int = PROFILE_BYTES) -> None:
        self.cache_dir = cache_dir or default_cache_dir()
        self._profile_bytes = profile_bytes
        self._profiles: OrderedDict[str, VoiceProfile] = OrderedDict()
        self._used: dict[str, float] = {}  # when a profile was, by time.monotonic()
        self._bases: dict[str, Base] = {}
        self._statistics: dict[str, Statistics] = {}

    def prepare(self, reference: Reference) -> VoiceProfile:
        """The profile of a reference; remembered by its content and transcript.

        Raises PublicError invalid_audio where no voice can be heard in it.
        """
        key = profile_key(reference)
        if key in self._profiles:
            return self._touched(key)
        analyses, bandwidth = analyze_long(reference.samples, reference.sample_rate)
        voiced = sum(int((a.active & a.voiced).sum()) for a in analyses)
        if voiced < MIN_VOICED_FRAMES:
            message = "No voice could be found in the reference audio."
            raise PublicError(
                "invalid_audio",
                message,
                {"field": "reference_audio", "reason": "no_voice", "voiced_seconds": voiced / 200},
            )
        statistics = conversion.measure(analyses, bandwidth)
        frames = conversion.active_frames(analyses, statistics)
        transcript = (reference.transcript or "").strip() or None
        language = transcript_language(transcript, reference.language) if transcript else ""
        profile = VoiceProfile(
            statistics,
            frames,
            transcript,
            language,
            len(frames) * world.FRAME_SECONDS,
            femininity(analyses, statistics),
        )
        self._profiles[key] = profile
        self._forget_old_profiles()
        return self._touched(key)

    def _touched(self, key: str) -> VoiceProfile:
        self._profiles.move_to_end(key)
        self._used[key] = time.monotonic()
        return self._profiles[key]

    def forget(self, seconds: float) -> None:
        """The profiles that were not used for so long."""
        limit = time.monotonic() - seconds
        for key in [key for key, at in self._used.items() if at <= limit]:
            del self._used[key]
            self._profiles.pop(key, None)

    def known(self, key: str, language: str) -> VoiceProfile | None:
        """The profile that `take` has read under this key, good for this language alone."""
        name = f"{key} {language}"
        return self._touched(name) if name in self._profiles else None

    def take(self, key: str, language: str, data: bytes) -> bool:
        """Reads what `keep` has given. False where it is damaged, or was made by an engine that computed otherwise."""
        try:
            profile = self._read(data, language)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("what is kept of a voice cannot be read and is made anew: %s", error)
            return False
        if profile is None:
            return False
        self._profiles[f"{key} {language}"] = profile
        self._touched(f"{key} {language}")
        self._forget_old_profiles()
        return True

    def _read(self, data: bytes, language: str) -> VoiceProfile | None:
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            femininity, active_seconds = (float(value) for value in kept["numbers"])
            profile = VoiceProfile(
                Statistics(
                    mean=kept["mean"],
                    deviation=kept["deviation"],
                    log_f0_mean=float(kept["scalars"][0]),
                    log_f0_deviation=float(kept["scalars"][1]),
                    log_aperiodicity=kept["log_aperiodicity"],
                    bandwidth=float(kept["scalars"][2]),
                ),
                None,
                None,
                "",
                active_seconds,
                femininity,
            )
            base = self.choose_base(language, profile)
            if str(kept["version"]) != kept_version(base):
                return None
            aligned = "match" in kept.files
            match = kept["match"].astype(np.float32) if aligned else base.frames.match
            delta = kept["delta"].astype(np.float32)
            if match.shape != (len(delta), base.frames.match.shape[1]) or delta.shape[1] != world.CEPSTRUM_SIZE:
                raise ValueError("arrays that do not belong together")
            profile.pairs[base.voice.name, aligned] = conversion.Pairs(match, delta)
        return profile

    def keep(self, profile: VoiceProfile, language: str) -> bytes:
        """All that speaking in this voice and language needs, as `take` reads it: a .npz of about 1 MB."""
        base = self.choose_base(language, profile)
        pairs, _ = self.pairs(base, profile)
        statistics = profile.statistics
        arrays = {
            "version": np.array(kept_version(base)),
            "mean": statistics.mean,
            "deviation": statistics.deviation,
            "scalars": np.array([statistics.log_f0_mean, statistics.log_f0_deviation, statistics.bandwidth]),
            "log_aperiodicity": statistics.log_aperiodicity,
            "numbers": np.array([profile.femininity, profile.active_seconds]),
            "delta": pairs.delta.astype(np.float16),
        }
        if (base.voice.name, True) in profile.pairs:
            arrays["match"] = pairs.match.astype(np.float16)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    def speak(
        self,
        text: str,
        language: str,
        profile: VoiceProfile,
        speed: float = 1.0,
        temperature: float = 0.7,
        seed: int | tuple[int, ...] = 0,
        pause_seconds: float = 0.0,
        clear: bool = False,
    ) -> Piece:
        """One sentence at 24 kHz, followed by a pause. Equal arguments give equal samples.

        seed: a number, or a tuple of them (request, sentence). clear: only the mean spectrum is moved, which keeps
        more of the base voice's articulation and less of the reference's sound.
        Raises PublicError validation_error (field text) where nothing can be spoken, EngineError for a language that
        the engine has no voice for.
        """
        base = self.choose_base(language, profile)
        rng = np.random.default_rng(seed)
        samples, sample_rate = base.voice.speak(text, 1.0, rng, temperature)
        analysis = analyze_base(base.voice, samples, sample_rate)
        keep = _speech_range(analysis)
        pairs, beta = (None, 0.0) if clear else self.pairs(base, profile)
        voiced = analysis.voiced & analysis.active
        out = conversion.convert_cepstrum(
            analysis.cepstrum, voiced, base.statistics, profile.statistics, pairs, beta, mean_only=clear
        )
        gain = conversion.differential_filter(out - analysis.cepstrum, profile.statistics.bandwidth)
        f0 = conversion.map_f0(analysis.f0, base.statistics, profile.statistics)
        f0 = vary_melody(f0, rng, temperature)
        aperiodicity = conversion.map_aperiodicity(
            analysis.aperiodicity, analysis.voiced, base.statistics, profile.statistics
        )
        tempo = speed * float(np.exp(TEMPO * temperature * np.clip(rng.standard_normal(), -1.5, 1.5)))
        f0, spectrum, aperiodicity = stretch(f0[keep], (analysis.log_spectrum + gain)[keep], aperiodicity[keep], tempo)
        count = round(len(f0) * world.FRAME_SECONDS * world.SAMPLE_RATE)
        spoken = world.synthesize(f0, spectrum, aperiodicity, count)
        level = _level(analysis) * OUTPUT_LEVEL / base.level
        loud = conversion.match_level(spoken, level * np.sqrt(analysis.active[keep].mean()))
        pause = np.zeros(round(pause_seconds / speed * world.SAMPLE_RATE), np.float32)
        return Piece(np.concatenate([_faded(loud), pause]), world.SAMPLE_RATE, text)

    def speak_preset(
        self,
        text: str,
        language: str,
        preset: str,
        speed: float = 1.0,
        temperature: float = 0.7,
        seed: int | tuple[int, ...] = 0,
        pause_seconds: float = 0.0,
    ) -> Piece:
        """One sentence in a base voice as it is, `female` or `male`; the rest, and what is raised, as in `speak`."""
        names = self.module(language).NAMES
        base = self.base(names[0] if preset == "female" else names[-1], language)
        samples, sample_rate = base.voice.speak(text, speed, np.random.default_rng(seed), temperature)
        spoken = world.resample(samples, sample_rate)
        own = float(np.sqrt(np.mean(spoken**2)))
        loud = conversion.match_level(spoken, own * OUTPUT_LEVEL / base.level)
        pause = np.zeros(round(pause_seconds / speed * world.SAMPLE_RATE), np.float32)
        return Piece(np.concatenate([_faded(loud), pause]), world.SAMPLE_RATE, text)

    def choose_base(self, language: str, profile: VoiceProfile) -> Base:
        """The language's female or male base voice, whichever the reference is nearer to."""
        names = self.module(language).SOURCES
        return self.base(names[0] if profile.femininity > 0 else names[-1], language)

    def base(self, name: str, language: str) -> Base:
        """A base voice, loaded once; its statistics from the package, the cache folder, or made now (seconds)."""
        if name not in self._bases:
            voice = self.module(language).load(name)
            self._bases[name] = load_base(voice, self.cache_dir)
        return self._bases[name]

    def module(self, language: str) -> ModuleType:
        if language not in MODULES:
            raise EngineError(f"The built-in engine has no voice for the language {language!r}.")
        return importlib.import_module(f".languages.{MODULES[language]}", __package__)

    def pairs(self, base: Base, profile: VoiceProfile) -> tuple[Pairs, float]:
        """The base voice's frames paired with the reference's, and how far to trust them. Made once a profile."""
        aligned = (base.voice.name, True)
        if (
            profile.frames
            and profile.transcript
            and profile.transcript_language == base.voice.language
            and aligned not in profile.pairs
        ):
            pairs = align(base, profile)
            if pairs is None:
                log.warning("the reference's transcript does not fit its audio, so it is not used")
                profile.transcript = None
            else:
                profile.pairs[aligned] = Pairs(_rounded(pairs.match), _rounded(pairs.delta))
                self._forget_old_profiles()
        if aligned in profile.pairs:
            return profile.pairs[aligned], base.voice.beta_aligned
        unaligned = (base.voice.name, False)
        if unaligned not in profile.pairs:
            assert profile.frames is not None
            pairs = conversion.pair_unaligned(base.frames, profile.frames)
            profile.pairs[unaligned] = Pairs(pairs.match, _rounded(pairs.delta))
            self._forget_old_profiles()
        return profile.pairs[unaligned], base.voice.beta

    def _forget_old_profiles(self) -> None:
        while len(self._profiles) > 1 and sum(p.nbytes for p in self._profiles.values()) > self._profile_bytes:
            self._profiles.popitem(last=False)


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


def vary_melody(f0: Float64, rng: np.random.Generator, temperature: float) -> Float64:
    """F0 with a slow random movement and a random register, both in proportion to the temperature."""
    noise = rng.standard_normal(len(f0) + 1)
    movement = gaussian_filter1d(noise[1:], MELODY_SMOOTH_FRAMES, mode="reflect")
    movement *= np.sqrt(2 * np.sqrt(np.pi) * MELODY_SMOOTH_FRAMES)  # back to unit deviation
    semitones = temperature * (MELODY_SEMITONES * movement + REGISTER_SEMITONES * noise[0])
    moved = f0 * 2 ** (np.clip(semitones, -2.5, 2.5) / 12)
    return np.where(f0 > 0, np.clip(moved, world.F0_FLOOR_HZ, world.F0_CEILING_HZ), 0.0)


def stretch(
    f0: Float64, log_spectrum: Float32, aperiodicity: Float32, speed: float
) -> tuple[Float64, Float32, Float32]:
    """WORLD's frames resampled in time to 1/speed of their number; pitch stays as it is."""
    if abs(speed - 1) < 1e-3:
        return f0, log_spectrum, aperiodicity
    count = max(2, round(len(f0) / speed))
    position = np.linspace(0, len(f0) - 1, count)
    low = np.minimum(position.astype(np.intp), len(f0) - 2)
    share = (position - low)[:, None].astype(np.float32)
    near = np.rint(position).astype(np.intp)
    both = (f0[low] > 0) & (f0[low + 1] > 0)
    mixed = f0[low] + share[:, 0] * (f0[low + 1] - f0[low])
    return (
        np.where(both, mixed, f0[near]),
        log_spectrum[low] + share * (log_spectrum[low + 1] - log_spectrum[low]),
        aperiodicity[low] + share * (aperiodicity[low + 1] - aperiodicity[low]),
    )


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


def analyze_base(voice: BaseVoice, samples: Float32, sample_rate: int) -> Analysis:
    """What a base voice has said, as it is converted."""
    return world.scale_formants(world.analyze(_padded(samples, sample_rate), sample_rate), voice.formants)


def align(base: Base, profile: VoiceProfile) -> Pairs | None:
    """Pairs by the transcript: the base voice says what the reference says. None where the two do not fit."""
    rng = np.random.default_rng(CALIBRATION_SEED)
    analyses = []
    for sentence in split(profile.transcript or "", profile.transcript_language):
        if sentence.language != base.voice.language:
            continue
        try:
            samples, sample_rate = base.voice.speak(sentence.text, 1.0, rng, 0.7)
        except PublicError:
            continue  # a sentence of signs alone
        analyses.append(analyze_base(base.voice, samples, sample_rate))
    seconds = sum(int(a.active.sum()) for a in analyses) * world.FRAME_SECONDS
    if not 0.4 < seconds / profile.active_seconds < 2.5:
        return None
    assert profile.frames is not None
    spoken = conversion.active_frames(analyses, base.statistics)
    pairs, distance = conversion.pair_aligned(spoken, profile.frames)
    # What other words of the same voice come to, laid over the same reference.
    count = min(len(spoken), len(base.frames))
    share = round(len(profile.frames) * count / len(spoken))
    _, other = conversion.pair_aligned(base.frames.first(count), profile.frames.first(share))
    return pairs if distance < MAX_ALIGNED_RATIO * other else None


def transcript_language(transcript: str, language: str) -> str:
    if language != "auto":
        return language
    return detect_language(transcript)


def default_cache_dir() -> Path:
    """BUILTIN_CACHE_DIR, else a folder of the user's own below the temporary directory."""
    return Path(os.environ.get("BUILTIN_CACHE_DIR") or Path(tempfile.gettempdir()) / f"builtin-engine-{os.getuid()}")


def load_base(voice: BaseVoice, cache_dir: Path) -> Base:
    """The features of a base voice: from the package, else from the cache folder, else made now and kept there."""
    name = base_file(voice)
    for folder in (PRECOMPUTED, cache_dir):
        if (folder / name).exists():
            try:
                return read_base(voice, folder / name)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                log.warning("%s cannot be read and is made anew: %s", folder / name, error)
    made = make_base(voice)
    write_base(made, cache_dir / name)
    return read_base(voice, cache_dir / name)


def base_file(voice: BaseVoice) -> str:
    """The name of the file with a voice's features: another one for another version or other sentences."""
    parts = "\n".join([str(FEATURES_VERSION), voice.version, *voice.calibration()])
    return f"base-{voice.name}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}.npz"


def kept_version(base: Base) -> str:
    """Changes whenever what is kept of a voice for this base voice would come out otherwise."""
    parts = [
        PROFILE_VERSION, base_file(base.voice), world.CEPSTRUM_SIZE, world.FRAME_SECONDS, world.ACTIVE_RANGE_DB,
        conversion.MATCH_SIZE, conversion.CONTEXT_SIZE, conversion.CONTEXT_FRAMES, conversion.CONTEXT_WEIGHT,
        conversion.VOICED_WEIGHT, conversion.PAIR_NEIGHBOURS, MAX_ALIGNED_RATIO,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def make_base(voice: BaseVoice) -> dict[str, np.ndarray]:
    """Features of a base voice from its calibration sentences, as they are kept in a file (about 0.3 MB)."""
    analyses = []
    for number, text in enumerate(voice.calibration()):
        samples, sample_rate = voice.speak(text, 1.0, np.random.default_rng((CALIBRATION_SEED, number)), 0.7)
        analyses.append(analyze_base(voice, samples, sample_rate))
    statistics = conversion.measure(analyses)
    cepstrum = np.concatenate([a.cepstrum for a in analyses])
    # Eight bits a coefficient: a step is a thirtieth of its deviation.
    low, high = cepstrum.min(axis=0), cepstrum.max(axis=0)
    step = np.maximum(high - low, 1e-6) / 255
    return {
        "mean": statistics.mean,
        "deviation": statistics.deviation,
        "log_f0": np.array([statistics.log_f0_mean, statistics.log_f0_deviation]),
        "log_aperiodicity": statistics.log_aperiodicity,
        "level": np.array(np.sqrt(np.mean([_level(a) ** 2 for a in analyses]))),
        "low": low,
        "step": step,
        "cepstrum": np.rint((cepstrum - low) / step).astype(np.uint8),
        "voiced": np.concatenate([a.voiced & a.active for a in analyses]),
        "active": np.concatenate([a.active for a in analyses]),
        "lengths": np.array([len(a) for a in analyses]),
    }


def write_base(arrays: dict[str, Any], path: Path) -> None:
    """Written whole under another name, then renamed: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_base(voice: BaseVoice, path: Path) -> Base:
    with np.load(path, allow_pickle=False) as kept:
        statistics = Statistics(
            mean=kept["mean"],
            deviation=kept["deviation"],
            log_f0_mean=float(kept["log_f0"][0]),
            log_f0_deviation=float(kept["log_f0"][1]),
            log_aperiodicity=kept["log_aperiodicity"],
        )
        cepstrum = (kept["cepstrum"] * kept["step"] + kept["low"]).astype(np.float32)
        voiced, active = kept["voiced"], kept["active"]
        ends = np.cumsum(kept["lengths"])[:-1]
        sentences = zip(np.split(cepstrum, ends), np.split(voiced, ends), strict=True)
        match = np.concatenate([conversion.match_vectors(c, v, statistics) for c, v in sentences])
        frames = Frames(cepstrum[active], voiced[active], match[active])
        return Base(voice, statistics, frames, float(kept["level"]))


def _rounded(values: Float32) -> Float32:
    """To half precision, as they are kept: a voice sounds the same when it is read back."""
    return values.astype(np.float16).astype(np.float32)


def _padded(samples: Float32, sample_rate: int) -> Float32:
    """With 50 ms of silence around: WORLD needs some length, and a filter some room at the ends."""
    return np.pad(samples, round(0.05 * sample_rate))


def _speech_range(analysis: Analysis) -> slice:
    """The frames from shortly before the first active one to shortly after the last."""
    active = np.flatnonzero(analysis.active)
    start = max(0, int(active[0]) - round(LEAD_SECONDS / world.FRAME_SECONDS))
    return slice(start, int(active[-1]) + 1 + round(TAIL_SECONDS / world.FRAME_SECONDS))


def _level(analysis: Analysis) -> float:
    """Root mean square of the active part."""
    return analysis.level / float(np.sqrt(max(analysis.active.mean(), 1e-3)))


def _faded(samples: Float32) -> Float32:
    """5 ms of fade at both ends, so that pieces join without a click."""
    length = min(round(0.005 * world.SAMPLE_RATE), len(samples) // 2)
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    samples[:length] *= ramp
    samples[len(samples) - length :] *= ramp[::-1]
    return samples
