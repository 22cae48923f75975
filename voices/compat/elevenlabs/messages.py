"""What is sent over the WebSockets of text to speech, and what their URLs say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict
from rest_framework import serializers

from voiceproject.errors import PublicError
from voiceproject.media.formats import Output
from voices.compat.elevenlabs.base import error_code, number, output_of
from voices.compat.elevenlabs.dictionaries import LocatorsField
from voices.compat.elevenlabs.speech import TextToSpeechSerializer, VoiceSettingsSerializer

INACTIVITY_SECONDS, MAX_INACTIVITY_SECONDS = 20, 180
MAX_CONTEXTS = 5  # that take text; those that are closed may finish what they say, as many again


class BadMessage(PublicError):
    def __init__(self, why: str) -> None:
        super().__init__("validation_error", f"Could not parse input message: {why}.")


class InputTimeout(PublicError):
    def __init__(self, seconds: float) -> None:
        message = (
            f"Have not received a new text input within the timeout of {seconds:.0f} seconds. Streaming input "
            'terminated. Send text in time, or the end of it (an empty string "") when done.'
        )
        super().__init__("validation_error", message)


class TooManyContexts(PublicError):
    def __init__(self) -> None:
        message = f"Maximum simultaneous contexts per WebSocket connection exceeded ({MAX_CONTEXTS})."
        super().__init__("too_many_jobs", f"{message} Please close an existing context before opening a new one.")


class TextTooLong(PublicError):
    def __init__(self, characters: int) -> None:
        message = f"More than {characters} characters wait to be spoken. Send less at a time."
        super().__init__("validation_error", f"text: {message}", {"text": [message]})


def _error_name(error: PublicError) -> str:
    """What is wrong, by the name that ElevenLabs has for it where one is known."""
    match error:
        case BadMessage():
            return "invalid_input_message"
        case InputTimeout():
            return "input_timeout_exceeded"
        case TooManyContexts():
            return "max_active_conversations"
        case TextTooLong():
            return "max_character_limit_exceeded"
    name = error_code(error)
    return "voice_id_does_not_exist" if name == "voice_not_found" else name


def last_message(error: PublicError, code: int) -> str:
    return json.dumps({"message": str(error), "error": _error_name(error), "code": code})


def secret_in(message: str | bytes) -> str:
    """The key in a first message."""
    try:
        sent = parsed(message)
    except PublicError:
        return ""
    for name in ("xi_api_key", "xi-api-key"):
        if isinstance(sent.get(name), str):
            return str(sent[name]).strip()
    scheme, _, bearer = str(sent.get("authorization") or "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else ""


def parsed(message: str | bytes) -> dict[str, Any]:
    """Raises BadMessage."""
    if isinstance(message, bytes):
        raise BadMessage("it is binary, and must be text")
    try:
        sent = json.loads(message)
    except (ValueError, RecursionError):
        raise BadMessage("it is no JSON") from None
    if not isinstance(sent, dict):
        raise BadMessage("it is no JSON object")
    return sent


class GenerationConfigSerializer(serializers.Serializer):
    chunk_length_schedule = serializers.ListField(
        child=serializers.IntegerField(min_value=50, max_value=500), required=False, allow_null=True, min_length=1,
        max_length=100,
    )  # fmt: skip


class MessageSerializer(serializers.Serializer):
    """Unknown fields are ignored, as there."""

    voice_settings = VoiceSettingsSerializer(required=False, allow_null=True)
    generation_config = GenerationConfigSerializer(required=False, allow_null=True)
    pronunciation_dictionary_locators = LocatorsField()


@dataclass(frozen=True)
class Options:
    """What the URL says. asked: fields of TextToSpeechSerializer.

    sync_alignment: times count from the beginning of a context, not of the message. That is how LiveKit, which sends
    it, reads them, while Pipecat, which does not, adds up the messages' times.
    """

    output: Output
    eager: bool
    sync_alignment: bool
    inactivity_seconds: float
    asked: dict[str, Any]

    @classmethod
    def of(cls, query: QueryDict) -> Options:
        """Raises ValidationError."""
        names = ("model_id", "language_code", "seed")
        fields = {name: query[name] for name in names if query.get(name)}
        serializer = TextToSpeechSerializer(data={**fields, "text": "-"})
        serializer.is_valid(raise_exception=True)
        seconds = query.get("inactivity_timeout") or str(INACTIVITY_SECONDS)
        return cls(
            output_of(query, streamed=True),
            query.get("auto_mode", "").lower() == "true",
            query.get("sync_alignment", "").lower() == "true",
            number(seconds, "inactivity_timeout", 1, MAX_INACTIVITY_SECONDS),
            {name: value for name, value in serializer.validated_data.items() if name != "text"},
        )
