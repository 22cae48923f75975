"""Voices: saved ones and presets, in ElevenLabs' shape."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.conf import settings
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.jobs.status import revoked
from voiceproject.media import audio
from voiceproject.web import slots, uploads
from voiceproject.web.api import SizedFileField, TextField, file_response, warning_headers
from voices.compat.common import find_own
from voices.compat.elevenlabs.base import (
    DONE,
    NO_LIMIT,
    TEMPERATURE_A_STABILITY,
    USERS_OF_VOICES,
    ElevenLabsView,
    number,
)
from voices.compat.elevenlabs.speech import VoiceSettingsSerializer
from voices.compat.schema import (
    FLAG,
    NUMBER,
    TEXT,
    WHOLE,
    anything,
    files,
    listed,
    maybe,
    optional,
    query,
    shape,
    texts,
)
from voices.engines import configured
from voices.keys.auth import credentials
from voices.library import consents, recordings, saved, selection, speakers
from voices.library.models import StandingConsent, Voice, VoiceSample
from voices.library.premade import PREMADE
from voices.speech.serializers import DEFAULT_TEMPERATURE, FiniteFloatField
from voices.text.languages import language_code


def _settings(voice: Voice | None = None) -> dict[str, Any]:
    """What was set for a voice, else our defaults, so that sending them back changes nothing."""
    stability = (1.0 - DEFAULT_TEMPERATURE) / TEMPERATURE_A_STABILITY
    known = {"stability": stability, "similarity_boost": 1.0, "style": 0.0, "use_speaker_boost": False, "speed": 1.0}
    return known | (voice.speaking_style if voice else {})


def _voice(voice: Voice) -> dict[str, Any]:
    samples = [
        {"sample_id": str(sample.pk), "file_name": f"{sample.pk}.flac", "mime_type": "audio/flac",
         "size_bytes": sample.audio_bytes, "hash": sample.audio_hash, "duration_secs": sample.duration_seconds}
        for sample in voice.samples.all()
    ]  # fmt: skip
    labels = {} if voice.language == "auto" else {"language": voice.language}
    return {"voice_id": str(voice.pk), "name": voice.name, "samples": samples, "category": "cloned", "labels": labels,
            "description": voice.description, "preview_url": None, "available_for_tiers": [],
            "settings": _settings(voice), "is_owner": True,
            "created_at_unix": int(voice.created_at.timestamp())}  # fmt: skip


def _preset(name: str) -> dict[str, Any]:
    return {"voice_id": name, "name": name.title(), "samples": None, "category": "premade",
            "labels": {"gender": speakers.PRESETS[name]}, "description": "A voice of the built-in engine.",
            "preview_url": None, "available_for_tiers": [], "settings": _settings(),
            "is_owner": False}  # fmt: skip


def _premade(voice_id: str) -> dict[str, Any]:
    name, preset = PREMADE[voice_id]
    return {**_preset("alloy"), "voice_id": voice_id, "name": name, "labels": {"gender": preset}, "is_legacy": True}


def _built_in() -> dict[str, dict[str, Any]]:
    """What the engine's own voices are known by: presets, and ElevenLabs' premade ids."""
    named = speakers.presets()
    own = {speakers.PRESETS[name] for name in named}
    spoken = [voice_id for voice_id, (_, preset) in PREMADE.items() if preset in own]
    return {name: _preset(name) for name in named} | {voice_id: _premade(voice_id) for voice_id in spoken}


def _listed(request: Request) -> list[dict[str, Any]]:
    """Premade ids only for who asks for `show_legacy`, as 1.x of their client does to find one by its name."""
    query = request.query_params
    legacy, ids = query.get("show_legacy", "").lower() == "true", query.getlist("voice_ids")
    built_in = [one for one in _built_in().values() if legacy or "is_legacy" not in one or one["voice_id"] in ids]
    return [*map(_voice, own_voices(request)), *built_in]


def own_voices(request: Request) -> Any:
    return Voice.objects.for_tenant(request.user).filter(taken_down_at=None).prefetch_related("samples")


SETTINGS = shape(
    "VoiceSettings", stability=NUMBER, similarity_boost=NUMBER, style=NUMBER, use_speaker_boost=FLAG, speed=NUMBER
)
SAMPLE = shape(
    "VoiceSample", sample_id=TEXT, file_name=TEXT, mime_type=TEXT, size_bytes=WHOLE, hash=TEXT,
    duration_secs=NUMBER,
)  # fmt: skip
VOICE = shape(
    "Voice", voice_id=TEXT, name=TEXT, samples=listed(SAMPLE, null=True), category=TEXT, labels=anything,
    description=TEXT, preview_url=maybe(TEXT), available_for_tiers=texts, settings=SETTINGS, is_owner=FLAG,
    created_at_unix=optional(WHOLE),
)  # fmt: skip
VOICES = listed(VOICE)
VOICES_OF_PAGE = shape("VoicesPage", voices=VOICES, has_more=FLAG, total_count=WHOLE, next_page_token=maybe(TEXT))


class VoicesView(ElevenLabsView):
    tag = "Voices"
    required_scope = USERS_OF_VOICES

    @extend_schema(summary="Saved voices and presets", responses=shape("Voices", voices=VOICES))
    def get(self, request: Request) -> Response:
        return Response({"voices": _listed(request)})


class VoicesV2View(ElevenLabsView):
    """With search, category and pages; the token is how many came before."""

    tag = "Voices"
    required_scope = USERS_OF_VOICES

    @extend_schema(
        summary="Saved voices and presets, in pages",
        responses=VOICES_OF_PAGE,
        parameters=[
            query("page_size", "1 to 100", int, default=10),
            query("next_page_token", "Of the page before"),
            query("search", "In names and descriptions"),
            query("category", "cloned or premade"),
        ],
    )
    def get(self, request: Request) -> Response:
        query = request.query_params
        size = number(query.get("page_size", "10"), "page_size", 1, 100)
        start = number(query.get("next_page_token") or "0", "next_page_token", 0, NO_LIMIT)
        found = _listed(request)
        if search := query.get("search", "").lower():
            found = [voice for voice in found if search in f"{voice['name']} {voice['description']}".lower()]
        if category := query.get("category"):
            found = [voice for voice in found if voice["category"] == category]
        if ids := query.getlist("voice_ids"):
            found = [voice for voice in found if voice["voice_id"] in ids]
        more = start + size < len(found)
        return Response({"voices": found[start : start + size], "has_more": more, "total_count": len(found),
                         "next_page_token": str(start + size) if more else None})  # fmt: skip


class VoiceView(ElevenLabsView):
    tag = "Voices"

    @property
    def required_scope(self) -> Any:
        return "voices" if self.request.method == "DELETE" else USERS_OF_VOICES

    @extend_schema(summary="A voice", responses=VOICE)
    def get(self, request: Request, voice_id: str) -> Response:
        return Response(_built_in().get(voice_id) or _voice(find_own(request, voice_id)))

    @extend_schema(summary="Delete a voice", responses={200: DONE})
    def delete(self, request: Request, voice_id: str) -> Response:
        if voice_id in {**speakers.PRESETS, **PREMADE}:
            raise PublicError("permission_denied", "A premade voice cannot be deleted.")
        saved.delete(find_own(request, voice_id), request)
        return Response({"status": "ok"})


class VoiceSettingsView(ElevenLabsView):
    """Of a voice, or without one those that every voice has until they are changed."""

    tag = "Voices"
    required_scope = USERS_OF_VOICES

    @extend_schema(summary="How a voice speaks where a request does not say", responses=SETTINGS)
    def get(self, request: Request, voice_id: str = "") -> Response:
        own = find_own(request, voice_id) if voice_id and voice_id not in _built_in() else None
        return Response(_settings(own))


class EditSettingsSerializer(VoiceSettingsSerializer):
    similarity_boost = FiniteFloatField(required=False, allow_null=True, min_value=0, max_value=1)
    style = FiniteFloatField(  # type: ignore[assignment] # the stubs do not know that fields are taken out of the class
        required=False, allow_null=True, min_value=0, max_value=1
    )
    use_speaker_boost = serializers.BooleanField(required=False, allow_null=True)


class EditVoiceSettingsView(ElevenLabsView):
    """What is spoken in the voice from now on, where a request does not say. Stability and speed count."""

    tag = "Voices"
    required_scope = "voices"

    @extend_schema(
        summary="Change how a voice speaks", request={"application/json": EditSettingsSerializer}, responses=DONE
    )
    def post(self, request: Request, voice_id: str) -> Response:
        voice = _changeable(request, voice_id)
        serializer = EditSettingsSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        sent = {name: value for name, value in serializer.validated_data.items() if value is not None}
        saved.change(voice, {"speaking_style": {**voice.speaking_style, **sent}})
        return Response({"status": "ok"})


def _changeable(request: Request, voice_id: str) -> Voice:
    if voice_id in {**speakers.PRESETS, **PREMADE}:
        raise PublicError("permission_denied", "A premade voice cannot be changed.")
    voice = find_own(request, voice_id)
    if voice.taken_down_at is not None:
        raise revoked()
    return voice


def _sample(request: Request, voice_id: str, sample_id: uuid.UUID) -> tuple[Voice, VoiceSample]:
    voice = _changeable(request, voice_id)
    sample = voice.samples.filter(pk=sample_id).first()
    if sample is None:
        raise PublicError("not_found", "There is no such sample.")
    return voice, sample


class SampleAudioView(ElevenLabsView):
    tag = "Voices"
    required_scope = "voices"

    @extend_schema(summary="Hear a sample of a voice", responses=files(["audio/flac"]))
    def get(self, request: Request, voice_id: str, sample_id: uuid.UUID) -> HttpResponseBase:
        _, sample = _sample(request, voice_id, sample_id)
        return file_response(
            request._request, sample.audio, content_type=audio.CONTENT_TYPES["flac"], filename=f"{sample.pk}.flac"
        )


class SampleView(ElevenLabsView):
    tag = "Voices"
    required_scope = "voices"

    @extend_schema(summary="Delete a sample of a voice", responses={200: DONE})
    def delete(self, request: Request, voice_id: str, sample_id: uuid.UUID) -> Response:
        voice, sample = _sample(request, voice_id, sample_id)
        with slots.waiting_slot(request.user.pk):
            saved.delete_sample(voice, sample)
        return Response({"status": "ok"})


class AddVoiceSerializer(serializers.Serializer):
    name = TextField(max_length=100)
    description = TextField(required=False, allow_blank=True, default="", max_length=500)
    labels = serializers.CharField(required=False, allow_blank=True, default="", max_length=5000)
    files = serializers.ListField(
        child=SizedFileField(max_bytes_setting="MAX_UPLOAD_SIZE"), min_length=1, max_length=saved.MAX_SAMPLES
    )

    def validate_labels(self, text: str) -> dict[str, Any]:
        try:
            labels = json.loads(text or "{}") or {}
        except (ValueError, RecursionError):
            labels = None
        if not isinstance(labels, dict):
            raise serializers.ValidationError("Must be a JSON object, as a string.")
        return labels


class AddVoiceView(ElevenLabsView):
    """The form has no field for consent: the tenant's standing statement is recorded, and needed."""

    tag = "Voices"
    required_scope = "voices"

    def get_max_body_bytes(self) -> int:
        return saved.MAX_SAMPLES * settings.MAX_UPLOAD_SIZE

    @extend_schema(
        summary="Save a voice, with the account's standing consent",
        request={"multipart/form-data": AddVoiceSerializer},
        responses=shape("AddedVoice", voice_id=TEXT, requires_verification=FLAG),
    )
    def post(self, request: Request) -> Response:
        standing = _standing(request)
        serializer = AddVoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        paths = [uploads.upload_path(file) for file in asked["files"]]
        with slots.waiting_slot(request.user.pk), recordings.reading(paths, "files") as found:
            voice = saved.create(
                consents.provider(request),
                [(recording, "") for recording in found],
                standing.statement,
                name=asked["name"],
                description=asked["description"],
                language=_language(asked["labels"]) or "auto",
                engine=configured.get_engine(),
            )
        told = warning_headers(warning for recording in found for warning in recording.quality.warnings)
        return Response({"voice_id": str(voice.pk), "requires_verification": False}, headers=told)


