"""What apps ask before they speak, hosts of their own for each service, and ElevenLabs' routes around a voice."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from django.test import Client

from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, upload, wav_bytes
from tests.support.compat import pitch
from tests.support.tenants import Tenant
from voiceproject.env import BadSetting, Env
from voiceproject.web.middleware import compat_path
from voices.library.models import Consent, Voice
from voices.speech.models import Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Hello there. How are you?"
ELEVENLABS = "/elevenlabs/v1"


@pytest.fixture(autouse=True)
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return engine


@pytest.fixture
def voice(tenant: Tenant, reference_wav: bytes) -> Voice:
    tenant.client.put("/api/v1/voice/consent", {"statement": "All speakers agreed in writing to be cloned."}, "json")
    made = tenant.client.post(f"{ELEVENLABS}/voices/add", {"name": "Jane", "files": [upload(reference_wav)]})
    assert made.status_code == 200, made.content
    return Voice.objects.get()


def test_open_webui_lists_voices_and_models_without_a_key_where_a_setting_lets_it(
    voice: Voice, tenant: Tenant, other: Tenant, settings: Any
) -> None:
    stranger, urls = Client(), ("/openai/v1/audio/voices", "/openai/v1/audio/models")
    assert [stranger.get(url).status_code for url in urls] == [401, 401]
    known = tenant.client.get(urls[0]).json()
    assert {"id": f"voice_{voice.pk.hex}", "name": "Jane"} in known["voices"]
    assert [entry["id"] for entry in known["voices"]] == [entry["id"] for entry in known["data"]]
    assert {"id": "tts-1", "name": "tts-1"} in tenant.client.get(urls[1]).json()["models"]
    settings.OPEN_VOICES_OF = tenant.user.username
    assert stranger.get(urls[0]).json() == known
    assert {"tts-1"} <= {model["id"] for model in stranger.get(urls[1]).json()["models"]}
    # A key that is sent is looked at, and nothing else is open.
    assert "Jane" not in str(other.client.get(urls[0]).json())
    assert stranger.get(urls[0], headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert stranger.get(f"{urls[0]}?api_key={tenant.secret}").status_code == 401
    assert stranger.post(urls[0], {}).status_code == 401
    assert stranger.get("/openai/v1/models").status_code == 401
    settings.OPEN_VOICES_OF = "nobody"
    assert {entry["name"] for entry in stranger.get(urls[0]).json()["voices"]} >= {"Alloy"}
    assert "Jane" not in str(stranger.get(urls[0]).json())


def test_a_host_of_its_own_serves_one_service_at_its_root_and_nothing_else(tenant: Tenant, settings: Any) -> None:
    settings.COMPAT_HOSTS = {"eleven.example.com": "elevenlabs", "ai.example.com": "openai"}
    settings.ALLOWED_HOSTS = ["localhost", *settings.COMPAT_HOSTS]

    def get(host: str, path: str) -> Any:
        return tenant.client.get(path, headers={"Host": host})

    assert isinstance(get("eleven.example.com", "/v1/models").json(), list)
    assert get("ELEVEN.example.com:8443", "/v1/models").status_code == 200
    assert get("ai.example.com", "/v1/models").json()["object"] == "list"
    assert get("ai.example.com", "/openai/v1/models").json()["object"] == "list"
    assert get("ai.example.com", "/health").status_code == 200
    for path in ("/admin/", "/admin/login/", "/account", "/api/v1/me", "/elevenlabs/v1/models", "/", "/docs",
                 "/openai/../admin/", "/%2e%2e/admin/"):  # fmt: skip
        answer = get("ai.example.com", path)
        assert (answer.status_code, "not_found" in str(answer.json()["error"])) == (404, True), path
    assert get("localhost", "/v1/models").status_code == 404
    assert isinstance(get("localhost", "/elevenlabs/v1/models").json(), list)
    assert get("stranger.example.com", "/v1/models").status_code == 400
    assert compat_path("eleven.example.com.", "/v1/x") == "/elevenlabs/v1/x"
    assert compat_path("not-eleven.example.com", "/v1/x") == "/v1/x"
    preflight = Client().options("/v1/text-to-speech/alloy", headers={
        "Host": "eleven.example.com", "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"
    })  # fmt: skip
    assert preflight["Access-Control-Allow-Origin"] == "http://localhost:3000"


@pytest.mark.parametrize("value", ["a.example.com", "a.example.com=console", "a=openai,A=elevenlabs", ".x.com=openai"])
def test_a_host_that_cannot_be_bound_stops_the_start(value: str) -> None:
    with pytest.raises(BadSetting, match="COMPAT_HOSTS"):
        Env({"COMPAT_HOSTS": value}).pairs("COMPAT_HOSTS", ("openai", "elevenlabs"))


def test_a_voice_is_edited_its_settings_are_kept_and_its_samples_heard(
    voice: Voice, tenant: Tenant, engine: FakeEngine
) -> None:
    api, own = tenant.client, f"{ELEVENLABS}/voices/{voice.pk}"
    more = upload(wav_bytes(speech_like(4.0, pitch=160), 16_000))
    edited = api.post(f"{own}/edit", {"name": "Joan", "labels": '{"language": "en"}', "files": [more]})
    assert (edited.status_code, edited.json()) == (200, {"status": "ok"})
    told = api.get(own).json()
    assert (told["name"], told["labels"], len(told["samples"])) == ("Joan", {"language": "en"}, 2)
    assert Consent.objects.count() == 2
    assert api.post(f"{own}/edit", {"description": "Warm"}).status_code == 422, "name is required there"

    assert api.post(f"{own}/settings/edit", {"stability": 1.0, "speed": 1.5, "style": 0.5}, "json").status_code == 200
    assert api.get(f"{own}/settings").json() == {
        "stability": 1.0, "similarity_boost": 1.0, "style": 0.5, "use_speaker_boost": False, "speed": 1.5,
    }  # fmt: skip
    url = f"{ELEVENLABS}/text-to-speech/{voice.pk}?output_format=pcm_16000"
    for body in ({"text": TEXT}, {"text": TEXT, "voice_settings": {"speed": 0.9, "stability": None}}):
        assert api.post(url, body, "json").status_code == 200
    assert [(request.speed, request.temperature) for request in engine.requests] == [
        (1.5, pytest.approx(0.1)), (0.9, pytest.approx(0.1)),
    ]  # fmt: skip
    assert api.post(f"{own}/settings/edit", {"stability": 7}, "json").status_code == 422
    assert api.post(f"{ELEVENLABS}/voices/alloy/settings/edit", {"speed": 1}, "json").status_code == 403

    sample = f"{own}/samples/{told['samples'][1]['sample_id']}"
    heard, rate = sf.read(io.BytesIO(b"".join(api.get(f"{sample}/audio").streaming_content)))
    assert len(heard) / rate == pytest.approx(4.0, abs=0.5)
    assert api.delete(sample).json() == {"status": "ok"}
    assert (api.get(f"{sample}/audio").status_code, len(api.get(own).json()["samples"])) == (404, 1)


def test_history_has_the_audio_in_the_format_that_its_client_got(tenant: Tenant) -> None:
    api = tenant.client
    speak = f"{ELEVENLABS}/text-to-speech/alloy"
    for name in ("mp3_22050_32", "pcm_16000", "ulaw_8000"):
        assert api.post(f"{speak}?output_format={name}", {"text": TEXT}, "json").status_code == 200
    openai = {"input": TEXT, "voice": "alloy"}
    for format in ("aac", "flac", "wav"):
        assert api.post("/openai/v1/audio/speech", {**openai, "response_format": format}, "json").status_code == 200
    own = api.post("/api/v1/voice/synthesize", {"text": TEXT, "response_format": "pcm", "reference_audio": upload(
        wav_bytes(speech_like(5.0), 16_000))})  # fmt: skip
    assert own.status_code == 200
    items = api.get(f"{ELEVENLABS}/history").json()["history"][::-1]
    kinds = ["audio/mpeg", "audio/pcm", "audio/basic", "audio/aac", "audio/flac", "audio/wav", "audio/pcm"]
    assert [item["content_type"] for item in items] == kinds
    for item, kind in zip(items, kinds, strict=True):
        answer = api.get(f"{ELEVENLABS}/history/{item['history_item_id']}/audio")
        assert (answer.status_code, answer["Content-Type"].partition(";")[0]) == (200, kind)
        if kind == "audio/mpeg":
            samples, rate = sf.read(io.BytesIO(answer.content))
            assert (rate, pitch(samples, rate)) == (22_050, pytest.approx(220, abs=2))
        elif item is items[1]:
            assert pitch(np.frombuffer(answer.content, "<i2") / 32_768, 16_000) == pytest.approx(220, abs=2)
        elif kind == "audio/wav":
            assert b"C2PA" not in answer.content
    ids = [item["history_item_id"] for item in items]
    one = api.post(f"{ELEVENLABS}/history/download", {"history_item_ids": ids[:1]}, "json")
    assert (one.status_code, one["Content-Type"]) == (200, "audio/mpeg")
    many = api.post(f"{ELEVENLABS}/history/download", {"history_item_ids": ids, "output_format": "wav"}, "json")
    with zipfile.ZipFile(io.BytesIO(b"".join(many.streaming_content))) as archive:
        assert archive.namelist() == [f"{name}.wav" for name in ids]
        for name in archive.namelist():
            samples, rate = sf.read(io.BytesIO(archive.read(name)))
            assert pitch(samples, rate) == pytest.approx(220, abs=2)
    body: dict[str, Any]
    for body in ({}, {"history_item_ids": []}, {"history_item_ids": ids[:1], "output_format": "doc"}):
        assert api.post(f"{ELEVENLABS}/history/download", body, "json").status_code == 422


def test_a_strangers_item_is_not_in_a_download(tenant: Tenant, other: Tenant) -> None:
    tenant.client.post(f"{ELEVENLABS}/text-to-speech/alloy", {"text": TEXT}, "json")
    ids = [str(Synthesis.objects.get().pk)]
    assert other.client.post(f"{ELEVENLABS}/history/download", {"history_item_ids": ids}, "json").status_code == 404
