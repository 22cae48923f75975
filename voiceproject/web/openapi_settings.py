"""What drf-spectacular needs to know to make the OpenAPI document; read by the settings, so it imports no Django."""

from __future__ import annotations

from typing import Any

from voiceproject import __version__

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Voice cloning and AI covers",
    "DESCRIPTION": "Text to speech in a cloned voice, and AI covers of songs as asynchronous jobs.\n\n"
    "Send your key as `X-API-Key: <key>` or `Authorization: Bearer <key>`. Every error has the same form: "
    '`{"success": false, "error": "<code>", "message": "<text>", "details": {}}`, '
    "and every answer carries `X-Request-ID`. Where your requests are limited, `X-RateLimit-Limit` (in any 60 "
    "seconds), `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds until one more remains) tell what is left.\n\n"
    "Clients of OpenAI, ElevenLabs and GPT-SoVITS work with the base URLs `/openai/v1`, `/elevenlabs` and `/gptsovits` "
    "of this server. Those routes have documents of their own, and pages of them: [OpenAI](/openai/docs), "
    "[ElevenLabs](/elevenlabs/docs), [GPT-SoVITS](/gptsovits/docs).",
    "VERSION": __version__,
    "CONTACT": {"name": "Whoever runs this server"},
    "LICENSE": {"name": "MIT", "identifier": "MIT"},
    "SERVERS": [{"url": "/", "description": "This server"}],
    "SERVE_INCLUDE_SCHEMA": False,
    "SORT_OPERATIONS": False,  # As they stand in urls.py: what is used first comes first.
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "DEFAULT_GENERATOR_CLASS": "voiceproject.web.schema.DocumentGenerator",
    "OAS_VERSION": "3.1.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": "{deepLinking: true, plugins: [docsPlugin]}",  # Of static/voiceproject/docs.js.
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "JobStatus": "voiceproject.jobs.status.JobStatus",
        "Language": "voices.text.languages.LANGUAGES",
        "SpeechFormat": "voices.speech.serializers.FORMATS",
        "CoverFormat": "covers.serializers.RESULT_FORMATS",
        "KeyKind": "voices.keys.models.ApiKey.Kind",
        "WebhookStatus": "voiceproject.webhooks.models.WebhookDelivery.Status",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "voiceproject.web.schema.order_methods",
        "voiceproject.web.schema.add_examples",
    ],
    "APPEND_COMPONENTS": {"securitySchemes": {"MetricsToken": {"type": "http", "scheme": "bearer"}}},
    "TAGS": [
        {"name": "voice", "description": "Text to speech in the voice of a reference."},
        {"name": "voices", "description": "Saved voices: a speaker's samples under an id, and how good they are."},
        {"name": "trainings", "description": "Train a voice on minutes of speech, and what has come of it."},
        {"name": "lexicons", "description": "How words are said, wherever a text has them."},
        {"name": "cover", "description": "Songs sung again in the voice of a reference."},
        {"name": "provenance", "description": "Whether a recording was made here."},
        {"name": "keys", "description": "The API keys of your account."},
        {"name": "account", "description": "Who you are here, your limits, and what you have used."},
        {"name": "webhooks", "description": "What your server is told when a job has ended (Standard Webhooks)."},
        {"name": "health", "description": "What runs, and what does not."},
    ],
}
