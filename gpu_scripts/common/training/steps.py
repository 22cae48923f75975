"""What needs torch or a recogniser, as programs of their own: their memory is free again when training begins.

    python steps.py STEP ORDER.json ANSWER.json

STEP: `probe` (what this interpreter has), `embed` (whose voice each clip is), `transcribe`, `inspect` (weights),
`speak` (sentences by pairs of weights, with their scores). The answer appears whole. stdout: `DONE 3 12`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common import script_io
from common.script_io import ScriptError


def probe(order: dict[str, Any]) -> dict[str, Any]:
    """{"missing": [packages], "cuda": bool, "gpu_bytes": n, "torch": version}."""
    missing = [name for name in order["packages"] if importlib.util.find_spec(name) is None]
    answer: dict[str, Any] = {"missing": missing, "cuda": False, "gpu_bytes": 0, "torch": ""}
    if "torch" not in missing:
        import torch

        answer["torch"] = str(torch.__version__)
        answer["cuda"] = bool(torch.cuda.is_available())
        if answer["cuda"]:
            answer["gpu_bytes"] = int(torch.cuda.get_device_properties(0).total_memory)
    return answer


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


def transcribe(order: dict[str, Any]) -> dict[str, Any]:
    """{name: {"language", "words": [[text, start, end]]}} of the clips, [name, wav] each."""
    from common import audio
    from common.recognition import Recogniser

    recogniser = Recogniser(Path(order["model"]), order["device"], order["is_half"])
    answer = {}
    for number, (name, path) in enumerate(order["clips"]):
        samples, rate, _ = audio.read_mono(Path(path))
        words, language = recogniser.hear(audio.resampled(samples, rate, 16000), order["language"] or None)
        answer[name] = {"language": language, "words": [[word.text, word.start, word.end] for word in words]}
        told(number + 1, len(order["clips"]))
    return answer


def inspect(order: dict[str, Any]) -> dict[str, Any]:
    """{path: {"tensors", "finite", "changed"}}, "error" where it cannot be loaded. The files are [path, base], our own
    results and the engine's bases; changed: how many tensors differ from the base's."""
    import torch

    def weights(path: str) -> dict[str, Any]:
        content = Path(path).read_bytes()
        # Pro weights have a version where a zip file has PK.
        found = torch.load(io.BytesIO(b"PK" + content[2:]), map_location="cpu", weights_only=False)
        return dict(found["weight"])

    answer: dict[str, Any] = {}
    bases: dict[str, dict[str, Any]] = {}
    sys.path[:0] = order["path"]  # the engine's pickles name its classes
    for number, (path, base) in enumerate(order["files"]):
        try:
            made = weights(path)
        except Exception as error:
            answer[path] = {"error": f"{type(error).__name__}: {error}"[:300]}
            continue
        if base and base not in bases:
            bases[base] = weights(base)
        known = bases.get(base, {})
        changed = 0
        for name, tensor in made.items():
            other = known.get(name)
            changed += other is None or not torch.equal(tensor.half(), other.half())
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in made.values())
        answer[path] = {"tensors": len(made), "finite": finite, "changed": changed}
        told(number + 1, len(order["files"]))
    return answer


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


def told(done: int, count: int) -> None:
    print(f"DONE {done} {count}", file=sys.__stdout__, flush=True)


STEPS = {"probe": probe, "embed": embed, "transcribe": transcribe, "inspect": inspect, "speak": speak}


def main(argv: list[str]) -> None:
    from common.training.work import write_json

    step, order, answer = argv
    found = STEPS[step](json.loads(Path(order).read_text("utf-8")))
    write_json(Path(answer), found)
    sys.stdout.flush()
    os._exit(0)  # engines leave threads behind that would be waited for


if __name__ == "__main__":
    script_io.run(main)
