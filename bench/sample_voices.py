"""Makes the studio's sample voices anew: the built-in engine's own voices, each reading a few sentences of ours.

python -m bench.sample_voices voiceproject/static/studio/voices
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soxr

from voiceproject.media import audio
from voices.engines.builtin.base_voices import language_module

SEED = 7
RATE = 24_000
PAUSE_SECONDS = 0.35
# name of the file -> language, and which of its voices (0 the woman's, 1 the man's)
VOICES = {"hazel": ("en", 0), "joe": ("en", 1), "mei": ("zh", 0), "ren": ("ja", 1)}


def main(folder: Path) -> None:
    for told in json.loads((folder / "voices.json").read_text(encoding="utf-8")):
        language, number = VOICES[told["name"]]
        module = language_module(language)
        voice = module.load(module.NAMES[number])
        rng = np.random.default_rng(SEED)
        parts = []
        for sentence in told["sentences"]:
            samples, rate = voice.speak(sentence, 1.0, rng, 0.5)
            parts += [soxr.resample(samples, rate, RATE), np.zeros(round(PAUSE_SECONDS * RATE), np.float32)]
        speech = np.concatenate(parts[:-1])
        speech *= 0.7 / np.abs(speech).max()
        (folder / f"{told['name']}.mp3").write_bytes(audio.encode(speech.astype(np.float32), RATE, "mp3"))
        print(f"{told['name']}: {len(speech) / RATE:.1f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
