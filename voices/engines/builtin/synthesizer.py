"""The built-in engine inside one process: one sentence said in the voice of a reference."""

from __future__ import annotations

import io
import logging
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from voices.engines.interface import Piece, Reference, profile_key

from . import conversion, profiles, prosody, psola, world
from .base_voices import Base, default_cache_dir, language_module, load_base, padded, speech_level
from .conversion import Pairs, Statistics
from .languages.questions import question
from .profiles import VoiceProfile
from .prosody import TEMPO, vary_melody
from .world import Analysis, Float32

log = logging.getLogger(__name__)

OUTPUT_LEVEL = 0.08  # root mean square of a base voice's speech once converted, about -22 dBFS
PROFILE_BYTES = 96 << 20
LEAD_SECONDS, TAIL_SECONDS = 0.04, 0.08


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
        profile = profiles.measure_profile(reference)
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
            femininity, active_seconds, tempo = (float(value) for value in kept["numbers"])
            profile = VoiceProfile(
                Statistics(
                    mean=kept["mean"],
                    deviation=kept["deviation"],
                    log_f0_mean=float(kept["scalars"][0]),
                    log_f0_deviation=float(kept["scalars"][1]),
                    bandwidth=float(kept["scalars"][2]),
                    movement=float(kept["scalars"][3]),
                    pauses=float(kept["scalars"][4]),
                ),
                None,
                None,
                "",
                active_seconds,
                femininity,
                tempo=tempo,
            )
            base = self.choose_base(language, profile)
            if str(kept["version"]) != profiles.kept_version(base):
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
            "version": np.array(profiles.kept_version(base)),
            "mean": statistics.mean,
            "deviation": statistics.deviation,
            "scalars": np.array(
                [
                    statistics.log_f0_mean,
                    statistics.log_f0_deviation,
                    statistics.bandwidth,
                    statistics.movement,
                    statistics.pauses,
                ]
            ),
            "numbers": np.array([profile.femininity, profile.active_seconds, profile.tempo]),
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
        spoken = padded(world.resample(samples, sample_rate))
        analysis = world.analyze(spoken)
        keep = _speech_range(analysis)
        pairs, beta = (None, 0.0) if clear else self.pairs(base, profile)
        voiced = analysis.voiced & analysis.active
        out = conversion.convert_cepstrum(
            analysis.cepstrum, voiced, base.statistics, profile.statistics, pairs, beta, mean_only=clear
        )
        gain = conversion.differential_filter(out - analysis.cepstrum, profile.statistics.bandwidth)
        target = profile.statistics
        f0 = conversion.map_f0(analysis.f0, base.statistics, target)
        f0 = vary_melody(f0, rng, temperature)
        own_f0 = analysis.f0
        if asked := question(text, language):
            own_f0 = prosody.without_creak(own_f0)
            f0 = prosody.rise(f0, analysis, target.log_f0_mean, target.log_f0_deviation, asked)
        tempo = speed * self._tempo(base, profile)
        tempo *= float(np.exp(TEMPO * temperature * np.clip(rng.standard_normal(), -1.5, 1.5)))
        said = spoken[keep.start * psola.HOP : keep.stop * psola.HOP]
        speeds = prosody.speeds(analysis.active[keep], tempo, target.pauses * tempo / speed)
        converted = psola.render(said, own_f0[keep], f0[keep], gain[keep], speeds)
        level = speech_level(analysis) * OUTPUT_LEVEL / base.level
        loud = conversion.match_level(converted, level * np.sqrt(analysis.active[keep].mean()))
        pause = np.zeros(round(pause_seconds * target.pauses / speed * world.SAMPLE_RATE), np.float32)
        return Piece(np.concatenate([_faded(loud), pause]), world.SAMPLE_RATE, text)

    @staticmethod
    def _tempo(base: Base, profile: VoiceProfile) -> float:
        """How much faster than the base voice the speaker is: with a transcript the middle of two measures."""
        usual = base.voice.usual_tempo
        heard = prosody.tempo_by_movement(
            base.statistics.movement, profile.statistics.movement, usual, profile.active_seconds
        )
        if not profile.tempo:
            return heard
        return float(np.sqrt(heard * np.clip(profile.tempo, prosody.SLOWEST, prosody.FASTEST)))

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
        names = language_module(language).NAMES
        base = self.base(names[0] if preset == "female" else names[-1], language)
        samples, sample_rate = base.voice.speak(text, speed, np.random.default_rng(seed), temperature)
        spoken = world.resample(samples, sample_rate)
        if asked := question(text, language):
            analysis = world.analyze(spoken)
            f0 = prosody.without_creak(analysis.f0)
            own_voice = base.statistics
            risen = prosody.rise(f0, analysis, own_voice.log_f0_mean, own_voice.log_f0_deviation, asked)
            spoken = psola.render(spoken, f0, risen, np.zeros_like(analysis.log_spectrum))
        own = float(np.sqrt(np.mean(spoken**2)))
        loud = conversion.match_level(spoken, own * OUTPUT_LEVEL / base.level)
        pause = np.zeros(round(pause_seconds / speed * world.SAMPLE_RATE), np.float32)
        return Piece(np.concatenate([_faded(loud), pause]), world.SAMPLE_RATE, text)

    def choose_base(self, language: str, profile: VoiceProfile) -> Base:
        """The language's female or male base voice, whichever the reference is nearer to."""
        names = language_module(language).SOURCES
        return self.base(names[0] if profile.femininity > 0 else names[-1], language)

    def base(self, name: str, language: str) -> Base:
        """A base voice, loaded once; its statistics from the package, the cache folder, or made now (seconds)."""
        if name not in self._bases:
            voice = language_module(language).load(name)
            self._bases[name] = load_base(voice, self.cache_dir)
        return self._bases[name]

    def pairs(self, base: Base, profile: VoiceProfile) -> tuple[Pairs, float]:
        """The base voice's frames paired with the reference's, and how far to trust them. Made once a profile."""
        aligned = (base.voice.name, True)
        if (
            profile.frames
            and profile.transcript
            and profile.transcript_language == base.voice.language
            and aligned not in profile.pairs
        ):
            pairs = profiles.align(base, profile)
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


def _rounded(values: Float32) -> Float32:
    """To half precision, as they are kept: a voice sounds the same when it is read back."""
    return values.astype(np.float16).astype(np.float32)


def _speech_range(analysis: Analysis) -> slice:
    """The frames from shortly before the first active one to shortly after the last."""
    active = np.flatnonzero(analysis.active)
    start = max(0, int(active[0]) - round(LEAD_SECONDS / world.FRAME_SECONDS))
    return slice(start, int(active[-1]) + 1 + round(TAIL_SECONDS / world.FRAME_SECONDS))


def _faded(samples: Float32) -> Float32:
    """5 ms of fade at both ends, so that pieces join without a click."""
    length = min(round(0.005 * world.SAMPLE_RATE), len(samples) // 2)
    ramp = np.linspace(0, 1, length, dtype=np.float32)
    samples[:length] *= ramp
    samples[len(samples) - length :] *= ramp[::-1]
    return samples
