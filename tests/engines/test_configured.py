"""The engine of a process, as settings choose it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import pytest
from rest_framework.test import APIClient

from tests.support.audio import upload
from voiceproject.errors import PublicError
from voices.engines import configured
from voices.engines.interface import EngineHealth, Piece, SynthesisRequest


class ToneEngine:
    """An engine with nothing but what `interface.Engine` asks for."""

    name = "tone"
    languages = frozenset({"en"})

    def __init__(self, hertz: float) -> None:
        self.hertz = hertz
        self.closed = False

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        return cls(settings.TONE_HERTZ)

    def synthesize(self, request: SynthesisRequest, deadline: float, canceled: Callable[[], bool]) -> Iterator[Piece]:
        time = np.arange(24_000) / 24_000
        yield Piece(np.sin(2 * np.pi * self.hertz * time).astype(np.float32), 24_000, request.text)

    def health(self) -> EngineHealth:
        return EngineHealth(self.name, available=True)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def tone(settings: Any) -> Iterator[None]:
    settings.VOICE_ENGINES = {**settings.VOICE_ENGINES, "tone": f"{__name__}.ToneEngine"}
    settings.VOICE_ENGINE = "tone"
    settings.TONE_HERTZ = 440.0
    configured.load_engine.cache_clear()
    yield
    configured.load_engine.cache_clear()


@pytest.mark.django_db(transaction=True)
def test_an_engine_is_added_by_a_class_and_a_setting(tone: None, api: APIClient, reference_wav: bytes) -> None:
    form = {"text": "Hello there.", "reference_audio": upload(reference_wav)}
    response = api.post("/api/v1/voice/synthesize", form)
    assert (response.status_code, response["X-Engine"]) == (200, "tone"), response.content
    assert float(response["X-Audio-Duration"]) == pytest.approx(1.0)
    state = api.get("/api/v1/voice/health").json()
    assert (state["engine"], state["languages"]) == ("tone", ["en"])
    assert [model["id"] for model in state["models"]] == ["default"]


def test_one_engine_serves_a_process_and_is_closed_with_it(tone: None) -> None:
    configured.close_engine()  # There is none yet, and none is made for it.
    assert not configured.load_engine.cache_info().currsize
    engine = configured.get_engine()
    assert isinstance(engine, ToneEngine)
    assert configured.get_engine() is engine
    configured.close_engine()
    assert engine.closed


def test_a_language_that_the_engine_lacks_is_refused_by_name(tone: None) -> None:
    assert configured.check_language("language", "en") == "en"
    assert configured.check_language("language", "auto") == "auto"
    with pytest.raises(PublicError, match=r"it speaks: auto, en \(English\)\.") as raised:
        configured.check_language("language", "ja")
    assert list(raised.value.details) == ["language"]


def test_a_child_process_of_the_built_in_engine_loads_no_django() -> None:
    code = (
        "import sys, voices.engines.builtin.child;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'django', 'rest_framework', 'dramatiq'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
