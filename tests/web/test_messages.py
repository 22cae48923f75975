"""What a newcomer's usual mistakes are answered with: each message begins with what is wrong, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from rest_framework.test import APIClient

from tests.fakes.engine import FakeEngine
from tests.support.audio import speech_like, wav_bytes

SPEAK = "/api/v1/voice/synthesize"
COVER = "/api/v1/cover/jobs"
NOBODY = "6f9619ff-8b86-4d01-b42d-00c04fc964ff"


def recording(seconds: float = 4.0) -> SimpleUploadedFile:
    return SimpleUploadedFile("reference.wav", wav_bytes(speech_like(seconds), 16_000))


def message(response: Any, status: int = 400) -> str:
    assert response.status_code == status, response.content
    return str(response.json()["message"])


@pytest.mark.parametrize(
    ("form", "begins", "says"),
    [
        ({"audio": "FILE"}, "Unknown field: audio. Did you mean reference_audio?", "Known fields: text, reference_"),
        ({"langauge": "en", "reference_audio": "FILE"}, "Unknown field: langauge. Did you mean language?", ""),
        ({"q": "1", "reference_audio": "FILE"}, "Unknown field: q. Known fields: text, ", "callback_url."),
        ({}, "reference_audio: No voice was given.", "voice_id of a saved voice"),
        ({"reference_audio": "FILE", "voice_id": NOBODY}, "voice_id: Both reference_audio and voice_id", "one of them"),
        ({"reference_audio": "reference.wav"}, "reference_audio: This is no file.", "-F reference_audio=@FILE"),
        (
            {"reference_audio": "FILE", "language": "de"},
            'language: "de" is no language that is known here: take one of auto, zh',
            "ja (Japanese)",
        ),
        ({"reference_audio": "FILE", "response_format": "{0}"}, 'response_format: "{0}" is not one of: wav', "pcm."),
        ({"reference_audio": "FILE", "text": ""}, "text: ", "blank"),
    ],
)
def test_a_wrong_form_is_answered_with_what_is_wrong_first(
    api: APIClient, engine: FakeEngine, form: dict[str, str], begins: str, says: str
) -> None:
    sent = {name: recording() if value == "FILE" else value for name, value in form.items()}
    told = message(api.post(SPEAK, {"text": "Hello.", **sent}))
    assert told.startswith(begins) and says in told, told
    assert len(told) < 400


def test_a_field_of_a_cover_that_speech_calls_otherwise_is_recognised(api: APIClient) -> None:
    told = message(api.post(COVER, {"song": recording(), "reference_audio": recording()}))
    assert told.startswith("Unknown field: reference_audio. Did you mean reference_voice?")


def test_an_item_of_a_list_is_told_with_the_choices_too(api: APIClient) -> None:
    for _ in range(2):  # Such a field is made anew for each request.
        told = message(api.post("/api/v1/keys", {"name": "x", "scopes": ["voice"]}, format="json"))
        assert told.startswith('scopes: "voice" is not one of: synthesize, covers')


def test_json_that_is_sent_as_something_else_is_recognised(api: APIClient) -> None:
    as_form = api.post(SPEAK, '{"text": "hi"}', content_type="application/x-www-form-urlencoded")
    assert message(as_form).startswith("The body is JSON, and was sent as a form. Send it with Content-Type: appl")
    assert message(api.post(SPEAK, [1], format="json")).startswith("The body is not a JSON object. Send one")
    told = message(api.post(SPEAK, b"RIFF", content_type="audio/wav"), 415)
    assert told.startswith('Unsupported media type "audio/wav"') and "multipart/form-data" in told


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("headers", "begins", "says"),
    [
        ({}, "No API key was sent.", "X-API-Key"),
        ({"Authorization": "vck_abc"}, "No API key was found in Authorization.", "Bearer"),
        ({"Authorization": "Basic dTpw"}, "No API key was found in Authorization.", "X-API-Key"),
        ({"X-API-Key": "your-api-key"}, "This API key is not valid.", "whole"),
    ],
)
def test_a_key_that_is_none_is_told(headers: dict[str, str], begins: str, says: str) -> None:
    told = message(APIClient().get("/api/v1/voice/syntheses", headers=headers), 401)
    assert told.startswith(begins) and says in told, told


def test_a_wrong_method_is_told_with_the_right_one(api: APIClient) -> None:
    assert message(api.get(SPEAK), 405) == "GET is not allowed here; use POST."
    assert message(api.put(f"{COVER}/{NOBODY}"), 405) == "PUT is not allowed here; use GET, PATCH or DELETE."


def test_a_path_that_is_none_is_told_as_it_was_asked_for(api: APIClient) -> None:
    told = message(api.get("/api/v1/cover/jobs/JOB_ID"), 404)
    assert told == "There is no such path here: /api/v1/cover/jobs/JOB_ID (/docs lists all of them)."
    assert len(message(api.get("/" + "x" * 3000), 404)) < 300
    assert message(api.get("/%ff%ed%a0%80"), 404).startswith("There is no such path here: /")


def test_a_receiver_that_is_refused_is_told_with_the_setting_that_lets_it_in(api: APIClient, settings: Any) -> None:
    # The song, which is missing too, is told first; the details have them all.
    def detail(url: str) -> str:
        (text,) = api.post(COVER, {"callback_url": url}).json()["details"]["callback_url"]
        return str(text)

    assert detail("http://127.0.0.1:9000/hook").startswith("Must begin with https:// (WEBHOOK_ALLOW_HTTP=true")
    assert "WEBHOOK_ALLOWED_NETWORKS" in detail("https://127.0.0.1:9000/hook")
    settings.WEBHOOK_ALLOW_HTTP = True
    assert detail("ftp://127.0.0.1/") == "Must begin with https:// or http://."
    longest = detail("http://127.0.0.1:9000/hook")
    assert longest.startswith("The host has an address that is not public.") and len(longest) <= 200


def test_the_settings_that_are_named_to_clients_exist() -> None:
    for name in ("WEBHOOK_ALLOW_HTTP", "WEBHOOK_ALLOWED_NETWORKS", "ALLOWED_HOSTS"):
        assert hasattr(settings, name)
