"""All models of this app, for Django to find. Code imports them from the package that each lives in."""

from voices.keys.models import ApiKey, all_scopes
from voices.library.models import Consent, EngineData, RecordedConsent, StandingConsent, Voice, VoiceSample
from voices.speech.models import DialogueSpeaker, EngineModel, Synthesis

# Migrations name voices.models.all_scopes.
__all__ = [
    "ApiKey",
    "Consent",
    "DialogueSpeaker",
    "EngineData",
    "EngineModel",
    "RecordedConsent",
    "StandingConsent",
    "Synthesis",
    "Voice",
    "VoiceSample",
    "all_scopes",
]
