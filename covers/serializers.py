"""What comes in and goes out at /cover: fields, bounds and messages."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from covers.commands import template
from covers.models import STEMS, CoverJob
from voiceproject.jobs.status import LIVE, JobStatus
from voiceproject.web.api import SizedFileField, StrictSerializer, TextField
from voiceproject.webhooks.deliveries import CallbackURLField
from voices.speech import registry
from voices.speech.serializers import (
    NO_VOICE_ID,
    RETRYABLE,
    FiniteFloatField,
    OneReferenceMixin,
    QueueSerializer,
    WarningSerializer,
    as_field_error,
)

RESULT_FORMATS = ("wav", "flac", "mp3")


# A text, as a form has it: of an integer or a word, generators make types that cannot be sent.
@extend_schema_field({"type": "string", "pattern": "^(auto|[+-]?[0-9]{1,2})$"})
class PitchShiftField(serializers.IntegerField):
    """Semitones, or None for `auto`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=-24, max_value=24, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> int | None:
        return None if data == "auto" else super().run_validation(data)

    def to_representation(self, value: int) -> str:  # type: ignore[override] # as the document shows the default
        return str(value)


class CreateCoverSerializer(OneReferenceMixin, StrictSerializer):
    """What to sing, and in whose voice."""

    reference_field = "reference_voice"

    reference_voice = SizedFileField(
        required=False,
        max_bytes_setting="MAX_UPLOAD_SIZE",
        help_text="The voice to sing with: 3 to 60 s of speech as wav, mp3, flac, ogg/opus, m4a/aac or webm.",
    )
    voice_id = serializers.UUIDField(
        required=False, allow_null=True, error_messages={"invalid": NO_VOICE_ID},
        help_text="A saved voice of yours, instead of reference_voice.",
    )  # fmt: skip
    song = SizedFileField(
        max_bytes_setting="COVER_MAX_UPLOAD_SIZE",
        help_text="The song, in the same formats, up to 8 minutes by default.",
    )
    instrumental = SizedFileField(
        required=False,
        max_bytes_setting="COVER_MAX_UPLOAD_SIZE",
        help_text="With input_kind=vocals: the song's accompaniment, to mix with. Both begin at 0.",
    )
    model_id = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=100, help_text="One of GET /voice/models."
    )
    pitch_shift = PitchShiftField(
        default=0,
        help_text="Semitones by which the melody is moved, -24 to 24; `auto` moves it by whole octaves or fifths to "
        "where the reference's voice is at home.",
    )
    preview_seconds = serializers.IntegerField(
        required=False, allow_null=True, min_value=10, max_value=60, help_text="Only the most vocal stretch, so long."
    )
    response_format = serializers.ChoiceField(RESULT_FORMATS, default="wav", help_text="What /result serves.")
    reference_text = TextField(
        required=False, allow_blank=True, default="", max_length=2000, help_text="What is said in the reference."
    )
    lyrics = TextField(
        required=False, allow_blank=True, default="", max_length=20000, help_text="The words of the song."
    )
    input_kind = serializers.ChoiceField(
        ("mix", "vocals"),
        default="mix",
        help_text="vocals: the song is a bare voice; nothing is separated, and mixed with `instrumental` alone.",
    )
    on_no_vocals = serializers.ChoiceField(
        ("fail", "keep", "convert"),
        default="fail",
        help_text="Where nobody sings: the job fails as `no_vocals`, gives the song back with a warning, or converts "
        "all of the vocal stem, with a warning.",
    )
    shift_instrumental = serializers.BooleanField(
        default=False,
        help_text="Moves the accompaniment into the key of a melody that was not moved by whole octaves.",
    )
    vocal_gain_db = FiniteFloatField(default=0.0, min_value=-24, max_value=24)
    instrumental_gain_db = FiniteFloatField(default=0.0, min_value=-24, max_value=24)
    callback_url = CallbackURLField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        attrs = super().validate(attrs)
        if "instrumental" in attrs and attrs["input_kind"] != "vocals":
            message = "Only with input_kind=vocals: of a mix, the accompaniment is separated."
            raise serializers.ValidationError({"instrumental": message})
        return attrs

    def validate_model_id(self, model_id: str) -> str:
        with as_field_error():
            registry.for_cover(model_id, self.context.get("tenant"))
        return model_id

    def validate_lyrics(self, text: str) -> str:
        return self._used_by_command("lyrics_file", text)

    def validate_reference_text(self, text: str) -> str:
        return self._used_by_command("reference_text_file", text)

    def _used_by_command(self, placeholder: str, text: str) -> str:
        if text and placeholder not in template("infer").placeholders:
            raise serializers.ValidationError("This server's cover engine makes no use of this; leave it out.")
        return text