def _standing(request: Request) -> StandingConsent:
    standing = StandingConsent.objects.filter(tenant=credentials(request)[0]).first()
    if standing is None:
        raise PublicError(
            "permission_denied",
            "Voices are saved with the speaker's consent. State yours once with PUT /api/v1/voice/consent.",
        )
    return standing


def _language(labels: dict[str, Any]) -> str | None:
    language = language_code(str(labels.get("language", "")))
    return language if language in configured.get_engine().languages else None


class EditVoiceSerializer(AddVoiceSerializer):
    files = serializers.ListField(
        child=SizedFileField(max_bytes_setting="MAX_UPLOAD_SIZE"), required=False, default=list,
        max_length=saved.MAX_SAMPLES,
    )  # fmt: skip
    description = TextField(required=False, allow_blank=True, max_length=500)  # type: ignore[assignment]


class EditVoiceView(ElevenLabsView):
    """Name, description and language; files are more samples, for which the standing statement is needed."""

    tag = "Voices"
    required_scope = "voices"

    def get_max_body_bytes(self) -> int:
        return saved.MAX_SAMPLES * settings.MAX_UPLOAD_SIZE

    @extend_schema(
        summary="Change a voice, or add samples to it",
        request={"multipart/form-data": EditVoiceSerializer},
        responses=DONE,
    )
    def post(self, request: Request, voice_id: str) -> Response:
        voice = _changeable(request, voice_id)
        serializer = EditVoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        if asked["files"]:
            standing = _standing(request)
            paths = [uploads.upload_path(file) for file in asked["files"]]
            with slots.waiting_slot(request.user.pk), recordings.reading(paths, "files") as found:
                for recording in found:
                    saved.add_sample(consents.provider(request), voice, recording, "", standing.statement)
                selection.prepare(voice, configured.get_engine())
        changes = {name: asked[name] for name in ("name", "description") if name in asked}
        if language := _language(asked["labels"]):
            changes["language"] = language
        saved.change(voice, changes)
        return Response({"status": "ok"})
