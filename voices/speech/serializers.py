"""What comes in and goes out at /voice: fields, bounds and messages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from voiceproject.errors import PublicError
from voiceproject.jobs.job import Job
from voiceproject.jobs.status import LIVE, JobStatus
from voiceproject.media.audio import STREAMED_FORMATS
from voiceproject.web.api import SizedFileField, StrictSerializer, TextField
from voiceproject.webhooks.deliveries import CallbackURLField
from voices.engines import configured
from voices.engines.configured import check_language
from voices.lexicons.serializers import LexiconIdField, LexiconIdsField
from voices.library.models import MAX_VOICE_NAME
from voices.library.serializers import LanguageField
from voices.speech import registry
from voices.speech.models import Synthesis
from voices.text.languages import has_speech
from voices.text.lexicon import Lexicon
from voices.text.reading import Reading

FORMATS = ("wav", "mp3", "flac", "opus", "pcm")
MAX_TEXT_CHARACTERS = 5000
DEFAULT_TEMPERATURE = 0.7
MAX_SEED = 2**32 - 1
RETRYABLE = (JobStatus.FAILED, JobStatus.CANCELED)
NO_VOICE_ID = "This is no id of a voice. GET /api/v1/voice/voices lists yours."


class FiniteFloatField(serializers.FloatField):
    """A number; `nan` and `inf`, which every comparison lets through, are none."""

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


@contextmanager
def as_field_error() -> Iterator[None]:
    """What a field's check refuses becomes one message among those of the other fields."""
    try:
        yield
    except PublicError as error:
        if error.code != "validation_error":
            raise
        raise serializers.ValidationError([text for texts in error.details.values() for text in texts]) from None


class OneReferenceMixin:
    """Takes either the upload that `reference_field` names, or voice_id."""

    reference_field: str
    voice_fields: tuple[str, ...] = ("voice_id",)
    is_required = True

    def to_internal_value(self, data: Any) -> Any:
        if not hasattr(data, "get"):
            return super().to_internal_value(data)  # type: ignore[misc] # which says what is wrong with it
        given = [name for name in (self.reference_field, *self.voice_fields) if data.get(name)]
        wrong = {}
        if not given and self.is_required:
            wrong = {self.reference_field: ["No voice was given. Send this file, or the voice_id of a saved voice."]}
        elif len(given) > 1:
            wrong = {given[1]: [f"Both {given[0]} and {given[1]} were sent; send one of them."]}
        try:
            fields = super().to_internal_value(data)  # type: ignore[misc]
        except serializers.ValidationError as error:
            raise serializers.ValidationError(error.detail | wrong | error.detail) from None  # type: ignore[operator]
        if wrong:
            raise serializers.ValidationError(wrong)
        for name in self.voice_fields:
            if not fields.get(name):
                fields.pop(name, None)
        return fields


