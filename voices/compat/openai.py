"""OpenAI's speech API under /openai/v1, for its official clients: base_url and key are all that changes.

Not taken over: instructions (engines have no use for them) and voices made from prompts.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.media import audio, memory
from voiceproject.media.formats import CONTENT_TYPES, Output
from voiceproject.web import slots, uploads
from voiceproject.web.api import SizedFileField, TextField, tell_choices, warning_headers
from voices.compat.common import (
    PCM_RATE,
    CompatView,
    Reshaped,
    Speaking,
    Transcoded,
    UnknownPathMixin,
    clamp_speed,
    file_of,
    find_own,
    invalid,
    model_id,
    recode,
    streaming_response,
)
from voices.compat.schema import FLAG, TEXT, WHOLE, files, header, listed, maybe, query, shape
from voices.engines import configured
from voices.keys.auth import credentials
from voices.library import consents, recordings, saved, speakers
from voices.library.models import RecordedConsent, Voice
from voices.speech import registry
from voices.speech.serializers import FiniteFloatField
from voices.text.languages import language_code

MAX_INPUT_CHARACTERS = 4096
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
AUDIO_TOKENS_A_SECOND, CHARACTERS_A_TOKEN = 20, 4
MAX_PAGE = 100

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
ERROR_CODES = {"quota_exceeded": "insufficient_quota", "rate_limited": "rate_limit_exceeded"}


class OpenAIView(CompatView):
    tree = "openai"
    error_serializer = shape(
        "Error", error=shape("ErrorBody", message=TEXT, type=TEXT, param=maybe(TEXT), code=maybe(TEXT))
    )
    field_names = {"text": "input", "voice_id": "voice", "model_id": "model", "sample": "audio_sample"}

    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        kind = ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
        if error.code == "quota_exceeded":
            kind = "insufficient_quota"
        if error.status == 409 or error.code == "quota_exceeded":
            response["x-should-retry"] = "false"  # Their client would repeat what cannot change by that.
        code = ERROR_CODES.get(error.code, error.code)
        return {"error": {"message": self.message(error), "type": kind, "param": self.param(error), "code": code}}


class UnknownPathView(UnknownPathMixin, OpenAIView):
    pass


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string"},
            {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        ]
    }
)
class VoiceField(serializers.JSONField):
    """A name, or an object that has it as its id."""


class SpeechSerializer(serializers.Serializer):
    """Unknown fields are ignored, as there. So is what is null: clients send it for what their users did not set."""

    input = TextField(max_length=MAX_INPUT_CHARACTERS)
    model = serializers.CharField(default="", allow_blank=True, max_length=200)
    voice = VoiceField(
        required=False, help_text="A saved voice's id or name, an alias or a preset; where it is missing, `model` is it"
    )
    instructions = serializers.CharField(required=False, allow_blank=True)
    response_format = serializers.ChoiceField(FORMATS, default="mp3")
    speed = FiniteFloatField(default=1.0, min_value=0.25, max_value=4.0)
    stream_format = serializers.ChoiceField(("audio", "sse"), default="audio")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            tell_choices(field)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if value not in (None, "") or name == "input"}
        return super().to_internal_value(data)

    def validate_voice(self, voice: Any) -> str:
        name = voice.get("id") if isinstance(voice, dict) else voice
        if not isinstance(name, str) or not name:
            raise serializers.ValidationError('Must be a name or {"id": "..."}.')
        return name


class SpeechView(OpenAIView):
    tag = "Speech"
    required_scope = "synthesize"
    at_desk = True

    @extend_schema(
        summary="Speak a text",
        request={"application/json": SpeechSerializer},
        responses=files(CONTENT_TYPES[name] for name in FORMATS)
        | {(200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, description="With stream_format=sse")},
        parameters=[header("X-Synthesis-ID", "Under which our own API has it")],
    )
    def post(self, request: Request) -> HttpResponseBase:
        tenant, _ = credentials(request)
        serializer = SpeechSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        format = asked["response_format"]
        speed, clamped = clamp_speed(asked["speed"])
        speaker = speaker_of(tenant, asked)
        fields: dict[str, Any] = {"text": asked["input"], "speed": speed, "model_id": model_id(asked["model"], tenant)}
        if isinstance(speaker, Voice):
            fields["voice_id"] = str(speaker.pk)
        output = Output(format, PCM_RATE if format == "pcm" else None)
        sse = asked["stream_format"] == "sse"
        # What can carry a mark of its origin is made whole, so that it has one; so is WAV, whose header tells how long.
        streamed = sse or format in ("pcm", "opus")
        native = not streamed and format in ("mp3", "flac", "wav")
        fields["response_format"] = format if native else "wav"
        speaking = Speaking(request, speaker, fields, streamed=streamed, output="" if native else format)
        response: HttpResponseBase
        if streamed:
            blocks = Transcoded(speaking.stream(), output)
            if sse:
                response = streaming_response(Reshaped(events(blocks, speaking), blocks), "text/event-stream")
            else:
                response = streaming_response(blocks, CONTENT_TYPES[format])
        else:
            speech = speaking.whole()
            content = file_of(speech, speaking.job) if native else recode(speech, speaking.job, output)
            response = HttpResponse(content, content_type=CONTENT_TYPES[format])
        response["X-Synthesis-ID"] = str(speaking.job.pk)
        for name, value in speaking.headers.items():
            response[name] = value
        if clamped:
            response["X-Speed-Clamped"] = f"{speed:g}"
        return response


def speaker_of(tenant: User, asked: dict[str, Any]) -> str | Voice:
    """The voice, which LocalAI's clients send as the model, and nothing as the voice."""
    if "voice" in asked:
        return speakers.find(tenant, asked["voice"])
    try:
        return speakers.find(tenant, asked["model"])
    except PublicError as error:
        if error.code != "not_found":
            raise
        raise invalid("voice", str(SpeechSerializer().fields["voice"].error_messages["required"])) from error


