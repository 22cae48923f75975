"""Words with times, heard by faster-whisper with a model in a folder of this machine; nothing is ever fetched."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import script_io
from common.failures import OUT_OF_MEMORY
from common.script_io import ScriptError

RATE = 16000
MODEL_FILES = ("model.bin", "config.json", "tokenizer.json", "preprocessor_config.json")
WHERE_THE_ENGINE_KEEPS_MODELS = "tools/asr/models"

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W_])+(?:['’](?:(?![{_CJK}])[^\W_])+)*")


@dataclass(frozen=True)
class Heard:
    """One recognised word: seconds of the audio. gap: it begins a segment of the recogniser."""

    text: str
    start: float
    end: float
    gap: bool = False


def units(text: str) -> list[str]:
    """The words of a text, lower case; of Chinese and Japanese each character."""
    return [unit.lower().replace("’", "'") for unit in _UNIT.findall(text)]


def unit_starts(text: str) -> list[int]:
    """Where each of the units begins in the text."""
    return [match.start() for match in _UNIT.finditer(text)]


def find_model(named: Path | None, project_root: Path) -> Path | None:
    """The folder of the recogniser: the one that is named, else the largest complete one where the engine keeps them.

    Raises ScriptError (2) where the named one is not complete: the library would ask a hub for what is missing.
    """
    if named is not None:
        missing = missing_files(named)
        if missing:
            raise ScriptError(script_io.BAD_ARGUMENTS, f"the recogniser's folder {named} has no {', '.join(missing)}")
        return named
    kept = [p for p in (project_root / WHERE_THE_ENGINE_KEEPS_MODELS).glob("*whisper*") if not missing_files(p)]
    return max(kept, key=lambda p: (p / "model.bin").stat().st_size, default=None)


def missing_files(folder: Path) -> list[str]:
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    return missing + ([] if any(folder.glob("vocabulary.*")) else ["vocabulary.*"])


class Recogniser:
    """faster-whisper on a local folder. Raises ScriptError: 13 the package is not there, 7, 11 it cannot be loaded."""

    def __init__(self, folder: Path, device: str, is_half: bool) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ScriptError(script_io.NO_LYRICS, "this interpreter has no faster_whisper") from error
        kind, _, number = device.partition(":")
        compute = "int8" if kind == "cpu" else "float16" if is_half else "float32"
        try:
            self._model: Any = WhisperModel(
                str(folder), device=kind, device_index=int(number or 0), compute_type=compute, local_files_only=True
            )
        except Exception as error:
            raise _failed(error, "the recogniser cannot be loaded") from error

    def hear(
        self,
        samples: NDArray[np.float32],
        language: str | None = None,
        tell: Callable[[float], None] = lambda done: None,
    ) -> tuple[list[Heard], str]:
        """Words in 16 kHz mono audio (n,), and the language: `en`, `zh`, ... Raises ScriptError: 7, 11.

        tell: hears how far it is, 0 to 1; half a minute of audio is recognised at a time.
        """
        words: list[Heard] = []
        try:
            # Its voice detection has erased sung tracks, and earlier text makes it repeat itself.
            segments, info = self._model.transcribe(
                samples,
                language=language,
                word_timestamps=True,
                vad_filter=False,
                condition_on_previous_text=False,
            )
            for segment in segments:
                first = True
                for word in segment.words or ():
                    if units(word.word) and word.end > word.start:
                        words.append(Heard(word.word, float(word.start), float(word.end), first))
                        first = False
                tell(min(1.0, segment.end * RATE / max(1, len(samples))))
        except Exception as error:
            raise _failed(error, "the recogniser failed") from error
        return words, str(info.language)


def _failed(error: Exception, doing: str) -> ScriptError:
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return ScriptError(script_io.OUT_OF_MEMORY, f"{doing}: out of memory")
    return ScriptError(script_io.ENGINE_FAILED, f"{doing}: {type(error).__name__}")
