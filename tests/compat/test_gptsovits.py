"""/gptsovits, by the requests that GPT-SoVITS' clients send: SillyTavern, AstrBot, pyvideotrans."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests
import soundfile as sf
from model_bakery import baker
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.compat import pitch
from tests.support.tenants import Tenant, made_key, make_key, rotate_key
from voiceproject.errors import EngineBusy
from voiceproject.telemetry.logging import loggable
from voices.keys.models import ApiKey
from voices.library.models import Voice
from voices.speech.models import EngineModel, Synthesis

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Hello there. How are you?"


@pytest.fixture
def engine(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(FakeEngine, "presets", ("female", "male"), raising=False)
    return engine


@pytest.fixture
def anna(save: Callable[..., Any]) -> Voice:
    assert save(name="Anna", transcript="What Anna says.").status_code == 201
    return Voice.objects.get()


@pytest.fixture
def token(api: APIClient) -> str:
    return str(made_key(api, kind="path")["secret"])


@pytest.fixture
def base(live_server: Any, token: str) -> str:
    return f"{live_server.url}/gptsovits/{token}"


def heard(answer: Any, seconds: float = 0.1 * len(TEXT)) -> int:
    """That it is speech of that length; its rate."""
    assert answer.status_code == 200, answer.content
    samples, rate = sf.read(io.BytesIO(answer.content))
    assert pitch(samples, rate) == pytest.approx(220, abs=2)
    assert len(samples) / rate == pytest.approx(seconds, abs=0.3)
    return int(rate)


def test_sillytavern_lists_the_speakers_and_speaks_with_one(base: str, anna: Voice, engine: FakeEngine) -> None:
    speakers = requests.get(f"{base}/speakers", timeout=60).json()
    assert speakers[0] == {"name": "Anna", "voice_id": str(anna.pk)}
    assert {"name": "Alloy", "voice_id": "alloy"} in speakers
    voice_id = next(speaker for speaker in speakers if speaker["name"] == "Anna")["voice_id"]
    params = {
        "text": TEXT, "prompt_text": voice_id, "ref_audio_path": f"./参考音频/{voice_id}.wav", "text_lang": "en",
        "prompt_lang": "zh", "text_split_method": "cut5", "batch_size": 1, "media_type": "ogg",
        "streaming_mode": "true",
    }  # fmt: skip
    answer = requests.post(f"{base}/", json=params, timeout=60)
    assert answer.headers["Content-Type"] == "audio/ogg"
    assert "Content-Length" not in answer.headers  # It came while it was made.
    heard(answer)
    request = engine.requests[0]
    assert request.reference.transcript == "What Anna says."  # The voice's own, not what such a client makes up.
    assert (request.language, request.early) == ("en", True)

    # Its other provider, for a program in front of the server.
    adapter = {"text": TEXT, "use_st_adapter": True, "target_voice": "Anna", "text_lang": "en",
               "media_type": "auto", "streaming_mode": "true"}  # fmt: skip
    heard(requests.post(f"{base}/", json=adapter, timeout=60))


def test_astrbot_sets_its_weights_and_speaks_in_small_letters(base: str, anna: Voice, engine: FakeEngine) -> None:
    baker.make(EngineModel, model_id="anna", engine="builtin", gpt_weights="GPT_weights_v2/Anna-e15.ckpt",
               sovits_weights="SoVITS_weights_v2/Anna_e8_s200.pth")  # fmt: skip
    engine.serves = lambda *models: True  # type: ignore[attr-defined]
    for route, path in (("gpt", "GPT_weights_v2/Anna-e15.ckpt"), ("sovits", r"D:\gsv\Anna_e8_s200.pth")):
        answer = requests.get(f"{base}/set_{route}_weights", params={"weights_path": path}, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"message": "success"})
    params = {"text": TEXT, "text_lang": "all_en", "ref_audio_path": "anna", "prompt_lang": "en", "prompt_text": "",
              "top_k": "5", "top_p": "1.0", "temperature": "1.0", "seed": "-1", "text_split_method": "cut3",
              "batch_size": "1", "speed_factor": "1.0", "split_bucket": "true", "streaming_mode": "false",
              "parallel_infer": "true", "repetition_penalty": "1.35", "media_type": "wav"}  # fmt: skip
    answer = requests.get(f"{base}/tts", params=params, timeout=60)
    heard(answer)
    assert answer.headers["Content-Type"] == "audio/wav"
    assert answer.content[36:40] == b"data"
    # Nothing stands behind the samples, where naive readers would play it.
    assert int.from_bytes(answer.content[40:44], "little") == len(answer.content) - 44
    assert [request.model_id for request in engine.requests] == ["anna"]
    assert engine.requests[0].temperature == 1.0

    back = requests.get(f"{base}/set_gpt_weights", params={"weights_path": "GPT_SoVITS/pretrained_models/s1v3.ckpt"},
                        timeout=60)  # fmt: skip
    assert back.status_code == 200
    heard(requests.get(f"{base}/tts", params=params, timeout=60))
    assert engine.requests[1].model_id is None
    wrong = requests.get(f"{base}/set_sovits_weights", params={"weights_path": "../../etc/passwd"}, timeout=60)
    assert wrong.status_code == 400
    assert wrong.json()["message"] == "change sovits weight failed"
    assert "anna" in wrong.json()["Exception"]


def test_pyvideotrans_speaks_by_both_servers_names(base: str, anna: Voice, engine: FakeEngine) -> None:
    # It writes its URL in small letters, and appends /tts for the newer server.
    url = base.lower().rstrip("/")
    older = {"text": TEXT, "text_language": "en", "prompt_text": "Words.", "prompt_language": "en",
             "refer_wav_path": "Anna", "speed": 2.0}  # fmt: skip
    heard(requests.post(url, json=older, timeout=60), 0.05 * len(TEXT))
    newer = {"text": TEXT, "text_lang": "en", "ref_audio_path": "anna.wav", "prompt_text": "Words.",
             "prompt_lang": "en", "speed_factor": 1.0, "text_split_method": "cut5"}  # fmt: skip
    assert heard(requests.post(f"{url}/tts", json=newer, timeout=60)) == 24_000
    refused = requests.post(url, json={**older, "refer_wav_path": "C:/clips/17.wav"}, timeout=60)
    assert refused.status_code == 400
    assert refused.json()["code"] == 400
    assert "saved voice" in refused.json()["message"]


def test_each_media_type_comes_whole_and_streamed(base: str, anna: Voice) -> None:
    for streaming in ("0", "1", "2", "3"):
        query = {"text": TEXT, "text_lang": "en", "ref_audio_path": str(anna.pk), "streaming_mode": streaming}
        for media_type in ("wav", "ogg", "aac", "raw") if streaming in "01" else ("wav",):
            answer = requests.get(f"{base}/tts", params={**query, "media_type": media_type}, timeout=60)
            assert answer.headers["Content-Type"] == f"audio/{media_type}"
            if media_type == "raw":
                samples = np.frombuffer(answer.content, "<i2") / 32_768
                assert len(samples) / 32_000 == pytest.approx(0.1 * len(TEXT), abs=0.15)
                assert pitch(samples, 32_000) == pytest.approx(220, abs=2)
            elif media_type == "aac":
                assert answer.content[0] == 0xFF  # ADTS
                assert len(answer.content) > 5000
            else:
                heard(answer)
    with wave.open(io.BytesIO(answer.content)) as file:  # what streams are read with
        assert file.getframerate() == 24_000


def test_the_older_server_remembers_who_speaks(base: str, anna: Voice, engine: FakeEngine) -> None:
    query = {"text": TEXT, "text_language": "英文"}
    missing = requests.get(base, params=query, timeout=60)
    assert missing.json() == {
        "code": 400, "message": "ref_audio_path is required: the id or the name of a saved voice",
    }  # fmt: skip
    changed = requests.get(f"{base}/change_refer", params={"refer_wav_path": "Anna", "prompt_text": "x"}, timeout=60)
    assert changed.json() == {"code": 0, "message": "Success"}
    heard(requests.get(base, params=query, timeout=60))
    heard(requests.post(base, json={**query, "text_language": "中英混合"}, timeout=60))
    assert [request.language for request in engine.requests] == ["en", "zh"]
    anna.delete()
    assert requests.get(base, params=query, timeout=60).status_code == 400


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"text": ""}, "text is required"),
    ({"ref_audio_path": ""}, "ref_audio_path is required"),
    ({"text_lang": "xx"}, "text_lang: xx is not supported"),
    ({"text_lang": "auto_yue"}, "text_lang: auto_yue is not supported"),
    ({"media_type": "silk"}, "media_type: silk is not supported"),
    ({"streaming_mode": 4}, "streaming_mode must be 0, 1, 2, 3"),
    ({"speed_factor": 0}, "speed_factor: Must be more than 0"),
    ({"speed_factor": "fast"}, "speed_factor: Must be a number"),
    ({"temperature": "nan"}, "temperature: Must be a number"),
    ({"text": ["a"]}, "text: Must be a text"),
    ({"text": "x" * 5001}, "text: Has 5001 characters"),
    ({"text": "a\x00b"}, "control characters"),
    ({"ref_audio_path": "/etc/passwd"}, "no saved voice '/etc/passwd'"),
    ({"ref_audio_path": "a\x00"}, "no saved voice"),
    ({"ref_audio_path": {"a": 1}}, "ref_audio_path: Must be a text"),
]


def test_what_is_wrong_is_told_as_there(tenant: Tenant, anna: Voice) -> None:
    good = {"text": TEXT, "text_lang": "en", "ref_audio_path": "Anna", "prompt_lang": "en"}
    for fields, told in WRONG:
        answer = tenant.client.post("/gptsovits/tts", {**good, **fields}, format="json")
        assert answer.status_code == 400, fields
        assert list(answer.json()) == ["message"]
        assert told in answer.json()["message"]
    assert not Synthesis.objects.exists()


def test_other_failures_keep_their_status(tenant: Tenant, anna: Voice, engine: FakeEngine) -> None:
    query = {"text": TEXT, "text_lang": "en", "ref_audio_path": "Anna"}
    engine.failure = EngineBusy()
    answer = tenant.client.get("/gptsovits/tts", query)
    assert (answer.status_code, list(answer.json())) == (503, ["message"])
    assert tenant.client.post("/gptsovits/tts", "[1]", content_type="application/json").status_code == 400
    assert tenant.client.delete("/gptsovits/tts").status_code == 405
    assert tenant.client.get("/gptsovits/control", {"command": "exit"}).status_code == 403
    unknown = APIClient().get("/gptsovits/nowhere")
    assert (unknown.status_code, list(unknown.json())) == (404, ["message"])


def test_a_tenants_voices_are_its_own(tenant: Tenant, other: Tenant, anna: Voice) -> None:
    theirs = made_key(other.client, kind="path")["secret"]
    for name in ("Anna", str(anna.pk)):
        query = {"text": TEXT, "text_lang": "en", "ref_audio_path": name}
        assert APIClient().get(f"/gptsovits/{theirs}/tts", query).status_code == 400
    speakers = APIClient().get(f"/gptsovits/{theirs}/speakers").json()
    assert "Anna" not in {speaker["name"] for speaker in speakers}


# --- keys that are not sent in a header ---


def test_a_key_in_the_path_opens_nothing_else(tenant: Tenant, token: str, caplog: Any) -> None:
    assert token.startswith("vcp_")
    assert token == token.lower()
    assert APIClient(headers={"X-API-Key": token}).get("/api/v1/voice/syntheses").status_code == 401
    assert APIClient(headers={"X-API-Key": token}).get("/gptsovits/speakers").status_code == 401
    assert APIClient().get(f"/gptsovits/{tenant.secret}/speakers").status_code == 404
    assert APIClient().get("/gptsovits/vcp_guessed/speakers").status_code == 401
    with caplog.at_level(logging.INFO, "voiceproject.access"):
        assert APIClient().get(f"/gptsovits/{token.upper()}/speakers").status_code == 200
    assert "/gptsovits/VCP_.../speakers" in caplog.text
    assert token not in caplog.text.lower()
    assert loggable(f"/gptsovits/{token}") == "/gptsovits/vcp_..."
    key = ApiKey.objects.get(kind="path")
    assert key.key_hash != token
    assert token not in str(vars(key))


def test_a_key_in_the_path_is_a_key_like_any_other(tenant: Tenant, anna: Voice) -> None:
    made = made_key(tenant.client, kind="path", requests_per_minute=2, allowed_networks=["127.0.0.1"])
    assert (made["kind"], made["scopes"]) == ("path", ["synthesize"])
    speakers = f"/gptsovits/{made['secret']}/speakers"
    assert APIClient().get(speakers, REMOTE_ADDR="192.0.2.1").status_code == 403
    assert [APIClient().get(speakers).status_code for _ in range(3)] == [200, 200, 429]
    rotated = rotate_key(tenant.client, made["id"]).json()
    assert rotated["kind"] == "path"
    assert rotated["secret"] != made["secret"]
    assert APIClient().get(speakers).status_code == 401
    assert tenant.client.delete(f"/api/v1/keys/{rotated['id']}").status_code == 204
    assert APIClient().get(f"/gptsovits/{rotated['secret']}/speakers").status_code == 401
    for scopes in (["synthesize", "voices"], ["voices"]):
        refused = make_key(tenant.client, kind="path", scopes=scopes)
        assert (refused.status_code, list(refused.json()["details"])) == (400, ["scopes"])
    again = made_key(tenant.client, kind="path")
    widened = tenant.client.patch(f"/api/v1/keys/{again['id']}", {"scopes": ["synthesize", "keys"]}, format="json")
    assert widened.status_code == 400
    assert tenant.client.patch(f"/api/v1/keys/{again['id']}", {"kind": "header"}, format="json").status_code == 400


def test_addresses_stand_for_a_key_where_the_operator_allows_it(
    tenant: Tenant, other: Tenant, anna: Voice, settings: Any
) -> None:
    asked = {"kind": "address", "allowed_networks": ["198.51.100.0/24"]}
    assert list(make_key(tenant.client, **asked).json()["details"]) == ["kind"]
    settings.GPTSOVITS_ADDRESS_KEYS = True
    for networks in ([], ["0.0.0.0/0"], ["198.0.0.0/8"], ["2001:db8::/32"]):
        refused = make_key(tenant.client, kind="address", allowed_networks=networks)
        assert list(refused.json()["details"]) == ["allowed_networks"]
    made = made_key(tenant.client, **asked)
    assert made["secret"] == ""
    assert make_key(other.client, kind="address", allowed_networks=["198.51.100.7"]).status_code == 409
    assert rotate_key(tenant.client, made["id"]).status_code == 409

    near = {"REMOTE_ADDR": "198.51.100.9"}
    query = {"text": TEXT, "text_lang": "en", "ref_audio_path": "Anna"}
    assert APIClient().get("/gptsovits/tts", query, **near).status_code == 200
    assert Synthesis.objects.get().api_key == ApiKey.objects.get(kind="address")
    assert APIClient().get("/gptsovits/tts", query, REMOTE_ADDR="198.51.101.9").status_code == 401
    assert APIClient().get("/api/v1/voice/syntheses", **near).status_code == 401  # There a key is sent.
    # A page of somebody else in a browser at that address cannot ask in its name.
    for headers in ({"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert APIClient(headers=headers).get("/gptsovits/tts", query, **near).status_code == 403
    allowed = APIClient(headers={"Origin": settings.CORS_ORIGINS[0], "Sec-Fetch-Site": "cross-site"})
    assert allowed.get("/gptsovits/speakers", **near).status_code == 200
    # A key in the header goes before the address.
    speakers = other.client.get("/gptsovits/speakers", **near).json()
    assert "Anna" not in {speaker["name"] for speaker in speakers}
    settings.GPTSOVITS_ADDRESS_KEYS = False
    assert APIClient().get("/gptsovits/tts", query, **near).status_code == 401


# --- at the root ---


def test_at_the_root_nobody_saves_a_page_as_audio(tenant: Tenant, anna: Voice) -> None:
    query = {"refer_wav_path": "Anna", "text": TEXT, "text_language": "en"}
    for answer in (tenant.client.get("/", query), tenant.client.post("/", query, format="json")):
        assert answer.status_code == 400
        assert answer.json()["code"] == 400
        assert "/gptsovits" in answer.json()["message"]
    assert tenant.client.get("/").headers["Content-Type"].startswith("text/html")
    for route in ("tts", "speakers", "set_gpt_weights", "set_sovits_weights"):
        closed = tenant.client.get(f"/{route}")
        assert (closed.status_code, list(closed.json())) == (404, ["message"])


def test_at_the_root_of_a_host_of_its_own_it_answers(tenant: Tenant, anna: Voice, settings: Any) -> None:
    settings.GPTSOVITS_COMPAT_AT_ROOT = True
    older = {"refer_wav_path": "Anna", "text": TEXT, "text_language": "en"}
    newer = {"ref_audio_path": "Anna", "text": TEXT, "text_lang": "en"}
    for answer in (
        tenant.client.get("/", older),
        tenant.client.post("/", older, format="json"),
        tenant.client.get("/tts", newer),
        tenant.client.post("/tts", newer, format="json"),
    ):
        heard(answer)
    assert tenant.client.get("/speakers").json()[0]["name"] == "Anna"
    assert tenant.client.get("/").headers["Content-Type"].startswith("text/html")
    assert APIClient().get("/tts", newer).status_code == 401