def events(blocks: Transcoded, speaking: Speaking) -> Iterator[bytes]:
    """Audio as OpenAI's server-sent events."""
    for block in blocks:
        yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(block).decode()})
    seconds = speaking.job.duration_seconds or 0.0
    spoken = math.ceil(seconds * AUDIO_TOKENS_A_SECOND)
    read = math.ceil(len(speaking.text) / CHARACTERS_A_TOKEN)
    usage = {"input_tokens": read, "output_tokens": spoken, "total_tokens": read + spoken}
    yield _event({"type": "speech.audio.done", "usage": usage})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "voiceproject"}


def _model_names(tenant: Any) -> list[str]:
    own = [model["id"] for model in registry.models(tenant and tenant.pk) if "synthesis" in model["uses"]]
    return list(dict.fromkeys([*own, *MODELS]))


MODEL = shape("Model", id=TEXT, object=TEXT, created=WHOLE, owned_by=TEXT)
NAMED = shape("Named", id=TEXT, name=TEXT)


class ModelsView(OpenAIView):
    """Ours, and the names of theirs that mean our default."""

    tag = "Models"
    required_scope = None

    @extend_schema(summary="The models", responses=shape("Models", object=TEXT, data=listed(MODEL)))
    def get(self, request: Request) -> Response:
        return Response({"object": "list", "data": [_model(known) for known in _model_names(request.user)]})


class ModelView(OpenAIView):
    tag = "Models"
    required_scope = None

    @extend_schema(summary="A model", responses=MODEL)
    def get(self, request: Request, name: str) -> Response:
        if name not in _model_names(request.user):
            raise PublicError("not_found", f"There is no model {name[:100]}.", {"model": name[:100]})
        return Response(_model(name))


def _voice(voice: Voice) -> dict[str, Any]:
    return {"id": f"voice_{voice.pk.hex}", "object": "audio.voice", "created_at": int(voice.created_at.timestamp()),
            "name": voice.name, "type": "audio_sample"}  # fmt: skip


def _language(tag: str) -> str:
    """Of a tag such as en-US, what our samples know; auto for others."""
    language = language_code(tag)
    return language if language and language in configured.get_engine().languages else "auto"


