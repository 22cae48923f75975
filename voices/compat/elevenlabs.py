"""ElevenLabs' API under /elevenlabs, for its official clients: base_url and key are all that changes.

Taken over: text to speech (whole, streamed, with timestamps), voices, models, history, user. Speech to speech is in
covers.speech_to_speech. Of voice_settings, speed and stability count (less stability is more temperature).
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Sum
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.jobs.status import JobStatus
from voiceproject.media import audio
from voiceproject.media.formats import Output
from voiceproject.tenants import usage
from voiceproject.tenants.models import UsageEntry
from voiceproject.web import slots, uploads
from voiceproject.web.api import SizedFileField, TextField, file_response
from voices.compat.common import (
    PRESETS,
    CompatView,
    Reshaped,
    Speaking,
    Transcoded,
    UnknownPathMixin,
    clamp_speed,
    find_speaker,
    invalid,
    model_id,
    presets,
    recode,
    streaming_response,
)
from voices.compat.openai import find_own
from voices.engines import configured
from voices.keys.auth import ApiKeyAuthentication, credentials
from voices.keys.models import ApiKey
from voices.library import consents, saved
from voices.library.models import StandingConsent, Voice
from voices.library.recordings import read_sample
from voices.speech import registry, synthesis
from voices.speech.models import Synthesis
from voices.speech.serializers import DEFAULT_TEMPERATURE, LANGUAGES, MAX_SEED, MAX_TEXT_CHARACTERS, FiniteFloatField

OUTPUTS = {
    **{f"mp3_{rate}_{kbps}": Output("mp3", rate, kbps)
       for rate, kbps in ((22_050, 32), (24_000, 48), *((44_100, kbps) for kbps in (32, 64, 96, 128, 192)))},
    **{f"pcm_{rate}": Output("pcm", rate) for rate in (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)},
    **{f"wav_{rate}": Output("wav", rate) for rate in (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)},
    **{f"opus_48000_{kbps}": Output("opus", 48_000, kbps) for kbps in (32, 64, 96, 128, 192)},
    "ulaw_8000": Output("ulaw", 8_000),
    "alaw_8000": Output("alaw", 8_000),
}  # fmt: skip
DEFAULT_OUTPUT = "mp3_44100_128"
NO_LIMIT = 2**31 - 1
CHARACTERS_A_SECOND = 15  # of speech: what a quota of seconds means in characters
MAX_PAGE = 1000
TEMPERATURE_A_STABILITY = 0.9  # stability 0 is temperature 1.0, stability 1 is 0.1

ERROR_TYPES = {
    400: "validation_error",
    401: "authentication_error",
    403: "authorization_error",
    404: "not_found",
    409: "conflict",
    413: "validation_error",
    429: "rate_limit_error",
}
ERROR_CODES = {
    "missing_api_key": "needs_authorization",
    "rate_limited": "rate_limit_exceeded",
    "too_many_jobs": "concurrent_limit_exceeded",
    "too_many_waiting": "concurrent_limit_exceeded",
    "engine_busy": "system_busy",
    "permission_denied": "missing_permissions",
}


class ElevenLabsAuthentication(ApiKeyAuthentication):
    """`xi-api-key: <key>`, or as our own API takes it."""

    def authenticate(self, request: Request) -> Any:
        if key := request.META.get("HTTP_XI_API_KEY"):
            request.META["HTTP_X_API_KEY"] = key
        return super().authenticate(request)


class ElevenLabsView(CompatView):
    authentication_classes = (ElevenLabsAuthentication,)
    field_names = {"sample": "files"}

    def render_error(self, error: PublicError, response: Response) -> dict[str, Any]:
        kind = ERROR_TYPES.get(error.status, "invalid_request" if error.status < 500 else "internal_error")
        code = ERROR_CODES.get(error.code, error.code)
        if error.code == "not_found" and "voice_id" in error.details:
            code = "voice_not_found"
        request_id = str(getattr(self.request._request, "request_id", ""))
        response["request-id"] = request_id
        detail = {"type": kind, "code": code, "message": error.message, "status": code, "request_id": request_id,
                  "param": self.param(error)}  # fmt: skip
        return {"detail": detail}

    def output(self, request: Request, *, streamed: bool) -> Output:
        """What `output_format` of the query names. Raises ValidationError."""
        name = request.query_params.get("output_format") or DEFAULT_OUTPUT
        if name not in OUTPUTS or (streamed and name.startswith("wav_")):
            known = [known for known in OUTPUTS if not (streamed and known.startswith("wav_"))]
            raise invalid("output_format", f"Must be one of {', '.join(known)}.")
        return OUTPUTS[name]


class UnknownPathView(UnknownPathMixin, ElevenLabsView):
    pass


class VoiceSettingsSerializer(serializers.Serializer):
    stability = FiniteFloatField(required=False, allow_null=True, min_value=0, max_value=1)
    speed = FiniteFloatField(required=False, allow_null=True, min_value=0.25, max_value=4)


class TextToSpeechSerializer(serializers.Serializer):
    """Unknown fields are ignored, as there."""

    text = TextField(max_length=MAX_TEXT_CHARACTERS)
    model_id = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=200)
    language_code = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=35)
    voice_settings = VoiceSettingsSerializer(required=False, allow_null=True)
    seed = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=MAX_SEED)


def alignment(text: str, spoken: list[tuple[str, float, float]]) -> dict[str, Any]:
    """When each character is said: sentences as they were made, letters within one by their share of it."""
    characters: list[str] = []
    starts: list[float] = []
    ends: list[float] = []
    place = 0
    for number, (sentence, begin, end) in enumerate(spoken):
        # What an engine has read otherwise than it stood there is laid over its own length.
        found = text.find(sentence, place)
        stop = found + len(sentence) if found >= 0 else min(len(text), place + len(sentence))
        if number == len(spoken) - 1:
            stop = len(text)
        part = text[place:stop]
        weights = [1.0 if char.isalnum() else 0.5 for char in part]
        total = sum(weights) or 1.0
        at = begin
        for char, weight in zip(part, weights, strict=True):
            until = at + (end - begin) * weight / total
            characters.append(char)
            starts.append(round(at, 3))
            ends.append(round(until, 3))
            at = until
        place = stop
    return {"characters": characters, "character_start_times_seconds": starts, "character_end_times_seconds": ends}


@extend_schema(exclude=True)
class TextToSpeechView(ElevenLabsView):
    """streamed, timestamps: which of the four routes it is."""

    required_scope = "synthesize"
    streamed = False
    timestamps = False

    def post(self, request: Request, voice_id: str) -> HttpResponseBase:
        tenant, key = credentials(request)
        output = self.output(request, streamed=self.streamed)
        serializer = TextToSpeechSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        speaker = find_speaker(tenant, voice_id)
        style = asked.get("voice_settings") or {}
        fields: dict[str, Any] = {"text": asked["text"], "model_id": model_id(asked.get("model_id") or "")}
        if isinstance(speaker, Voice):
            fields["voice_id"] = str(speaker.pk)
        if asked.get("seed") is not None:
            fields["seed"] = asked["seed"]
        if language := (asked.get("language_code") or "").lower().partition("-")[0]:
            known = [code for code in LANGUAGES[1:] if code in configured.get_engine().languages]
            if language not in known:
                raise invalid("language_code", f"Must be one of {', '.join(known)}.")
            fields["language"] = language
        if style.get("speed") is not None:
            fields["speed"], _ = clamp_speed(style["speed"])
        if style.get("stability") is not None:
            fields["temperature"] = max(0.1, 1.0 - TEMPERATURE_A_STABILITY * style["stability"])
        speaking = Speaking(request, speaker, fields, streamed=self.streamed)
        response = self._streamed(speaking, output) if self.streamed else self._whole(speaking, output)
        for name, value in headers(request, key, speaking).items():
            response[name] = value
        return response

    def _whole(self, speaking: Speaking, output: Output) -> HttpResponseBase:
        speech = speaking.whole()
        content = recode(speech, speaking.job, output)
        if not self.timestamps:
            return HttpResponse(content, content_type=output.content_type)
        times = alignment(speaking.text, speech.spoken)
        body = {
            "audio_base64": base64.b64encode(content).decode(), "alignment": times, "normalized_alignment": times,
        }  # fmt: skip
        return HttpResponse(json.dumps(body), content_type="application/json")

    def _streamed(self, speaking: Speaking, output: Output) -> HttpResponseBase:
        stream = speaking.stream()
        blocks = Transcoded(stream, output)
        if not self.timestamps:
            return streaming_response(blocks, output.content_type)
        lines = iter(TimedLines(blocks, stream, speaking.text))
        return streaming_response(Reshaped(lines, blocks), "application/json")


class TimedLines:
    """Audio and when its characters are said, a line of JSON each."""

    def __init__(self, blocks: Transcoded, stream: synthesis.SpeechStream, text: str) -> None:
        self._blocks = blocks
        self._stream = stream
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        told = 0
        for block in self._blocks:
            yield self._line(block, self._times(told, last=False))
            told = self._told
        times = self._times(told, last=True)
        if times is not None:
            yield self._line(b"", times)

    def _times(self, told: int, *, last: bool) -> dict[str, Any] | None:
        """Of the sentences that no line has told yet. The last one waits for the end: what follows it is its own."""
        spoken = self._stream.spoken
        self._told = count = len(spoken) if last else max(told, len(spoken) - 1)
        if count <= told:
            return None
        whole = alignment(self._text, spoken)
        before = _characters(self._text, spoken[:told])
        until = len(whole["characters"]) if last else _characters(self._text, spoken[:count])
        return {name: values[before:until] for name, values in whole.items()}

    @staticmethod
    def _line(block: bytes, times: dict[str, Any] | None) -> bytes:
        body = {"audio_base64": base64.b64encode(block).decode(), "alignment": times, "normalized_alignment": times}
        return json.dumps(body).encode() + b"\n"


def _characters(text: str, spoken: list[tuple[str, float, float]]) -> int:
    """How much of a text these first sentences take, as `alignment` counts it where others follow."""
    place = 0
    for sentence, _, _ in spoken:
        found = text.find(sentence, place)
        place = found + len(sentence) if found >= 0 else min(len(text), place + len(sentence))
    return place


def headers(request: Request, key: ApiKey, speaking: Speaking) -> dict[str, str]:
    running = Synthesis.objects.filter(tenant=key.user, status=JobStatus.RUNNING).count()
    limit = key.max_concurrent_jobs or max(1, settings.WEB_THREADS - 4)
    return {
        "request-id": str(getattr(request._request, "request_id", "")),
        "history-item-id": str(speaking.job.pk),
        "character-cost": str(len(speaking.text)),
        "current-concurrent-requests": str(max(1, running)),
        "maximum-concurrent-requests": str(limit),
    }


# --- voices ---


def _settings() -> dict[str, Any]:
    """Those of every voice: what a synthesis without settings gets, so that sending them changes nothing."""
    stability = (1.0 - DEFAULT_TEMPERATURE) / TEMPERATURE_A_STABILITY
    return {"stability": stability, "similarity_boost": 1.0, "style": 0.0, "use_speaker_boost": False, "speed": 1.0}


def _voice(voice: Voice) -> dict[str, Any]:
    samples = [
        {"sample_id": str(sample.pk), "file_name": f"{sample.pk}.flac", "mime_type": "audio/flac",
         "size_bytes": sample.audio_bytes, "hash": sample.audio_hash, "duration_secs": sample.duration_seconds}
        for sample in voice.samples.all()
    ]  # fmt: skip
    labels = {} if voice.language == "auto" else {"language": voice.language}
    return {"voice_id": str(voice.pk), "name": voice.name, "samples": samples, "category": "cloned", "labels": labels,
            "description": voice.description, "preview_url": None, "available_for_tiers": [],
            "settings": _settings(), "is_owner": True,
            "created_at_unix": int(voice.created_at.timestamp())}  # fmt: skip


def _preset(name: str) -> dict[str, Any]:
    return {"voice_id": name, "name": name.title(), "samples": None, "category": "premade",
            "labels": {"gender": PRESETS[name]}, "description": "A voice of the built-in engine.",
            "preview_url": None, "available_for_tiers": [], "settings": _settings(),
            "is_owner": False}  # fmt: skip


def _own(request: Request) -> Any:
    return Voice.objects.for_tenant(request.user).filter(taken_down_at=None).prefetch_related("samples")


USERS_OF_VOICES = ("voices", "synthesize", "covers")


@extend_schema(exclude=True)
class VoicesView(ElevenLabsView):
    required_scope = USERS_OF_VOICES

    def get(self, request: Request) -> Response:
        return Response({"voices": [*map(_voice, _own(request)), *map(_preset, presets())]})


@extend_schema(exclude=True)
class VoicesV2View(ElevenLabsView):
    """With search, category and pages; the token is how many came before."""

    required_scope = USERS_OF_VOICES

    def get(self, request: Request) -> Response:
        query = request.query_params
        size = _number(query.get("page_size", "10"), "page_size", 1, 100)
        start = _number(query.get("next_page_token") or "0", "next_page_token", 0, NO_LIMIT)
        found = [*map(_voice, _own(request)), *map(_preset, presets())]
        if search := query.get("search", "").lower():
            found = [voice for voice in found if search in f"{voice['name']} {voice['description']}".lower()]
        if category := query.get("category"):
            found = [voice for voice in found if voice["category"] == category]
        if ids := query.getlist("voice_ids"):
            found = [voice for voice in found if voice["voice_id"] in ids]
        more = start + size < len(found)
        return Response({"voices": found[start : start + size], "has_more": more, "total_count": len(found),
                         "next_page_token": str(start + size) if more else None})  # fmt: skip


def _number(text: str, field: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,10}", text) or not least <= int(text) <= most:
        raise invalid(field, f"Must be a number from {least} to {most}.")
    return int(text)


@extend_schema(exclude=True)
class VoiceView(ElevenLabsView):
    @property
    def required_scope(self) -> Any:
        return "voices" if self.request.method == "DELETE" else USERS_OF_VOICES

    def get(self, request: Request, voice_id: str) -> Response:
        return Response(_preset(voice_id) if voice_id in presets() else _voice(find_own(request, voice_id)))

    def delete(self, request: Request, voice_id: str) -> Response:
        if voice_id in PRESETS:
            raise PublicError("permission_denied", "A premade voice cannot be deleted.")
        saved.delete(find_own(request, voice_id), request)
        return Response({"status": "ok"})


@extend_schema(exclude=True)
class VoiceSettingsView(ElevenLabsView):
    """Of a voice, or without one those that every voice has; none keeps any of its own."""

    required_scope = USERS_OF_VOICES

    def get(self, request: Request, voice_id: str = "") -> Response:
        if voice_id and voice_id not in presets():
            find_own(request, voice_id)
        return Response(_settings())


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


@extend_schema(exclude=True)
class AddVoiceView(ElevenLabsView):
    """The form has no field for consent: the tenant's standing statement is recorded, and needed."""

    required_scope = "voices"

    def get_max_body_bytes(self) -> int:
        return saved.MAX_SAMPLES * settings.MAX_UPLOAD_SIZE

    def post(self, request: Request) -> Response:
        standing = StandingConsent.objects.filter(tenant=credentials(request)[0]).first()
        if standing is None:
            raise PublicError(
                "permission_denied",
                "Voices are saved with the speaker's consent. State yours once with PUT /api/v1/voice/consent.",
            )
        serializer = AddVoiceSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        language = str(asked["labels"].get("language", "")).lower().partition("-")[0]
        known = configured.get_engine().languages
        with slots.waiting_slot():
            recordings = [(read_sample(uploads.upload_path(file), "files"), "") for file in asked["files"]]
            voice = saved.create(
                consents.provider(request),
                recordings,
                standing.statement,
                name=asked["name"],
                description=asked["description"],
                language=language if language in known else "auto",
                engine=configured.get_engine(),
            )
        return Response({"voice_id": str(voice.pk), "requires_verification": False})


