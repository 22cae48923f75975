"""The steps of a training that need GPT-SoVITS's own models, run as common/training/steps.py has it:

    python steps.py STEP ORDER.json ANSWER.json

STEP: `embed` (whose voice each clip is), `speak` (sentences by pairs of weights, with their scores).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
# Its own folder is no place for imports: an engine's modules have such names too.
sys.path[:] = [str(HERE.parents[2]), *(path for path in sys.path if path != str(HERE.parent))]

from common import script_io  # noqa: E402
from common.script_io import ScriptError  # noqa: E402
from common.training.steps import serve, told  # noqa: E402


def embed(order: dict[str, Any]) -> dict[str, Any]:
    """{"embeddings": [[192 numbers] for each part]}: parts are [file, start, end] in seconds."""
    embedder = Embedder(order)
    found = []
    for number, (file, start, end) in enumerate(order["parts"]):
        found.append(embedder.of_part(file, start, end))
        told(number + 1, len(order["parts"]))
    return {"embeddings": found}


class Embedder:
    """The engine's own model of who speaks: ERes2NetV2 by the files of its root."""

    def __init__(self, order: dict[str, Any]) -> None:
        root = Path(order["root"])
        sys.path[:0] = [str(root), str(root / "GPT_SoVITS"), str(root / "GPT_SoVITS" / "eres2net")]
        import kaldi
        import torch
        from ERes2NetV2 import ERes2NetV2

        self._torch, self._fbank = torch, kaldi.fbank
        self._device = order["device"]
        self._model = ERes2NetV2(baseWidth=24, scale=4, expansion=4)
        self._model.load_state_dict(torch.load(order["sv"], map_location="cpu", weights_only=True))
        self._model.eval().to(self._device)

    def of_part(self, file: str, start: float, end: float) -> list[float]:
        from common import audio

        with audio.open_wav(Path(file), max_channels=8) as wav:
            wav.seek(round(start * wav.samplerate))
            sides = wav.read(round((end - start) * wav.samplerate), dtype="float32", always_2d=True)
            rate = wav.samplerate
        return self.of(audio.resampled(audio.middle(sides), rate, 16000))

    def of(self, samples: Any) -> list[float]:
        """samples: float32 (n,) at 16 kHz, a second and longer."""
        torch = self._torch
        with torch.no_grad():
            wave = torch.from_numpy(samples).unsqueeze(0).to(self._device)
            features = self._fbank(wave, num_mel_bins=80, sample_frequency=16000, dither=0)
            features = features - features.mean(dim=0, keepdim=True)  # as the model was trained
            numbers = self._model(features.unsqueeze(0))[0].float().cpu().tolist()
        return [float(number) for number in numbers]


def speak(order: dict[str, Any]) -> dict[str, Any]:
    """[{"gpt", "sovits", "takes": [{"cer", "likeness", "seconds", "error"}]}] for each pair, in their order."""
    import numpy as np
    import soundfile

    from common import audio
    from common.gptsovits.runtime import Runtime
    from common.gptsovits.weights import Weights
    from common.recognition import Recogniser
    from common.training.transcripts import error_rate

    runtime = Runtime(order["root"], order["device"], order["is_half"])
    recogniser = Recogniser(Path(order["asr"]), order["device"], order["is_half"]) if order["asr"] else None
    embedder = Embedder(order) if order["sv"] else None
    speaker = np.array(order["speaker"]) if embedder else np.zeros(0)
    answer = []
    count = len(order["pairs"]) * len(order["sentences"]) * len(order["seeds"])
    done = 0
    for number, (gpt, sovits) in enumerate(order["pairs"]):
        runtime.load(Weights(Path(gpt), Path(sovits)))
        takes = []
        for sentence_number, (text, language) in enumerate(order["sentences"]):
            for seed in order["seeds"]:
                take: dict[str, Any] = {"sentence": sentence_number, "seed": seed}
                try:
                    samples, rate = runtime.speak(
                        text,
                        language,
                        order["reference"],
                        order["reference_text"],
                        order["reference_language"],
                        seed=seed,
                        gpt_weights=gpt,
                        sovits_weights=sovits,
                    )
                    take["seconds"] = len(samples) / rate
                    low = audio.resampled(samples, rate, 16000)
                    if recogniser is not None:
                        words, _ = recogniser.hear(low, language)
                        take["cer"] = error_rate(text, "".join(word.text for word in words))
                    if embedder is not None and len(low) > 8000:
                        own = np.array(embedder.of(low))
                        take["likeness"] = float(own @ speaker / np.linalg.norm(own) / np.linalg.norm(speaker))
                    if order["folder"]:
                        name = f"{number:02d}_{sentence_number}_{seed}.wav"
                        soundfile.write(Path(order["folder"]) / name, samples, rate, subtype="PCM_16")
                except ScriptError as error:
                    if error.exit_code not in (script_io.ENGINE_FAILED, script_io.UNSPEAKABLE) or runtime.broken:
                        raise
                    take["error"] = str(error)
                takes.append(take)
                done += 1
                told(done, count)
        answer.append({"gpt": gpt, "sovits": sovits, "takes": takes})
    runtime.close()
    return {"pairs": answer}


if __name__ == "__main__":
    serve({"embed": embed, "speak": speak})