VOICE = shape("Voice", id=TEXT, object=TEXT, created_at=WHOLE, name=TEXT, type=TEXT)
CONSENT = shape("VoiceConsent", id=TEXT, object=TEXT, created_at=WHOLE, name=TEXT, language=TEXT)
DELETED = shape("Deleted", id=TEXT, object=TEXT, deleted=FLAG)


class CreateVoiceSerializer(serializers.Serializer):
    name = TextField(max_length=100)
    audio_sample = SizedFileField(max_bytes_setting="MAX_UPLOAD_SIZE")
    consent = serializers.CharField(max_length=100)


class OpenlyListed(OpenAIView):
    """Lists that Open WebUI asks for without a key. With OPEN_VOICES_OF they are that user's then."""

    @property
    def keyless(self) -> bool:
        if not settings.OPEN_VOICES_OF or self.request.method not in ("GET", "HEAD"):
            return False
        # A key in the URL is refused here too.
        return not any(self.request.META.get(name) for name in ("HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "QUERY_STRING"))

    def get_authenticators(self) -> Any:
        return [] if self.keyless else super().get_authenticators()

    def get_permissions(self) -> Any:
        return [] if self.keyless else super().get_permissions()

    def owner(self, request: Request) -> Any:
        """Whose voices are listed; None where there is no such user."""
        if not self.keyless:
            return request.user
        return User.objects.filter(username=settings.OPEN_VOICES_OF, is_active=True).first()


class AudioModelsView(OpenlyListed):
    """What Open WebUI takes its list of models from."""

    tag = "Models"
    required_scope = None

    @extend_schema(
        summary="The models, as Open WebUI asks for them",
        responses=shape("AudioModels", models=listed(NAMED)),
    )
    def get(self, request: Request) -> Response:
        return Response({"models": [{"id": name, "name": name} for name in _model_names(self.owner(request))]})


class VoicesView(OpenlyListed):
    """With `voices` beside OpenAI's `data`: Open WebUI and OpenReader read that."""

    tag = "Voices"

    @property
    def required_scope(self) -> Any:
        return "voices" if self.request.method == "POST" else ("voices", "synthesize", "covers")

    @extend_schema(
        summary="Saved voices and presets",
        responses=shape(
            "Voices", object=TEXT, data=listed(VOICE),
            voices=listed(NAMED), has_more=FLAG,
        ),
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        owner = self.owner(request)
        own = Voice.objects.for_tenant(owner).filter(taken_down_at=None) if owner is not None else ()
        built_in = [
            {"id": name, "object": "audio.voice", "created_at": 0, "name": name.title(), "type": "preset"}
            for name in speakers.presets()
        ]
        data = [*map(_voice, own), *built_in]
        short = [{"id": voice["id"], "name": voice["name"]} for voice in data]
        return Response({"object": "list", "data": data, "voices": short, "has_more": False})

    @extend_schema(
        summary="Save a voice of a sample and a recorded consent",
        request={"multipart/form-data": CreateVoiceSerializer},
        responses=VOICE,
    )
    def post(self, request: Request) -> Response:
        if isinstance(request.data, dict) and request.data.get("type") == "prompt":
            raise invalid("type", "Voices are made from samples here: send audio_sample and consent.")
        serializer = CreateVoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        consent = _consent(request, asked["consent"], "consent")
        path = uploads.upload_path(asked["audio_sample"])
        with slots.waiting_slot(request.user.pk), recordings.reading([path], "audio_sample") as [recording]:
            voice = saved.create(
                consents.provider(request),
                [(recording, "")],
                consent.statement,
                name=asked["name"],
                language=_language(consent.language),
                engine=configured.get_engine(),
            )
        return Response(_voice(voice), headers=warning_headers(recording.quality.warnings))


class VoiceView(OpenAIView):
    tag = "Voices"
    required_scope = "voices"

    @extend_schema(summary="Delete a voice", responses={200: DELETED})
    def delete(self, request: Request, name: str) -> Response:
        if name in speakers.PRESETS:
            raise PublicError("permission_denied", "A preset voice cannot be deleted.")
        voice = find_own(request, name)
        saved.delete(voice, request)
        return Response({"id": name, "object": "audio.voice.deleted", "deleted": True})


def _consent(request: Request, name: str, field: str | None = None) -> RecordedConsent:
    try:
        own = RecordedConsent.objects.for_tenant(request.user)
        consent: RecordedConsent | None = own.filter(pk=uuid.UUID(name.removeprefix("cons_"))).first()
    except ValueError:
        consent = None
    if consent is None:
        if field:
            raise invalid(field, "There is no such consent: POST /audio/voice_consents first.")
        raise PublicError("not_found", "There is no such consent, or it is not yours.")
    return consent


def _shown(consent: RecordedConsent) -> dict[str, Any]:
    return {"id": str(consent), "object": "audio.voice_consent", "created_at": int(consent.created_at.timestamp()),
            "name": consent.name, "language": consent.language}  # fmt: skip


class CreateConsentSerializer(serializers.Serializer):
    name = TextField(max_length=100)
    language = serializers.RegexField(r"\A[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}\Z")
    recording = SizedFileField(max_bytes_setting="MAX_UPLOAD_SIZE")


class ConsentsView(OpenAIView):
    tag = "Consents"
    required_scope = "voices"

    @extend_schema(
        summary="Recorded consents, newest first",
        responses=shape(
            "VoiceConsents", object=TEXT, data=listed(CONSENT),
            first_id=maybe(TEXT), last_id=maybe(TEXT), has_more=FLAG,
        ),
        parameters=[query("limit", f"1 to {MAX_PAGE}", int, default=20), query("after", "The last of the page before")],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        try:
            limit = min(MAX_PAGE, max(1, int(request.query_params.get("limit", 20))))
        except ValueError:
            raise invalid("limit", f"Must be a number from 1 to {MAX_PAGE}.") from None
        found = RecordedConsent.objects.for_tenant(request.user)
        if after := request.query_params.get("after"):
            last = _consent(request, after)
            found = found.filter(created_at__lte=last.created_at).exclude(pk=last.pk)
        rows = list(found[: limit + 1])
        data = [_shown(row) for row in rows[:limit]]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return Response({"object": "list", "data": data, **ends, "has_more": len(rows) > limit})

    @extend_schema(
        summary="Record a speaker's consent",
        request={"multipart/form-data": CreateConsentSerializer},
        responses=CONSENT,
    )
    def post(self, request: Request) -> Response:
        serializer = CreateConsentSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        with slots.waiting_slot(request.user.pk):
            path = uploads.upload_path(asked["recording"])
            warnings: list[str] = []
            with memory.claim(memory.to_decode(path, recordings.MAX_SECONDS, recordings.BYTES_PER_SECOND)):
                # Somebody has said something.
                audio.load_reference(path, field="recording", min_seconds=1.0, warnings=warnings)
        consent = RecordedConsent.objects.create(
            tenant=credentials(request)[0],
            name=asked["name"],
            language=asked["language"],
            recording_hash=audio.sha256_file(path),
        )
        return Response(_shown(consent), headers=warning_headers(warnings))


class ConsentView(OpenAIView):
    tag = "Consents"
    required_scope = "voices"

    @extend_schema(summary="A recorded consent", responses=CONSENT)
    def get(self, request: Request, name: str) -> Response:
        return Response(_shown(_consent(request, name)))

    @extend_schema(
        summary="Name a recorded consent anew",
        request={"application/json": inline_serializer("RenameConsent", {"name": TextField(max_length=100)})},
        responses=CONSENT,
    )
    def post(self, request: Request, name: str) -> Response:
        consent = _consent(request, name)
        serializer = CreateConsentSerializer(data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        consent.name = serializer.validated_data.get("name", consent.name)
        consent.save(update_fields=["name"])
        return Response(_shown(consent))

    @extend_schema(summary="Delete a recorded consent", responses={200: DELETED})
    def delete(self, request: Request, name: str) -> Response:
        _consent(request, name).delete()
        return Response({"id": name, "object": "audio.voice_consent", "deleted": True}, status=status.HTTP_200_OK)
