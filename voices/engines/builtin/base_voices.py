"""The features of base voices, which conversion starts from: computed once, and kept in files."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from voiceproject.errors import EngineError

from . import conversion, prosody, world
from .conversion import Frames, Statistics
from .languages.base import BaseVoice
from .world import Analysis, Float32, Float64

log = logging.getLogger(__name__)

MODULES = {"en": "english", "ja": "japanese", "zh": "chinese"}
PRECOMPUTED = Path(__file__).parent / "features"
# Part of the name of every kept file: raise it when the features change.
FEATURES_VERSION = 1
CALIBRATION_SEED = 20


@dataclass(frozen=True)
class Base:
    """A base voice with its own statistics and about 45 s of its frames; level: root mean square of its speech."""

    voice: BaseVoice
    statistics: Statistics
    frames: Frames
    level: float


def language_module(language: str) -> ModuleType:
    """The module of a language, as languages.base.Language has it. Raises EngineError where there is none."""
    if language not in MODULES:
        raise EngineError(f"The built-in engine has no voice for the language {language!r}.")
    return importlib.import_module(f".languages.{MODULES[language]}", __package__)


def analyze_base(samples: Float32, sample_rate: int) -> Analysis:
    """Analyses speech of a base voice for conversion."""
    return world.analyze(padded(world.resample(samples, sample_rate)))


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
    parts = "\n".join([str(FEATURES_VERSION), voice.version, *voice.calibration(), *voice.prose()])
    return f"base-{voice.name}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}.npz"


def make_base(voice: BaseVoice) -> dict[str, np.ndarray]:
    """Features of a base voice from its calibration sentences, as they are kept in a file (about 0.3 MB)."""
    analyses, prose = (
        [
            analyze_base(*voice.speak(text, 1.0, np.random.default_rng((CALIBRATION_SEED, number)), 0.7))
            for number, text in enumerate(texts)
        ]
        for texts in (voice.calibration(), voice.prose())
    )
    statistics = conversion.measure(analyses)
    if prose:
        statistics = conversion.with_melody(statistics, prose)
    cepstrum = np.concatenate([a.cepstrum for a in analyses])
    # Eight bits a coefficient: a step is a thirtieth of its deviation.
    low, high = cepstrum.min(axis=0), cepstrum.max(axis=0)
    step = np.maximum(high - low, 1e-6) / 255
    return {
        "mean": statistics.mean,
        "deviation": statistics.deviation,
        "log_f0": np.array([statistics.log_f0_mean, statistics.log_f0_deviation]),
        "level": np.array(np.sqrt(np.mean([speech_level(a) ** 2 for a in analyses]))),
        "low": low,
        "step": step,
        "cepstrum": np.rint((cepstrum - low) / step).astype(np.uint8),
        "voiced": np.concatenate([a.voiced & a.active for a in analyses]),
        "active": np.concatenate([a.active for a in analyses]),
        "lengths": np.array([len(a) for a in analyses]),
    }


def write_base(arrays: dict[str, Any], path: Path) -> None:
    """Writes a temporary file and renames it, so that a reader never sees half a file."""
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
        cepstrum = (kept["cepstrum"] * kept["step"] + kept["low"]).astype(np.float32)
        voiced, active = kept["voiced"], kept["active"]
        ends = np.cumsum(kept["lengths"])[:-1]
        statistics = Statistics(
            mean=kept["mean"],
            deviation=kept["deviation"],
            log_f0_mean=float(kept["log_f0"][0]),
            log_f0_deviation=float(kept["log_f0"][1]),
            movement=prosody.movement(np.split(cepstrum, ends), np.split(active, ends)),
        )
        sentences = zip(np.split(cepstrum, ends), np.split(voiced, ends), strict=True)
        match = np.concatenate([conversion.match_vectors(c, v, statistics) for c, v in sentences])
        frames = Frames(cepstrum[active], voiced[active], match[active])
        return Base(voice, statistics, frames, float(kept["level"]))


def padded(samples: Float64) -> Float64:
    """24 kHz audio with 50 ms of silence around: WORLD needs some length, and a filter some room at the ends."""
    return np.pad(samples, round(0.05 * world.SAMPLE_RATE))


def speech_level(analysis: Analysis) -> float:
    """Root mean square of the active part."""
    return analysis.level / float(np.sqrt(max(analysis.active.mean(), 1e-3)))