# --- models, history, user ---

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese", "ja": "Japanese", "yue": "Cantonese", "ko": "Korean"}


@extend_schema(exclude=True)
class ModelsView(ElevenLabsView):
    required_scope = None

    def get(self, request: Request) -> Response:
        return Response([
            {"model_id": model["id"], "name": model["name"], "can_be_finetuned": False,
             "can_do_text_to_speech": "synthesis" in model["uses"],
             "can_do_voice_conversion": "covers" in model["uses"],
             "can_use_style": False, "can_use_speaker_boost": False, "serves_pro_voices": False,
             "token_cost_factor": 1.0, "description": model["description"] or model["engine"],
             "requires_alpha_access": False,
             "max_characters_request_free_user": MAX_TEXT_CHARACTERS,
             "max_characters_request_subscribed_user": MAX_TEXT_CHARACTERS,
             "maximum_text_length_per_request": MAX_TEXT_CHARACTERS,
             "languages": [{"language_id": code, "name": LANGUAGE_NAMES.get(code, code)}
                           for code in model["languages"]]}
            for model in registry.models()
        ])  # fmt: skip


def _item(job: Synthesis, names: dict[uuid.UUID, str]) -> dict[str, Any]:
    return {"history_item_id": str(job.pk), "request_id": job.request_id or None,
            "voice_id": str(job.voice_id) if job.voice_id else None, "model_id": job.model_id or "default",
            "voice_name": names.get(job.voice_id) if job.voice_id else None,
            "voice_category": "cloned" if job.voice_id else None, "text": job.text,
            "date_unix": int(job.created_at.timestamp()), "character_count_change_from": 0,
            "character_count_change_to": len(job.text),
            "content_type": audio.CONTENT_TYPES[job.response_format].partition(";")[0], "state": "created",
            "settings": None, "source": "TTS"}  # fmt: skip