class RemixSerializer(StrictSerializer):
    """How to mix the stems of a finished job again."""

    response_format = serializers.ChoiceField(RESULT_FORMATS, default="wav", help_text="What /result serves.")
    vocal_gain_db = FiniteFloatField(default=0.0, min_value=-24, max_value=24)
    instrumental_gain_db = FiniteFloatField(default=0.0, min_value=-24, max_value=24)
    callback_url = CallbackURLField()


class SeparationSerializer(serializers.Serializer):
    """What the stems tell of how well the lead was found."""

    heard = serializers.ChoiceField(
        ("words", "melody", "nobody"), required=False, help_text="melody: which may be sung, or an instrument's"
    )
    place = serializers.ChoiceField(("centre", "left", "right", "inverted", "wide"), help_text="Of the lead")
    lead_share = serializers.FloatField(help_text="Of the song's energy, 0 to 1")
    leftover_db = serializers.FloatField(
        allow_null=True, help_text="The lead that is left in the accompaniment, over all of it; an estimate"
    )
    sung_seconds = serializers.FloatField(help_text="How long somebody sings")
    voice_left = serializers.BooleanField(help_text="A voice is heard in the accompaniment alone")


class CoverDetailsSerializer(serializers.Serializer):
    separation = SeparationSerializer(required=False, allow_null=True)


class CoverLinksSerializer(serializers.Serializer):
    self = serializers.URLField()
    result = serializers.URLField(allow_null=True)
    cancel = serializers.URLField(allow_null=True)
    events = serializers.URLField(allow_null=True)
    retry = serializers.URLField(allow_null=True)
    remix = serializers.URLField(allow_null=True)
    vocals = serializers.URLField(allow_null=True)
    instrumental = serializers.URLField(allow_null=True)
    converted = serializers.URLField(allow_null=True)


class CoverJobSerializer(QueueSerializer):
    concurrency_setting = "COVER_CONCURRENCY"

    job_id = serializers.UUIDField(source="id")
    task_id = serializers.UUIDField(source="id", help_text="The same as job_id")
    title = serializers.CharField(
        help_text="The song's name and the saved voice's, until PATCH gives another; may be empty"
    )
    model_id = serializers.CharField(allow_null=True, help_text="null: the default model")
    error = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    warning = serializers.CharField(allow_null=True, help_text="The messages of `warnings`, one after another")
    warnings = WarningSerializer(many=True)
    details = CoverDetailsSerializer()
    attempts = serializers.IntegerField(source="attempt")
    pitch_shift = serializers.IntegerField(
        allow_null=True, help_text="Semitones; null while `auto` has not listened to the song yet"
    )
    remix_of = serializers.UUIDField(
        source="remix_of_id", allow_null=True, help_text="The job whose stems were mixed again"
    )
    links = serializers.SerializerMethodField()

    class Meta:
        model = CoverJob
        fields = (
            "job_id", "task_id", "title", "status", "stage", "progress", "model_id", "voice_id", "pitch_shift",
            "pitch_auto", "input_kind", "on_no_vocals", "shift_instrumental", "preview_seconds",
            "preview_start_seconds", "remix_of", "response_format", "vocal_gain_db", "instrumental_gain_db", "error",
            "error_message", "warning", "warnings", "details", "attempts", "queue_position", "expected_start_at",
            "elapsed_seconds", "estimated_seconds_remaining", "created_at", "updated_at", "started_at", "finished_at",
            "expires_at", "revoked_at", "duration_seconds", "links",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: CoverJob) -> dict[str, Any]:
        data = super().to_representation(instance)
        return data | {name: data[name] or None for name in ("error", "error_message", "warning", "model_id")}

    @extend_schema_field(CoverLinksSerializer)
    def get_links(self, job: CoverJob) -> dict[str, str | None]:
        build = self.context["request"].build_absolute_uri

        def link(name: str, *args: Any) -> str:
            return build(reverse(f"cover-{name}", args=[job.pk, *args]))

        live = job.status in LIVE
        return {
            "self": link("detail"),
            "result": link("result") if job.status == JobStatus.SUCCEEDED and job.result else None,
            "cancel": link("cancel") if live else None,
            "events": link("events") if live else None,
            "retry": link("retry") if job.status in RETRYABLE and job.retryable else None,
            "remix": link("remix") if job.remixable else None,
            **{stem: link("stem", stem) if getattr(job, stem) else None for stem in STEMS},
        }
