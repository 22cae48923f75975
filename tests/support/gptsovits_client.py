"""What the tests of the GPT-SoVITS client share: an engine for a server's URL, what is asked of it, and what is heard.

References are tones; the server speaks at the pitch of the reference that it has read, so pitch tells whose
voice it was.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.fakes.gptsovits import FakeGptSovits, pitch_of, tone
from voiceproject.errors import PublicError
from voices.engines.gptsovits.engine import GptSovitsEngine
from voices.engines.interface import Model, Piece, Reference, SynthesisRequest

TEXT = "This is one sentence of a dozen words, which anybody can speak."
ANNA = Model("anna", "gpt-anna", "sovits-anna")


Engines = Callable[..., GptSovitsEngine]


def voice(pitch: float = 120.0, seconds: float = 5.0, rate: int = 24_000, **fields: Any) -> Reference:
    return Reference(tone(pitch, seconds, rate), rate, f"{pitch}-{seconds}", **fields)


def ask(text: str = TEXT, reference: Reference | None = None, **fields: Any) -> SynthesisRequest:
    fields.setdefault("language", "en")
    return SynthesisRequest(text, reference=reference or voice(), **fields)


def speak(engine: GptSovitsEngine, request: SynthesisRequest | None = None, seconds: float = 30) -> list[Piece]:
    return list(engine.synthesize(request or ask(), time.monotonic() + seconds, lambda: False))


def failure(engine: GptSovitsEngine, request: SynthesisRequest | None = None, seconds: float = 30) -> PublicError:
    with pytest.raises(PublicError) as caught:
        speak(engine, request, seconds)
    return caught.value


def pitch(pieces: list[Piece]) -> float:
    return pitch_of(np.concatenate([piece.samples for piece in pieces]), pieces[0].sample_rate)


def post(url: str, **fields: Any) -> tuple[int, bytes]:
    """What a naive client sends."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.request("POST", "/tts", json.dumps(fields), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def plain(path: Path, **fields: Any) -> dict[str, Any]:
    return {"text": TEXT, "text_lang": "en", "prompt_lang": "en", "ref_audio_path": str(path)} | fields


def refused_url() -> str:
    """A port where nothing listens."""
    fake = FakeGptSovits()
    fake._http.server_close()
    return fake.url


def with_model(model: Model | None, reference: Reference | None = None, **fields: Any) -> SynthesisRequest:
    return ask(reference=reference, model_id=model and model.id, model=model, **fields)