def _history(request: Request) -> Any:
    return Synthesis.objects.for_tenant(request.user).filter(
        status=JobStatus.SUCCEEDED, files_expired=False, revoked_at=None
    )


def _history_item(request: Request, item_id: str) -> Synthesis:
    try:
        job: Synthesis | None = _history(request).filter(pk=uuid.UUID(item_id)).first()
    except ValueError:
        job = None
    if job is None:
        raise PublicError("not_found", "There is no such history item, or it is not yours.")
    return job


def _voice_names(request: Request) -> dict[uuid.UUID, str]:
    return dict(Voice.objects.for_tenant(request.user).values_list("pk", "name"))


@extend_schema(exclude=True)
class HistoryView(ElevenLabsView):
    """Syntheses whose audio is there, newest first."""

    required_scope = "synthesize"

    def get(self, request: Request) -> Response:
        query = request.query_params
        size = _number(query.get("page_size", "100"), "page_size", 1, MAX_PAGE)
        found = _history(request)
        if after := query.get("start_after_history_item_id"):
            last = _history_item(request, after)
            found = found.filter(created_at__lte=last.created_at).exclude(pk=last.pk)
        if voice_id := query.get("voice_id"):
            try:
                found = found.filter(voice_id=uuid.UUID(voice_id))
            except ValueError:
                found = found.none()
        rows = list(found[: size + 1])
        names = _voice_names(request)
        items = [_item(row, names) for row in rows[:size]]
        return Response({"history": items, "last_history_item_id": items[-1]["history_item_id"] if items else None,
                         "has_more": len(rows) > size})  # fmt: skip


