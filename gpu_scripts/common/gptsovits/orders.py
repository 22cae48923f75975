"""What a client asks of gptsovits_server.py: the parts of a form checked, and what it is told instead of audio."""

from __future__ import annotations

import io
import math
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from starlette.datastructures import UploadFile

from common import script_io
from common.script_io import ScriptError

from .references import MAX_REFERENCE_SECONDS, MIN_REFERENCE_SECONDS
from .runtime import MAX_SEED

MAX_TEXT, MAX_REFERENCE_TEXT = 5000, 1000
_LANGUAGE = re.compile(r"[a-z_]{2,10}")


class Refusal(Exception):
    """An answer that is not audio: HTTP status, code, and a sentence for a person."""

    def __init__(self, status: int, error: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True)
class Order:
    """A request whose parts have been checked. reference: mono PCM16 WAV."""

    text: str
    language: str
    reference: bytes
    reference_text: str
    reference_language: str
    speed: float
    temperature: float
    seed: int
    model_id: str
    gpt_weights: str
    sovits_weights: str

    @property
    def model(self) -> str:
        """What names its weights: explicit ones win over `model_id`."""
        return f"{self.gpt_weights}+{self.sovits_weights}" if self.sovits_weights else self.model_id


def parse(form: Any, root: Path) -> Order:
    """Checks the parts of a form. Raises Refusal (400, 422)."""
    text = _text(form, "text", MAX_TEXT)
    if not text:
        raise Refusal(400, "bad_request", "text is required.")
    if not any(char.isalnum() for char in text):
        raise Refusal(422, "unspeakable", "The text has no letter and no digit.")
    seed = _number(form, "seed", -1, -1, MAX_SEED)
    if seed != int(seed):
        raise Refusal(400, "bad_request", "seed must be a whole number.")
    weights = {name: _text(form, name, 1000) for name in ("gpt_weights", "sovits_weights")}
    if any(weights.values()) and not all(weights.values()):
        raise Refusal(400, "bad_request", "gpt_weights and sovits_weights are given together or not at all.")
    for name, suffix in (("gpt_weights", ".ckpt"), ("sovits_weights", ".pth")):
        path = weights[name]
        # Lexically: operators link folders of weights into the root, clients can make no links.
        below = Path(os.path.normpath(root / path)).is_relative_to(root) and "\x00" not in path
        if path and not (below and path.endswith(suffix)):
            raise Refusal(400, "bad_request", f"{name} must be a {suffix} file below the project root.")
    upload = form.get("reference_audio")
    if not isinstance(upload, UploadFile):
        raise Refusal(400, "bad_request", "reference_audio must be a file.")
    return Order(
        text=text,
        language=_language(form, "language"),
        reference=decode_reference(upload.file),
        reference_text=_text(form, "reference_text", MAX_REFERENCE_TEXT),
        reference_language=_language(form, "reference_language"),
        speed=_number(form, "speed", 1.0, 0.25, 4.0),
        temperature=_number(form, "temperature", 1.0, 0.01, 2.0),
        seed=secrets.randbelow(MAX_SEED + 1) if seed < 0 else int(seed),
        model_id=_text(form, "model_id", 128) or "default",
        **weights,
    )


def _text(form: Any, name: str, longest: int) -> str:
    value = form.get(name, "")
    if not isinstance(value, str):
        raise Refusal(400, "bad_request", f"{name} must be text, not a file.")
    value = value.strip()
    if len(value) > longest:
        raise Refusal(400, "bad_request", f"{name} may have at most {longest} characters.")
    return value


def _language(form: Any, name: str) -> str:
    value = _text(form, name, 100).lower() or "auto"
    if not _LANGUAGE.fullmatch(value):
        raise Refusal(400, "bad_request", f"{name} is no language.")
    return value


def _number(form: Any, name: str, default: float, least: float, most: float) -> float:
    value = _text(form, name, 100)
    try:
        number = float(value) if value else default
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise Refusal(400, "bad_request", f"{name} must be a number from {least:g} to {most:g}.")
    return number


def decode_reference(file: Any) -> bytes:
    """An upload as mono PCM16 WAV at its own sample rate. Raises Refusal (400)."""
    try:
        with soundfile.SoundFile(file) as audio:
            rate, channels = audio.samplerate, audio.channels
            if not 8000 <= rate <= 192000 or channels > 8:
                raise Refusal(400, "bad_request", f"reference_audio has {channels} channels at {rate} Hz.")
            # One frame more than may be there: what a header says is not what a file holds.
            most = int(MAX_REFERENCE_SECONDS * rate)
            samples = audio.read(most + 1, dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError) as error:
        raise Refusal(400, "bad_request", "reference_audio cannot be decoded.") from error
    if not MIN_REFERENCE_SECONDS * rate <= len(samples) <= most:
        bounds = f"{MIN_REFERENCE_SECONDS} to {MAX_REFERENCE_SECONDS} s"
        found = "more" if len(samples) > most else f"{len(samples) / rate:.2f} s"
        raise Refusal(400, "bad_request", f"reference_audio must last {bounds}; it lasts {found}.")
    if not np.isfinite(samples).all() or float(np.abs(samples).max()) < 1e-3:
        raise Refusal(400, "bad_request", "reference_audio is silent, or holds samples that are not numbers.")
    return wav(samples, rate)


def wav(samples: Any, rate: int) -> bytes:
    """float (n,) as mono PCM16 WAV."""
    steps = np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)
    out = io.BytesIO()
    soundfile.write(out, steps, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def refusal_of(error: ScriptError) -> Refusal:
    """What a client is told. Paths of this machine stay in its log."""
    if error.exit_code in (script_io.BAD_ARGUMENTS, script_io.BAD_REFERENCE):
        return Refusal(400, "bad_request", str(error))
    if error.exit_code == script_io.UNKNOWN_MODEL:
        return Refusal(404, "unknown_model", "There is no such model on this server.")
    if error.exit_code == script_io.NO_WEIGHTS:
        return Refusal(404, "unknown_model", "The weights of this model are not complete on this server.")
    if error.exit_code == script_io.UNSPEAKABLE:
        return Refusal(422, "unspeakable", "There is nothing to speak in the text.")
    if error.exit_code == script_io.OUT_OF_MEMORY:
        return Refusal(507, "out_of_memory", "The GPU is out of memory.")
    return Refusal(500, "synthesis_failed", "The engine failed; the reason is in the log of this server.")
