"""The GPT-SoVITS client against the protocol of our own server, gpu_scripts/gptsovits_server.py."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.fakes.gptsovits import FakeGptSovits
from tests.fakes.own_server import FakeOwnServer
from tests.support.gptsovits_client import ANNA, TEXT, Engines, ask, failure, pitch, speak, voice, with_model
from tests.support.waiting import until
from voiceproject.leases.lease import Leases
from voiceproject.telemetry.logging import bind
from voices.engines.gptsovits.engine import GptSovitsEngine
from voices.engines.interface import Model


@pytest.fixture
def own() -> Iterator[FakeOwnServer]:
    with FakeOwnServer(token="s3cret") as server:
        yield server


@pytest.fixture
def own_engine(own: FakeOwnServer, engine_for: Engines, tmp_path: Path) -> Callable[..., GptSovitsEngine]:
    def make(**options: Any) -> GptSovitsEngine:
        options = {"protocol": "voiceproject", "token": "s3cret", "folder": tmp_path / "never"} | options
        return engine_for(own.url, **options)

    return make


def test_our_own_server_gets_everything_with_the_request(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], tmp_path: Path
) -> None:
    reference = voice(150, transcript="Was ich sage: “so”.", language="en")
    request = ask(reference=reference, speed=1.25, temperature=0.4, seed=7, model_id="anna", model=ANNA)
    with bind(request_id="abc-1"):
        pieces = speak(own_engine(), request)
    assert pitch(pieces) == pytest.approx(150, rel=0.03)
    fields = dict(own.log[0])
    headers, audio = fields.pop("headers"), fields.pop("reference_audio")
    assert (headers["Authorization"], headers["X-Request-ID"]) == ("Bearer s3cret", "abc-1")
    assert fields == {
        "text": TEXT, "language": "en", "reference_text": "Was ich sage: “so”.", "reference_language": "en",
        "speed": "1.25", "temperature": "0.4", "seed": "7", "model_id": "anna", "gpt_weights": "gpt-anna",
        "sovits_weights": "sovits-anna",
    }  # fmt: skip
    with soundfile.SoundFile(io.BytesIO(audio)) as file:
        assert (file.format, file.subtype, file.channels, file.samplerate) == ("WAV", "PCM_16", 1, 24_000)
        assert len(file) == 5 * 24_000
    assert not (tmp_path / "never").exists(), "no folder is needed"
    # Without weights the model is one that the server knows by name; without a model it is its own.
    speak(own_engine(), with_model(Model("theirs")))
    speak(own_engine())
    assert [(call["model_id"], "gpt_weights" in call) for call in own.log[1:]] == [
        ("theirs", False),
        ("default", False),
    ]


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        ("bad_request", "engine_error"), ("unknown_model", "engine_error"), ("too_large", "engine_error"),
        ("synthesis_failed", "engine_error"), ("silence", "engine_error"), ("out_of_memory", "engine_error"),
        ("unspeakable", "validation_error"), ("stopping", "engine_unavailable"),
        ("unauthorized", "engine_unavailable"), ("busy", "engine_busy"),
    ],
)  # fmt: skip
def test_each_refusal_of_our_own_server_is_told_apart(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], caplog: pytest.LogCaptureFixture, mood: str,
    code: str
) -> None:  # fmt: skip
    own.moods.append(mood)
    error = failure(own_engine(queue_seconds=0.3, set_aside_seconds=0.6))
    assert error.code == code
    assert "something about" not in error.message
    assert len(own.log) == 1
    if mood != "silence":
        assert f"something about {mood}" in caplog.text
    until(lambda: not Leases([own.url]).states()[own.url].set_aside)
    assert pitch(speak(own_engine())) == pytest.approx(120, rel=0.03)


def test_a_queue_that_others_have_filled_is_waited_for(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine]
) -> None:
    own.moods.extend(["busy", "busy"])
    assert len(speak(own_engine(set_aside_seconds=0.1))) == 1
    assert len(own.log) == 3


def test_a_wrong_token_is_the_operators_to_mend(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = own_engine(token="wrong")
    assert failure(engine).code == "engine_unavailable"
    assert "401" in caplog.text


def test_after_a_time_out_our_own_server_is_used_once_it_is_idle(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine]
) -> None:
    own.moods.append("hang")
    assert failure(own_engine(timeout_seconds=0.4)).code == "engine_timeout"
    # It answers while it works: that is no sign that it is done.
    assert failure(own_engine(queue_seconds=0.6)).code == "engine_busy"
    assert own.probes >= 1 and len(own.log) == 1
    own.woken.set()
    assert len(speak(own_engine())) == 1
    assert len(own.log) == 2


@pytest.mark.parametrize(
    ("status", "available", "detail"),
    [("ready", True, "ready"), ("busy", True, "busy"), ("stopping", False, "it is stopping")],
)
def test_health_of_our_own_server(
    own: FakeOwnServer, own_engine: Callable[..., GptSovitsEngine], status: str, available: bool, detail: str
) -> None:
    own.status = status
    health = own_engine().health()
    assert (health.available, health.detail) == (available, detail)


def test_health_says_that_the_protocol_is_the_other_one(
    fake: FakeGptSovits, own: FakeOwnServer, engine_for: Engines
) -> None:
    health = engine_for(fake.url, protocol="voiceproject").health()
    assert not health.available and "api_v2.py" in health.detail and "SOVITS_PROTOCOL" in health.detail
    assert not engine_for(own.url).health().available
