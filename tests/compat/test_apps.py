"""The requests of apps, as bench.sdks.apps has read them in their code."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
import soundfile as sf
from rest_framework.test import APIClient

from bench.sdks.apps import APPS, JANE, App
from bench.sdks.telling import tail_is_speech
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload
from tests.support.tenants import Tenant, made_key

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("kind", APPS, ids=lambda kind: kind.name)
def test_an_app_gets_what_it_asks_for(
    kind: type[App], live_server: Any, tenant: Tenant, api: APIClient, save: Any, engine: FakeEngine,
    settings: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    settings.OPEN_VOICES_OF = tenant.user.username
    api.put("/api/v1/voice/consent", {"statement": "All speakers agreed in writing to be cloned."}, "json")
    assert save(name=JANE).status_code == 201
    app = kind(live_server.url, tenant.secret, made_key(api, kind="path")["secret"])
    tried = list(app.features())
    assert tried
    for feature, action in tried:
        assert action(), feature


def test_no_wav_has_anything_behind_its_samples(
    tenant: Tenant, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    api, eleven, format = tenant.client, "/elevenlabs/v1", "output_format=wav_24000"
    text = {"text": "Hello there."}
    wavs = {
        "openai": api.post("/openai/v1/audio/speech", {"input": "Hello.", "voice": "alloy", "response_format": "wav"},
                           "json").content,
        "speech": api.post(f"{eleven}/text-to-speech/alloy?{format}", text, "json").content,
        "dialogue": api.post(f"{eleven}/text-to-dialogue?{format}", {"inputs": [{**text, "voice_id": "alloy"}]},
                             "json").content,
    }  # fmt: skip
    timed = api.post(f"{eleven}/text-to-speech/alloy/with-timestamps?{format}", text, "json")
    wavs["timestamps"] = base64.b64decode(json.loads(timed.content)["audio_base64"])
    for item in api.get(f"{eleven}/history").json()["history"]:
        name = item["history_item_id"]
        wavs[f"history {name}"] = api.get(f"{eleven}/history/{name}/audio").content
        body = {"history_item_ids": [name], "output_format": "wav"}
        wavs[f"download {name}"] = api.post(f"{eleven}/history/download", body, "json").content
    assert len(wavs) == 12
    assert [name for name, wav in wavs.items() if not tail_is_speech(wav)] == []
    for wav in wavs.values():
        verified = api.post("/api/v1/provenance/verify", {"file": upload(wav)}).json()
        assert verified["made_here"], verified


def test_a_text_with_nothing_to_speak_is_silence_and_says_so(
    tenant: Tenant, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    for text in (".", "...", "\N{THUMBS UP SIGN}"):
        body = {"input": text, "voice": "alloy", "response_format": "wav"}
        answer = tenant.client.post("/openai/v1/audio/speech", body, "json")
        assert answer.status_code == 200, answer.content
        samples, rate = sf.read(io.BytesIO(answer.content))
        assert len(samples) / rate == pytest.approx(0.3)
        assert not samples.any()
        assert "nothing to speak" in answer["X-Warning"]
    for url in ("/elevenlabs/v1/text-to-speech/alloy", "/elevenlabs/v1/text-to-speech/alloy/stream"):
        answer = tenant.client.post(url, {"text": "..."}, "json")
        assert answer.status_code == 200
        assert "nothing to speak" in answer["X-Warning"]
    assert engine.requests == []
    assert tenant.client.post("/openai/v1/audio/speech", {"input": " ", "voice": "alloy"}, "json").status_code == 400