@extend_schema(exclude=True)
class HistoryItemView(ElevenLabsView):
    required_scope = "synthesize"

    def get(self, request: Request, item_id: str) -> Response:
        return Response(_item(_history_item(request, item_id), _voice_names(request)))

    def delete(self, request: Request, item_id: str) -> Response:
        _history_item(request, item_id).remove()
        return Response({"status": "ok"})


@extend_schema(exclude=True)
class HistoryAudioView(ElevenLabsView):
    required_scope = "synthesize"

    def get(self, request: Request, item_id: str) -> HttpResponseBase:
        job = _history_item(request, item_id)
        return file_response(
            request._request,
            job.audio,
            content_type=audio.CONTENT_TYPES[job.response_format],
            filename=f"{job.pk}.{job.response_format}",
        )


def _subscription(request: Request) -> dict[str, Any]:
    """A month's characters; a quota of seconds is told as the characters that usually take so long."""
    tenant, _ = credentials(request)
    now = timezone.now()
    first, last = usage.month_start(now).date(), (usage.month_end(now) - timedelta(days=1)).date()
    rows = UsageEntry.objects.filter(tenant_id=tenant.pk, day__range=(first, last)).exclude(
        state=UsageEntry.State.REFUNDED
    )
    used = int(rows.aggregate(n=Sum("characters"))["n"] or 0)
    seconds = usage.audio_limit(getattr(tenant, "tenant", None))
    voices = _own(request).count()
    return {"tier": "self_hosted", "character_count": used,
            "character_limit": NO_LIMIT if seconds is None else seconds * CHARACTERS_A_SECOND,
            "max_character_limit_extension": 0, "max_credit_limit_extension": 0, "can_extend_character_limit": False,
            "allowed_to_extend_character_limit": False,
            "next_character_count_reset_unix": int(usage.month_end(now).timestamp()), "voice_slots_used": voices,
            "professional_voice_slots_used": 0, "professional_voice_slots_used_in_workspace": 0,
            "voice_limit": NO_LIMIT, "max_voice_add_edits": NO_LIMIT, "voice_add_edit_counter": 0,
            "professional_voice_limit": 0, "can_extend_voice_limit": False, "can_use_instant_voice_cloning": True,
            "can_use_professional_voice_cloning": False, "currency": "usd", "status": "active",
            "billing_period": "monthly_period", "character_refresh_period": "monthly_period",
            "current_overage": {"amount": "0", "currency": "usd"},
            "next_invoice": None, "open_invoices": [], "has_open_invoices": False}  # fmt: skip


@extend_schema(exclude=True)
class SubscriptionView(ElevenLabsView):
    required_scope = None

    def get(self, request: Request) -> Response:
        return Response(_subscription(request))


@extend_schema(exclude=True)
class UserView(ElevenLabsView):
    required_scope = None

    def get(self, request: Request) -> Response:
        tenant, key = credentials(request)
        joined: datetime = tenant.date_joined
        return Response({"user_id": str(tenant.pk), "workspace_id": str(tenant.pk),
                         "subscription": _subscription(request), "is_new_user": False,
                         "can_use_delayed_payment_methods": False,
                         "is_onboarding_completed": True, "is_onboarding_checklist_completed": True,
                         "first_name": tenant.get_username(), "is_api_key_hashed": True,
                         "xi_api_key_preview": key.prefix, "created_at": int(joined.timestamp()),
                         "seat_type": "workspace_member"})  # fmt: skip
