"""What needs torch or a recogniser, as programs of their own: their memory is free again when training begins.

    python steps.py STEP ORDER.json ANSWER.json

STEP: `probe` (what this interpreter has), `transcribe`, `inspect` (weights). The answer appears whole. stdout: `DONE 3
12`. An engine's own steps are programs of their own, with `serve`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve()
# Its own folder is no place for imports: an engine's modules have such names too.
sys.path[:] = [str(HERE.parents[2]), *(path for path in sys.path if path != str(HERE.parent))]

from common import script_io  # noqa: E402

Step = Callable[[dict[str, Any]], Any]


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


def told(done: int, count: int) -> None:
    print(f"DONE {done} {count}", file=sys.__stdout__, flush=True)


STEPS: dict[str, Step] = {"probe": probe, "transcribe": transcribe, "inspect": inspect}


def serve(steps: Mapping[str, Step]) -> NoReturn:
    """Runs the step that the command line names."""

    def main(argv: list[str]) -> None:
        from common.training.work import write_json

        step, order, answer = argv
        write_json(Path(answer), steps[step](json.loads(Path(order).read_text("utf-8"))))
        sys.stdout.flush()
        os._exit(0)  # engines leave threads behind that would be waited for

    script_io.run(main)


if __name__ == "__main__":
    serve(STEPS)
