"""All models of this app, for Django to find. Code imports them from the package that each lives in."""

from voices.keys.models import ApiKey, all_scopes
from voices.lexicons.models import Lexicon, LexiconVersion
from voices.library.models import Consent, EngineData, RecordedConsent, StandingConsent, Voice, VoiceAlias, VoiceSample
from voices.speech.models import DialogueSpeaker, EngineModel, Synthesis, WeightsFile
from voices.training.models import Training, TrainingRecording

# Migrations name voices.models.all_scopes.
__all__ = [
    "ApiKey",
    "Consent",
    "DialogueSpeaker",
    "EngineData",
    "EngineModel",
    "Lexicon",
    "LexiconVersion",
    "RecordedConsent",
    "StandingConsent",
    "Synthesis",
    "Training",
    "TrainingRecording",
    "Voice",
    "VoiceAlias",
    "VoiceSample",
    "WeightsFile",
    "all_scopes",
]
