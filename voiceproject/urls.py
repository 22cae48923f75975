"""All routes. The API's have no trailing slash (PathMiddleware takes one off)."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import path
from django.views.generic import RedirectView
from django.views.i18n import set_language

from covers.speech_to_speech import SpeechToSpeechView
from covers.views import CoverJobViewSet
from voiceproject.operations.health import HealthView
from voiceproject.operations.metrics_view import MetricsView
from voiceproject.provenance.api import VerifyView
from voiceproject.shares.pages import SharedAudioView, SharedPageView
from voiceproject.web.pages import DocsView, RedocView, SchemaView, StudioView
from voiceproject.webhooks.api import RotateWebhookSecretView, WebhookDeliveryViewSet, WebhookSecretView
from voices.account import pages
from voices.account.api import EraseView, ExportView
from voices.account.usage_api import MeView, UsageView
from voices.compat import gptsovits, openai
from voices.compat.elevenlabs import account as elevenlabs_account
from voices.compat.elevenlabs import base as elevenlabs_base
from voices.compat.elevenlabs import dialogue as elevenlabs_dialogue
from voices.compat.elevenlabs import dictionaries as elevenlabs_dictionaries
from voices.compat.elevenlabs import history as elevenlabs_history
from voices.compat.elevenlabs import speech as elevenlabs_speech
from voices.compat.elevenlabs import voices as elevenlabs_voices
from voices.compat.schema import TREES
from voices.keys.api import KeyViewSet
from voices.lexicons.api import LexiconViewSet
from voices.library.aliases_api import AliasesView, AliasView
from voices.library.api import QualityView, StandingConsentView, VoiceViewSet
from voices.speech.dialogue_api import DialogueView
from voices.speech.history import HistoryView
from voices.speech.joined import JoinView
from voices.speech.normalize import NormalizeView
from voices.speech.views import EngineStateView, ModelsView, SynthesisViewSet, SynthesizeView
from voices.training.api import TrainedModelViewSet, TrainingViewSet

API = "api/v1"

urlpatterns = [
    path("", gptsovits.root(StudioView.as_view()), name="studio"),
    path("s/<str:token>", SharedPageView.as_view(), name="shared"),
    path("s/<str:token>/audio", SharedAudioView.as_view(), name="shared-audio"),
    path("health", HealthView.as_view(), name="health"),
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("favicon.ico", RedirectView.as_view(url=static("voiceproject/icon.svg"))),
    path("openapi.json", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(), name="docs"),
    path("redoc", RedocView.as_view(), name="redoc"),
    path("admin/", admin.site.urls),
    path("language", set_language, name="set_language"),
    path("account", pages.OverviewView.as_view(), name="account"),
    path("account/signin", pages.SigninView.as_view(), name="account-signin"),
    path("account/signout", pages.SignoutView.as_view(), name="account-signout"),
    path("account/password", pages.OwnPasswordView.as_view(), name="account-password"),
    path("account/export", pages.ExportView.as_view(), name="account-export"),
    path("account/erase", pages.EraseView.as_view(), name="account-erase"),
    path("account/sessions", pages.EndSessionsView.as_view(), name="account-sessions"),
    path("account/usage", pages.UsageView.as_view(), name="account-usage"),
    path("account/voices", pages.VoicesView.as_view(), name="account-voices"),
    path("account/voices/<uuid:pk>/sample", pages.VoiceSampleView.as_view(), name="account-voice-sample"),
    path("account/voices/<uuid:pk>/delete", pages.DeleteVoiceView.as_view(), name="account-voice-delete"),
    path("account/keys/new", pages.NewKeyView.as_view(), name="account-new-key"),
    path("account/keys/<uuid:pk>", pages.KeyView.as_view(), name="account-key"),
    path("account/keys/<uuid:pk>/rotate", pages.RotateKeyView.as_view(), name="account-key-rotate"),
    path("account/keys/<uuid:pk>/revoke", pages.RevokeKeyView.as_view(), name="account-key-revoke"),
    path(f"{API}/voice/synthesize", SynthesizeView.as_view(), name="synthesize"),
    path(f"{API}/voice/dialogue", DialogueView.as_view(), name="dialogue"),
    path(f"{API}/voice/health", EngineStateView.as_view(), name="voice-health"),
    path(f"{API}/voice/normalize", NormalizeView.as_view(), name="normalize"),
    path(f"{API}/history", HistoryView.as_view(), name="history"),
    path(f"{API}/voice/models", ModelsView.as_view(), name="models"),
    path(f"{API}/voice/syntheses", SynthesisViewSet.as_view({"get": "list"}), name="syntheses"),
    path(
        f"{API}/voice/syntheses/<uuid:pk>",
        SynthesisViewSet.as_view({"get": "retrieve", "patch": "rename", "delete": "destroy"}),
        name="synthesis",
    ),
    path(f"{API}/voice/syntheses/<uuid:pk>/audio", SynthesisViewSet.as_view({"get": "audio"}), name="synthesis-audio"),
    path(
        f"{API}/voice/syntheses/<uuid:pk>/cancel", SynthesisViewSet.as_view({"post": "cancel"}), name="synthesis-cancel"
    ),
    path(f"{API}/voice/syntheses/<uuid:pk>/retry", SynthesisViewSet.as_view({"post": "retry"}), name="synthesis-retry"),
    path(
        f"{API}/voice/syntheses/<uuid:pk>/events", SynthesisViewSet.as_view({"get": "events"}), name="synthesis-events"
    ),
    path(f"{API}/voice/join", JoinView.as_view(), name="join"),
    path(f"{API}/voice/voices", VoiceViewSet.as_view({"get": "list", "post": "create"}), name="voices"),
    path(
        f"{API}/voice/voices/<uuid:pk>",
        VoiceViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="voice",
    ),
    path(f"{API}/voice/voices/<uuid:pk>/sample", VoiceViewSet.as_view({"get": "sample"}), name="voice-sample"),
    path(f"{API}/voice/voices/<uuid:pk>/samples", VoiceViewSet.as_view({"post": "add_sample"}), name="voice-samples"),
    path(
        f"{API}/voice/voices/<uuid:pk>/samples/<uuid:sample_id>",
        VoiceViewSet.as_view({"delete": "delete_sample"}),
        name="voice-sample-detail",
    ),
    path(f"{API}/voice/lexicons", LexiconViewSet.as_view({"get": "list", "post": "create"}), name="lexicons"),
    path(
        f"{API}/voice/lexicons/<uuid:pk>",
        LexiconViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="lexicon",
    ),
    path(f"{API}/voice/lexicons/<uuid:pk>/pls", LexiconViewSet.as_view({"get": "pls"}), name="lexicon-pls"),
    path(f"{API}/voice/aliases", AliasesView.as_view(), name="voice-aliases"),
    path(f"{API}/voice/aliases/<str:alias>", AliasView.as_view(), name="voice-alias"),
    path(f"{API}/voice/consent", StandingConsentView.as_view(), name="standing-consent"),
    path(f"{API}/voice/quality", QualityView.as_view(), name="quality"),
    path(f"{API}/voice/trainings", TrainingViewSet.as_view({"get": "list", "post": "create"}), name="trainings"),
    path(
        f"{API}/voice/trainings/<uuid:pk>",
        TrainingViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="training",
    ),
    *(
        path(
            f"{API}/voice/trainings/<uuid:pk>/{action}",
            TrainingViewSet.as_view({method: action}),
            name=f"training-{action}",
        )
        for method, action in (("post", "cancel"), ("post", "retry"), ("get", "events"))
    ),
    path(
        f"{API}/voice/models/<str:model_id>",
        TrainedModelViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="model",
    ),
    path(
        f"{API}/voice/models/<str:model_id>/weights/<str:kind>",
        TrainedModelViewSet.as_view({"get": "weights"}),
        name="model-weights",
    ),
    path(f"{API}/cover/jobs", CoverJobViewSet.as_view({"get": "list", "post": "create"}), name="covers"),
    path(
        f"{API}/cover/jobs/<uuid:pk>",
        CoverJobViewSet.as_view({"get": "retrieve", "patch": "rename", "delete": "destroy"}),
        name="cover-detail",
    ),
    *(
        path(
            f"{API}/{jobs}/<uuid:pk>/shares{rest}",
            viewset.as_view({**actions}),
            name=f"{name}{'-link' if rest else '-links'}",
        )
        for jobs, viewset, name in (
            ("cover/jobs", CoverJobViewSet, "cover"),
            ("voice/syntheses", SynthesisViewSet, "synthesis"),
        )
        for rest, actions in (
            ("", {"get": "shares", "post": "share"}),
            ("/<uuid:share_id>", {"delete": "revoke_share"}),
        )
    ),
    path(f"{API}/cover/jobs/<uuid:pk>/result", CoverJobViewSet.as_view({"get": "result"}), name="cover-result"),
    path(f"{API}/cover/jobs/<uuid:pk>/stems/<str:stem>", CoverJobViewSet.as_view({"get": "stem"}), name="cover-stem"),
    path(f"{API}/cover/jobs/<uuid:pk>/cancel", CoverJobViewSet.as_view({"post": "cancel"}), name="cover-cancel"),
    path(f"{API}/cover/jobs/<uuid:pk>/retry", CoverJobViewSet.as_view({"post": "retry"}), name="cover-retry"),
    path(f"{API}/cover/jobs/<uuid:pk>/remix", CoverJobViewSet.as_view({"post": "remix"}), name="cover-remix"),
    path(f"{API}/cover/jobs/<uuid:pk>/events", CoverJobViewSet.as_view({"get": "events"}), name="cover-events"),
    path(f"{API}/provenance/verify", VerifyView.as_view(), name="provenance-verify"),
    path(f"{API}/keys", KeyViewSet.as_view({"get": "list", "post": "create"}), name="keys"),
    path(
        f"{API}/keys/<uuid:pk>",
        KeyViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="key",
    ),
    path(f"{API}/keys/<uuid:pk>/rotate", KeyViewSet.as_view({"post": "rotate"}), name="key-rotate"),
    path(f"{API}/usage", UsageView.as_view(), name="usage"),
    path(f"{API}/me", MeView.as_view(), name="me"),
    path(f"{API}/me/export", ExportView.as_view(), name="me-export"),
    path(f"{API}/me/erase", EraseView.as_view(), name="me-erase"),
    path(f"{API}/webhooks/secret", WebhookSecretView.as_view(), name="webhook-secret"),
    path(f"{API}/webhooks/secret/rotate", RotateWebhookSecretView.as_view(), name="webhook-secret-rotate"),
    path(f"{API}/webhooks/deliveries", WebhookDeliveryViewSet.as_view({"get": "list"}), name="webhook-deliveries"),
    path(
        f"{API}/webhooks/deliveries/<uuid:pk>/redeliver",
        WebhookDeliveryViewSet.as_view({"post": "redeliver"}),
        name="webhook-redeliver",
    ),
]

# For the clients of other services, each on a prefix of its own: both have a /v1/models.
urlpatterns += [
    *(path(f"{tree.name}/openapi.json", SchemaView.as_view(tree=tree), name=f"{tree.name}-schema") for tree in TREES),
    *(path(f"{tree.name}/docs", DocsView.as_view(url_name=f"{tree.name}-schema")) for tree in TREES),
    path("openai/v1/audio/speech", openai.SpeechView.as_view(), name="openai-speech"),
    path("openai/v1/audio/models", openai.AudioModelsView.as_view(), name="openai-audio-models"),
    path("openai/v1/audio/voices", openai.VoicesView.as_view(), name="openai-voices"),
    path("openai/v1/audio/voices/<str:name>", openai.VoiceView.as_view(), name="openai-voice"),
    path("openai/v1/audio/voice_consents", openai.ConsentsView.as_view(), name="openai-consents"),
    path("openai/v1/audio/voice_consents/<str:name>", openai.ConsentView.as_view(), name="openai-consent"),
    path("openai/v1/models", openai.ModelsView.as_view(), name="openai-models"),
    path("openai/v1/models/<str:name>", openai.ModelView.as_view(), name="openai-model"),
    *(
        path(
            f"elevenlabs/v1/text-to-speech/<str:voice_id>{suffix}",
            elevenlabs_speech.TextToSpeechView.as_view(streamed="stream" in suffix, timestamps="timestamps" in suffix),
            name=f"elevenlabs-speech{suffix.replace('/', '-')}",
        )
        for suffix in ("", "/stream", "/with-timestamps", "/stream/with-timestamps")
    ),
    *(
        path(
            f"elevenlabs/v1/text-to-dialogue{suffix}",
            elevenlabs_dialogue.TextToDialogueView.as_view(
                streamed="stream" in suffix, timestamps="timestamps" in suffix
            ),
            name=f"elevenlabs-dialogue{suffix.replace('/', '-')}",
        )
        for suffix in ("", "/stream", "/with-timestamps", "/stream/with-timestamps")
    ),
    *(
        path(
            f"elevenlabs/v1/{route}/<str:voice_id>{suffix}",
            SpeechToSpeechView.as_view(streamed=bool(suffix)),
            name=f"elevenlabs-{route}{suffix.replace('/', '-')}",
        )
        for route in ("voice-changer", "speech-to-speech")
        for suffix in ("", "/stream")
    ),
    path("elevenlabs/v1/voices", elevenlabs_voices.VoicesView.as_view(), name="elevenlabs-voices"),
    path("elevenlabs/v1/voices/add", elevenlabs_voices.AddVoiceView.as_view(), name="elevenlabs-add-voice"),
    path("elevenlabs/v1/voices/<str:voice_id>", elevenlabs_voices.VoiceView.as_view(), name="elevenlabs-voice"),
    path(
        "elevenlabs/v1/voices/settings/default",
        elevenlabs_voices.VoiceSettingsView.as_view(),
        name="elevenlabs-default-settings",
    ),
    path(
        "elevenlabs/v1/voices/<str:voice_id>/settings",
        elevenlabs_voices.VoiceSettingsView.as_view(),
        name="elevenlabs-voice-settings",
    ),
    path(
        "elevenlabs/v1/voices/<str:voice_id>/settings/edit",
        elevenlabs_voices.EditVoiceSettingsView.as_view(),
        name="elevenlabs-edit-voice-settings",
    ),
    path(
        "elevenlabs/v1/voices/<str:voice_id>/edit",
        elevenlabs_voices.EditVoiceView.as_view(),
        name="elevenlabs-edit-voice",
    ),
    path(
        "elevenlabs/v1/voices/<str:voice_id>/samples/<uuid:sample_id>",
        elevenlabs_voices.SampleView.as_view(),
        name="elevenlabs-sample",
    ),
    path(
        "elevenlabs/v1/voices/<str:voice_id>/samples/<uuid:sample_id>/audio",
        elevenlabs_voices.SampleAudioView.as_view(),
        name="elevenlabs-sample-audio",
    ),
    path("elevenlabs/v2/voices", elevenlabs_voices.VoicesV2View.as_view(), name="elevenlabs-voices-v2"),
    path("elevenlabs/v1/models", elevenlabs_account.ModelsView.as_view(), name="elevenlabs-models"),
    path("elevenlabs/v1/history", elevenlabs_history.HistoryView.as_view(), name="elevenlabs-history"),
    path(
        "elevenlabs/v1/history/download",
        elevenlabs_history.DownloadView.as_view(),
        name="elevenlabs-history-download",
    ),
    path(
        "elevenlabs/v1/history/<str:item_id>",
        elevenlabs_history.HistoryItemView.as_view(),
        name="elevenlabs-history-item",
    ),
    path(
        "elevenlabs/v1/history/<str:item_id>/audio",
        elevenlabs_history.HistoryAudioView.as_view(),
        name="elevenlabs-history-audio",
    ),
    path(
        "elevenlabs/v1/pronunciation-dictionaries",
        elevenlabs_dictionaries.DictionariesView.as_view(),
        name="elevenlabs-dictionaries",
    ),
    path(
        "elevenlabs/v1/pronunciation-dictionaries/add-from-file",
        elevenlabs_dictionaries.AddFromFileView.as_view(),
        name="elevenlabs-dictionary-from-file",
    ),
    path(
        "elevenlabs/v1/pronunciation-dictionaries/add-from-rules",
        elevenlabs_dictionaries.AddFromRulesView.as_view(),
        name="elevenlabs-dictionary-from-rules",
    ),
    path(
        "elevenlabs/v1/pronunciation-dictionaries/<str:name>",
        elevenlabs_dictionaries.DictionaryView.as_view(),
        name="elevenlabs-dictionary",
    ),
    *(
        path(
            f"elevenlabs/v1/pronunciation-dictionaries/<str:name>/{how}-rules",
            elevenlabs_dictionaries.RulesView.as_view(how=how),
            name=f"elevenlabs-dictionary-{how}-rules",
        )
        for how in ("set", "add", "remove")
    ),
    path(
        "elevenlabs/v1/pronunciation-dictionaries/<str:name>/<str:version>/download",
        elevenlabs_dictionaries.DownloadView.as_view(),
        name="elevenlabs-dictionary-download",
    ),
    path("elevenlabs/v1/user", elevenlabs_account.UserView.as_view(), name="elevenlabs-user"),
    path(
        "elevenlabs/v1/user/subscription", elevenlabs_account.SubscriptionView.as_view(), name="elevenlabs-subscription"
    ),
]

urlpatterns += [
    path("openai/<path:rest>", openai.UnknownPathView.as_view(), name="openai-unknown"),
    *gptsovits.routes(),
    *(
        path(f"elevenlabs/v1/text-to-speech/<str:voice_id>/{kind}", elevenlabs_base.WebSocketOnlyView.as_view())
        for kind in ("stream-input", "multi-stream-input")
    ),
    path("elevenlabs/<path:rest>", elevenlabs_base.UnknownPathView.as_view(), name="elevenlabs-unknown"),
]

handler400 = "voiceproject.web.errors.bad_request"
handler403 = "voiceproject.web.errors.forbidden"
handler404 = "voiceproject.web.errors.not_found"
handler500 = "voiceproject.web.errors.server_error"
