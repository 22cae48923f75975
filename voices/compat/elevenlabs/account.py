"""Models and user, in ElevenLabs' shape."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from voiceproject.tenants import usage
from voiceproject.tenants.models import UsageEntry
from voices.compat.elevenlabs.base import NO_LIMIT, ElevenLabsView
from voices.compat.elevenlabs.voices import own_voices
from voices.keys.auth import credentials
from voices.speech import registry
from voices.speech.serializers import MAX_TEXT_CHARACTERS

CHARACTERS_A_SECOND = 15  # of speech, to express a quota of seconds in characters
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
            for model in registry.models(request.user.pk)
        ])  # fmt: skip


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