class SynthesizeSerializer(OneReferenceMixin, StrictSerializer):
    """What to say, and in whose voice."""

    reference_field = "reference_audio"
    voice_fields = ("voice_id", "voice")

    text = TextField(max_length=MAX_TEXT_CHARACTERS, help_text="What to say, 1 to 5000 characters.")
    reference_audio = SizedFileField(
        required=False,
        max_bytes_setting="MAX_UPLOAD_SIZE",
        help_text="The voice to copy: 3 to 60 s of speech as wav, mp3, flac, ogg/opus, m4a/aac or webm.",
    )
    voice_id = serializers.UUIDField(
        required=False, allow_null=True, error_messages={"invalid": NO_VOICE_ID},
        help_text="A saved voice of yours, instead of reference_audio.",
    )  # fmt: skip
    voice = TextField(
        required=False, allow_null=True, allow_blank=True, max_length=MAX_VOICE_NAME,
        help_text="The same by its name, in any case (the newest that has it), or by an alias.",
    )  # fmt: skip
    reference_text = TextField(
        required=False, allow_blank=True, default="", max_length=2000,
        help_text="What is said in the whole of the reference. Improves likeness. A saved voice has its own.",
    )  # fmt: skip
    reference_language = LanguageField(default="auto", help_text="Language of reference_text.")
    language = LanguageField(
        default="auto", help_text="Language of the text, by any common name; auto finds out. yue and ko: GPT-SoVITS."
    )
    speed = FiniteFloatField(default=1.0, min_value=0.5, max_value=2.0, help_text="2 is twice as fast.")
    temperature = FiniteFloatField(
        default=DEFAULT_TEMPERATURE, min_value=0.1, max_value=1.0, help_text="How much the delivery may vary."
    )
    seed = serializers.IntegerField(
        required=False, min_value=0, max_value=MAX_SEED,
        help_text="The same seed and request give the same samples on the built-in engine.",
    )  # fmt: skip
    model_id = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=100, help_text="One of GET /voice/models."
    )
    response_format = serializers.ChoiceField(
        FORMATS, default="wav", help_text="pcm is signed 16-bit little-endian mono at X-Audio-Sample-Rate."
    )
    stream = serializers.BooleanField(
        default=False, help_text="true sends the audio as it is made, sentence by sentence; not as flac."
    )

    lexicon_id = LexiconIdField(help_text="A lexicon of yours, by which words of this text are said.")
    lexicon_ids = LexiconIdsField(help_text="Several; what an earlier one has counts.")

    callback_url = CallbackURLField()

    def validate_text(self, text: str) -> str:
        if not has_speech(text):
            raise serializers.ValidationError("There is nothing to speak in this text: it has no letters or digits.")
        return text

    def validate_language(self, language: str) -> str:
        with as_field_error():
            return check_language("language", language)

    def validate_reference_language(self, language: str) -> str:
        with as_field_error():
            return check_language("reference_language", language)

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Adds `model`: what model_id names (voices.engines.interface.Model or None)."""
        if fields["stream"] and fields["response_format"] not in STREAMED_FORMATS:
            message = f"{fields['response_format']} cannot be streamed: take one of {', '.join(STREAMED_FORMATS)}."
            raise serializers.ValidationError({"response_format": [message]})
        fields["model"] = registry.for_synthesis(fields["model_id"], self.context.get("tenant"))
        return fields


class SpeakTextSerializer(SynthesizeSerializer):
    """What other services' clients ask for, in our terms: a saved voice, or none where a preset speaks.

    A text with nothing to speak is silence, as there: chats and agents send such ones between others.
    """

    is_required = False
    reference_audio = None  # type: ignore[assignment]

    def validate_text(self, text: str) -> str:
        return text


def check_text(
    fields: dict[str, Any], transcript: str, reference_language: str, lexicon: Lexicon, *, early: bool = False
) -> tuple[Reading | None, list[dict[str, str]]]:
    """What is spoken of the text of a SynthesizeSerializer's fields, None where the engine does not tell before it
    speaks; and what is to be said of it, as `Synthesis.warnings` has it. early: as in SynthesisRequest.

    Raises PublicError where the engine cannot speak it with such a reference.
    """
    if not has_speech(fields["text"]):
        message = "There is nothing to speak in this text: it is silence."
        return None, [{"code": "nothing_to_speak", "message": message}]
    check = getattr(configured.get_engine(), "check", None)
    if check is None:
        return None, []
    reading: Reading = check(
        fields["text"], fields["language"], transcript, reference_language, fields["model"],
        early=early, lexicon=lexicon,
    )  # fmt: skip
    return reading, [{"code": notice.code, "message": notice.message} for notice in reading.notices]


class QueueSerializer(serializers.ModelSerializer):
    """A job, and when its turn comes. concurrency_setting: how many of its kind a host does at a time."""

    concurrency_setting: ClassVar[str]

    queue_position = serializers.SerializerMethodField(help_text="1 is next; null in lists and when not queued")
    expected_start_at = serializers.SerializerMethodField(
        help_text="A guess from the queue and how long the last jobs took; null in lists and when not queued"
    )

    elapsed_seconds = serializers.FloatField(allow_null=True, help_text="Since the work was begun; null before")
    estimated_seconds_remaining = serializers.SerializerMethodField(
        help_text="A guess from the stages of the last jobs of that length; null where nothing is known or it is not "
        "running"
    )

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_estimated_seconds_remaining(self, job: Job) -> float | None:
        left = job.expected_remaining()
        return None if left is None else round(left, 1)

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_queue_position(self, job: Job) -> int | None:
        return None if self.context.get("in_list") else job.queue_position()

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_expected_start_at(self, job: Job) -> datetime | str | None:
        if self.context.get("in_list") or job.status != JobStatus.QUEUED:
            return None
        start = job.expected_start(getattr(settings, self.concurrency_setting))
        return start and serializers.DateTimeField().to_representation(start)


class WarningSerializer(serializers.Serializer):
    """Something that was guessed, left out or not done well."""

    code = serializers.CharField(help_text="Such as left_out, language_guessed, recording")
    message = serializers.CharField()


class SynthesisLinksSerializer(serializers.Serializer):
    self = serializers.URLField()
    audio = serializers.URLField(allow_null=True)
    cancel = serializers.URLField(allow_null=True)
    events = serializers.URLField(allow_null=True)
    retry = serializers.URLField(allow_null=True)


class SpokenTurnSerializer(serializers.Serializer):
    voice_id = serializers.UUIDField(allow_null=True)
    preset = serializers.CharField(allow_null=True)
    text = serializers.CharField()
    language = serializers.CharField()
    speed = serializers.FloatField()
    temperature = serializers.FloatField()
    pause_seconds = serializers.FloatField(help_text="Of silence behind it")
    begin_seconds = serializers.FloatField(allow_null=True, help_text="When it is said; null until it has succeeded")
    end_seconds = serializers.FloatField(allow_null=True)


class SynthesisSerializer(QueueSerializer):
    concurrency_setting = "SYNTHESIS_CONCURRENCY"

    synthesis_id = serializers.UUIDField(source="id")
    job_id = serializers.UUIDField(source="id", help_text="The same as synthesis_id")
    title = serializers.CharField(source="shown_title", help_text="The text's first words, until PATCH gives another")
    attempts = serializers.IntegerField(source="attempt")
    model_id = serializers.CharField(allow_null=True, help_text="null: the default model")
    error = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    warnings = WarningSerializer(many=True, help_text="What was left out of the text, or guessed")
    warning = serializers.SerializerMethodField(help_text="The first one's message")
    turns = serializers.SerializerMethodField(help_text="Of a dialogue; otherwise null")
    links = serializers.SerializerMethodField()

    class Meta:
        model = Synthesis
        fields = (
            "synthesis_id", "job_id", "title", "status", "stage", "progress", "background", "attempts",
            "queue_position", "expected_start_at", "elapsed_seconds", "estimated_seconds_remaining", "voice_id", "text",
            "language", "speed", "temperature", "seed", "model_id", "response_format", "turns", "engine", "error",
            "error_message", "warnings", "warning", "duration_seconds", "sample_rate", "created_at", "updated_at",
            "started_at", "finished_at", "expires_at", "revoked_at", "links",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: Synthesis) -> dict[str, Any]:
        data = super().to_representation(instance)
        return data | {name: data[name] or None for name in ("error", "error_message", "model_id")}

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_warning(self, synthesis: Synthesis) -> str | None:
        return synthesis.warnings[0]["message"] if synthesis.warnings else None

    @extend_schema_field(SpokenTurnSerializer(many=True, allow_null=True))
    def get_turns(self, synthesis: Synthesis) -> list[dict[str, Any]] | None:
        shown = ("voice_id", "preset", "text", "language", "speed", "temperature", "pause_seconds")
        return [
            {name: turn[name] for name in shown}
            | dict(zip(("begin_seconds", "end_seconds"), turn.get("times", (None, None)), strict=True))
            for turn in synthesis.turns
        ] or None

    @extend_schema_field(SynthesisLinksSerializer)
    def get_links(self, synthesis: Synthesis) -> dict[str, str | None]:
        def link(name: str) -> str:
            uri: str = self.context["request"].build_absolute_uri(reverse(name, args=[synthesis.pk]))
            return uri

        live = synthesis.status in LIVE
        has_audio = synthesis.status == JobStatus.SUCCEEDED and bool(synthesis.audio)
        again = synthesis.status in RETRYABLE and synthesis.retryable
        return {
            "self": link("synthesis"),
            "audio": link("synthesis-audio") if has_audio else None,
            "cancel": link("synthesis-cancel") if live else None,
            "events": link("synthesis-events") if live else None,
            "retry": link("synthesis-retry") if again else None,
        }


class ModelSerializer(serializers.Serializer):
    id = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField(help_text="How its speech differs from the default's; empty if nobody has said")
    engine = serializers.CharField(help_text="What speaks or sings with it: builtin, gptsovits, rvc, other")
    version = serializers.CharField(help_text="Of GPT-SoVITS, such as v2Pro; empty where it is not known")
    languages = serializers.ListField(child=serializers.CharField())
    uses = serializers.ListField(
        child=serializers.ChoiceField(("synthesis", "covers")), help_text="What this server takes it for"
    )
    voice_id = serializers.UUIDField(allow_null=True, help_text="Your saved voice that speaks with it by itself")
    owned = serializers.BooleanField(help_text="You have trained it; nobody else sees it")


class ModelListSerializer(serializers.Serializer):
    models = ModelSerializer(many=True)


class EngineStateSerializer(serializers.Serializer):
    service = serializers.CharField(help_text="Always `voice-synthesis`")
    status = serializers.ChoiceField(("healthy", "unhealthy"), help_text="`healthy` where the engine is available")
    engine = serializers.CharField()
    sovits_available = serializers.BooleanField(help_text="Whether the engine is GPT-SoVITS, and available")
    available = serializers.BooleanField()
    latency_ms = serializers.FloatField(allow_null=True)
    detail = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField())
    models = ModelSerializer(many=True)
    queue_length = serializers.IntegerField(help_text="Syntheses being made or waited for")
    expected_wait_seconds = serializers.FloatField(help_text="From the queue and the last syntheses' times")
