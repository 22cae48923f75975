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
from voices.compat.schema import FLAG, NUMBER, TEXT, WHOLE, listed, shape
from voices.keys.auth import credentials
from voices.speech import registry
from voices.speech.models import DEFAULT_MODEL
from voices.speech.serializers import MAX_TEXT_CHARACTERS

CHARACTERS_A_SECOND = 15  # of speech, to express a quota of seconds in characters
# Names of theirs that clients look for in the list; any of theirs means our default.
MODELS = {"eleven_v3": "Eleven v3", "eleven_multilingual_v2": "Eleven Multilingual v2",
          "eleven_flash_v2_5": "Eleven Flash v2.5", "eleven_turbo_v2_5": "Eleven Turbo v2.5"}  # fmt: skip
LANGUAGE_NAMES = {"en": "English", "zh": "Chinese", "ja": "Japanese", "yue": "Cantonese", "ko": "Korean"}


LANGUAGES = listed(shape("ModelLanguage", language_id=TEXT, name=TEXT))
FLAGS = ("can_be_finetuned", "can_do_text_to_speech", "can_do_voice_conversion", "can_use_style",
         "can_use_speaker_boost", "serves_pro_voices", "requires_alpha_access")  # fmt: skip
MOST = ("max_characters_request_free_user", "max_characters_request_subscribed_user",
        "maximum_text_length_per_request")  # fmt: skip
MODEL = shape(
    "Model", model_id=TEXT, name=TEXT, description=TEXT, token_cost_factor=NUMBER, languages=LANGUAGES,
    **dict.fromkeys(FLAGS, FLAG), **dict.fromkeys(MOST, WHOLE),
)  # fmt: skip
SUBSCRIPTION = shape(
    "Subscription", tier=TEXT, character_count=WHOLE, character_limit=WHOLE, next_character_count_reset_unix=WHOLE,
    voice_slots_used=WHOLE, voice_limit=WHOLE, can_use_instant_voice_cloning=FLAG,
    can_use_professional_voice_cloning=FLAG, status=TEXT,
)  # fmt: skip
USER = shape(
    "User", user_id=TEXT, workspace_id=TEXT, subscription=SUBSCRIPTION, first_name=TEXT, xi_api_key_preview=TEXT,
    created_at=WHOLE,
)  # fmt: skip


def _model(model: dict[str, Any]) -> dict[str, Any]:
    return {"model_id": model["id"], "name": model["name"], "can_be_finetuned": False,
            "can_do_text_to_speech": "synthesis" in model["uses"],
            "can_do_voice_conversion": "covers" in model["uses"],
            "can_use_style": False, "can_use_speaker_boost": False, "serves_pro_voices": False,
            "token_cost_factor": 1.0, "description": model["description"] or model["engine"],
            "requires_alpha_access": False,
            "max_characters_request_free_user": MAX_TEXT_CHARACTERS,
            "max_characters_request_subscribed_user": MAX_TEXT_CHARACTERS,
            "maximum_text_length_per_request": MAX_TEXT_CHARACTERS,
            "languages": [{"language_id": code, "name": LANGUAGE_NAMES.get(code, code)}
                          for code in model["languages"]]}  # fmt: skip


class ModelsView(ElevenLabsView):
    """Ours, and names of theirs that mean our default."""

    tag = "Account"
    required_scope = None

    @extend_schema(summary="The models", responses=listed(MODEL))
    def get(self, request: Request) -> Response:
        own = registry.models(request.user.pk)
        default = next((model for model in own if model["id"] == DEFAULT_MODEL), None)
        what = "The default model of this server."
        theirs = [{**default, "id": name, "name": known, "description": what} for name, known in MODELS.items()
                  if default]  # fmt: skip
        return Response([_model(model) for model in [*own, *theirs]])


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


class SubscriptionView(ElevenLabsView):
    tag = "Account"
    required_scope = None

    @extend_schema(summary="What may be used this month, and what was", responses=SUBSCRIPTION)
    def get(self, request: Request) -> Response:
        return Response(_subscription(request))


class UserView(ElevenLabsView):
    tag = "Account"
    required_scope = None

    @extend_schema(summary="Whose key it is", responses=USER)
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
