"""A `faster_whisper` package that knows what is said: for the tests of gptsovits_infer.py.

`build(folder)` lays out the package and a model's folder. It has the real names and signatures (1.1), yields segments
lazily and logs each call; what is heard is looked up by the length of the audio, in `heard.json` of the model's folder:
{"<samples at 16 kHz>": {"language": "en", "segments": [[["Over", 0.1, 0.4], ...], ...]}}. Other audio has no words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("model.bin", "config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.json")


class Word(NamedTuple):
    start: float
    end: float
    word: str
    probability: float


class Segment(NamedTuple):
    id: int
    start: float
    end: float
    text: str
    words: list[Word] | None


class TranscriptionInfo(NamedTuple):
    language: str
    language_probability: float
    duration: float


def build(folder: Path) -> tuple[Path, Path]:
    """(what belongs on PYTHONPATH, the model's folder)."""
    package = folder / "packages" / "faster_whisper"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"import sys\nsys.path.append({str(REPOSITORY)!r})\n"
        "from tests.scripts.fake_faster_whisper import WhisperModel\n"
    )
    model = folder / "faster-whisper-test"
    model.mkdir()
    for name in FILES:
        (model / name).write_text("{}")
    return package.parent, model


def knows(model: Path, sentences: dict[int, list[list[tuple[str, float, float]]]], language: str = "en") -> None:
    """What is heard in audio of so many samples: segments of words."""
    heard = {str(count): {"language": language, "segments": segments} for count, segments in sentences.items()}
    (model / "heard.json").write_text(json.dumps(heard))


class WhisperModel:
    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | None = None,
        local_files_only: bool = False,
        files: dict[str, Any] | None = None,
        **model_kwargs: Any,
    ) -> None:
        self.folder = Path(model_size_or_path)
        if not self.folder.is_dir():
            raise RuntimeError("the real one would ask a hub now")

    def transcribe(
        self,
        audio: str | np.ndarray,
        language: str | None = None,
        task: str = "transcribe",
        log_progress: bool = False,
        beam_size: int = 5,
        *,
        condition_on_previous_text: bool = True,
        word_timestamps: bool = False,
        vad_filter: bool = False,
    ) -> tuple[Iterable[Segment], TranscriptionInfo]:
        assert isinstance(audio, np.ndarray) and audio.dtype == np.float32 and audio.ndim == 1
        assert word_timestamps and not vad_filter and not condition_on_previous_text
        known = json.loads((self.folder / "heard.json").read_text()) if (self.folder / "heard.json").exists() else {}
        found = known.get(str(len(audio)), {"language": language or "en", "segments": []})
        return self._segments(found["segments"]), TranscriptionInfo(found["language"], 0.9, len(audio) / 16000)

    def _segments(self, segments: list[list[tuple[str, float, float]]]) -> Iterator[Segment]:
        for number, words in enumerate(segments):
            made = [Word(start, end, f" {text}", 0.9) for text, start, end in words]
            yield Segment(number, made[0].start, made[-1].end, "".join(w.word for w in made), made)
