"""Models, history and user, in ElevenLabs' shape."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.errors import PublicError
from voiceproject.jobs.status import JobStatus
from voiceproject.media import audio
from voiceproject.tenants import usage
from voiceproject.tenants.models import UsageEntry
from voiceproject.web.api import file_response
from voices.compat.elevenlabs.base import NO_LIMIT, ElevenLabsView, number
from voices.compat.elevenlabs.voices import own_voices
from voices.keys.auth import credentials
from voices.library.models import Voice
from voices.speech import registry
from voices.speech.models import Synthesis
from voices.speech.serializers import MAX_TEXT_CHARACTERS

CHARACTERS_A_SECOND = 15  # of speech, to express a quota of seconds in characters
MAX_PAGE = 1000
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
        size = number(query.get("page_size", "100"), "page_size", 1, MAX_PAGE)
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
    voices = own_voices(request).count()
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
