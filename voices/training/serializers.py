"""What comes in and goes out at /voice/trainings: fields, bounds and messages."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from voiceproject.jobs.status import LIVE
from voiceproject.web.api import SizedFileField, StrictSerializer, TextField
from voiceproject.webhooks.deliveries import CallbackURLField
from voices.engines.language_field import LanguageField
from voices.library.serializers import StatementField
from voices.speech.serializers import MAX_SEED, NO_VOICE_ID, RETRYABLE, QueueSerializer, WarningSerializer
from voices.training.models import RVC_STAGES, STAGES, Training

ENGINES = ("gptsovits", "rvc")
BASES = ("v2", "v2Pro", "v2ProPlus")
GPTSOVITS_ONLY = ("base", "sovits_epochs", "gpt_epochs")
RVC_ONLY = ("epochs",)


class BatchField(serializers.IntegerField):
    """A number, or None for `auto`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=64, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> int | None:
        return None if data == "auto" else super().run_validation(data)


class CreateTrainingSerializer(StrictSerializer):
    """Whose voice, and on what it is trained."""

    name = TextField(
        required=False, allow_blank=True, default="", max_length=100,
        help_text="Of the voice. Required without voice_id.",
    )  # fmt: skip
    recordings = serializers.ListField(
        child=SizedFileField(max_bytes_setting="TRAINING_MAX_UPLOAD_SIZE"), required=False, default=list,
        help_text="Files of one person speaking, in any format: 1 to 30 minutes together are best. Without any, the "
        "samples of voice_id are taken.",
    )  # fmt: skip
    transcripts = serializers.ListField(
        child=SizedFileField(max_bytes_setting="MAX_UPLOAD_SIZE"), required=False, default=list,
        help_text="What is said: a `.list` of GPT-SoVITS (`file|speaker|language|text`), or text files that are named "
        "as the recordings. What has none is transcribed.",
    )  # fmt: skip
    voice_id = serializers.UUIDField(
        required=False, allow_null=True, error_messages={"invalid": NO_VOICE_ID},
        help_text="A saved voice of yours, which speaks with the model then. Without it, one is saved in the end.",
    )  # fmt: skip
    consent = StatementField(required=False, allow_blank=True, default="")
    language = LanguageField(default="auto", help_text="What is spoken in the recordings.")
    engine = serializers.ChoiceField(ENGINES, required=False, help_text="The first that this server trains for.")
    base = serializers.ChoiceField(
        BASES, required=False, help_text="GPT-SoVITS: the version that it begins at; by default the installed one."
    )
    sovits_epochs = serializers.IntegerField(required=False, min_value=1, max_value=50, help_text="GPT-SoVITS: 8.")
    gpt_epochs = serializers.IntegerField(required=False, min_value=1, max_value=50, help_text="GPT-SoVITS: 15.")
    epochs = serializers.IntegerField(required=False, min_value=1, max_value=1000, help_text="RVC: 200.")
    batch = BatchField(required=False, allow_null=True, help_text="Clips at a time; `auto` asks the GPU.")
    seed = serializers.IntegerField(required=False, min_value=0, max_value=MAX_SEED)
    callback_url = CallbackURLField()

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        errors: dict[str, list[str]] = {}
        voice_id = fields.pop("voice_id", None)
        fields["voice_id"] = voice_id
        if voice_id is None and not fields["recordings"]:
            errors["recordings"] = ["Send recordings, or the voice_id of a saved voice."]
        if voice_id is None and not fields["name"]:
            errors["name"] = ["Name the voice."]
        if fields["recordings"] and not fields["consent"]:
            errors["consent"] = ["State that the speaker agreed: recordings are taken with that only."]
        if fields["transcripts"] and not fields["recordings"]:
            errors["transcripts"] = ["They belong to recordings, and none were sent."]
        if len(fields["recordings"]) > settings.TRAINING_MAX_FILES:
            errors["recordings"] = [f"Send at most {settings.TRAINING_MAX_FILES} files; join short ones."]
        engine = fields.setdefault("engine", offered()[0])
        if engine not in offered():
            errors["engine"] = [f"This server trains for: {', '.join(offered())}."]
        versions = settings.TRAINING_GPTSOVITS_VERSIONS
        if fields.get("base", versions[0]) not in versions:
            errors["base"] = [f"This server has the weights of: {', '.join(versions)}."]
        for name in GPTSOVITS_ONLY if engine == "rvc" else RVC_ONLY:
            if name in fields:
                errors[name] = [f"It is not of {engine}; leave it out."]
        if errors:
            raise serializers.ValidationError(errors)
        fields["base"] = fields.get("base", versions[0]) if engine == "gptsovits" else ""
        return fields


def offered() -> list[str]:
    """The engines that this deployment trains for."""
    templates = (settings.TRAINING_GPTSOVITS_CMD_TEMPLATE, settings.TRAINING_RVC_CMD_TEMPLATE)
    return [engine for engine, template in zip(ENGINES, templates, strict=True) if template]


class RetryTrainingSerializer(StrictSerializer):
    stage = serializers.ChoiceField(
        tuple(dict.fromkeys((*STAGES, *RVC_STAGES))), required=False,
        help_text="What this stage and later ones have made is made anew; without it, the last checkpoint is kept.",
    )  # fmt: skip


class TrainingLinksSerializer(serializers.Serializer):
    self = serializers.URLField()
    cancel = serializers.URLField(allow_null=True)
    events = serializers.URLField(allow_null=True)
    retry = serializers.URLField(allow_null=True)
    model = serializers.URLField(allow_null=True)


class ProblemSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    file = serializers.CharField(required=False)


class DroppedSerializer(serializers.Serializer):
    file = serializers.CharField()
    start = serializers.FloatField(required=False, allow_null=True, help_text="Seconds")
    end = serializers.FloatField(required=False, allow_null=True)
    reason = serializers.CharField()


class ReportSerializer(serializers.Serializer):
    """What the recordings are like. Empty until they were looked at."""

    usable_seconds = serializers.FloatField(required=False)
    clips = serializers.IntegerField(required=False)
    speakers = serializers.IntegerField(required=False, allow_null=True)
    language = serializers.CharField(required=False, allow_null=True)
    snr_db = serializers.FloatField(required=False, allow_null=True, help_text="Speech over noise, the median")
    problems = ProblemSerializer(many=True, required=False, help_text="Why nothing can be trained on them")
    dropped = DroppedSerializer(many=True, required=False, help_text="What is left out, and why")


class TrainingSerializer(QueueSerializer):
    concurrency_setting = "TRAINING_CONCURRENCY"

    training_id = serializers.UUIDField(source="id")
    job_id = serializers.UUIDField(source="id", help_text="The same as training_id")
    attempts = serializers.IntegerField(source="attempt")
    error = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    model_id = serializers.CharField(allow_null=True, help_text="What was made; null until it has succeeded")
    options = serializers.DictField(help_text="Epochs, batch and seed, as they were sent")
    duration_seconds = serializers.FloatField(allow_null=True, help_text="Of speech that can be used")
    gpu_seconds = serializers.FloatField(source="engine_seconds", allow_null=True, help_text="Since the last retry")
    warnings = WarningSerializer(many=True)
    report = ReportSerializer()
    evaluation = serializers.ListField(
        child=serializers.DictField(), help_text="What each kept checkpoint scored, and which one was taken"
    )
    stages = serializers.ListField(child=serializers.CharField(), help_text="What it passes through, in order")
    links = serializers.SerializerMethodField()

    class Meta:
        model = Training
        fields = (
            "training_id", "job_id", "name", "status", "stage", "stages", "progress", "engine", "base", "language",
            "options", "voice_id", "model_id", "error", "error_message", "warnings", "report", "evaluation", "attempts",
            "queue_position", "expected_start_at", "duration_seconds", "gpu_seconds", "created_at", "updated_at",
            "started_at", "finished_at", "expires_at", "revoked_at", "links",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: Training) -> dict[str, Any]:
        data = super().to_representation(instance)
        return data | {name: data[name] or None for name in ("error", "error_message", "model_id")}

    @extend_schema_field(TrainingLinksSerializer)
    def get_links(self, job: Training) -> dict[str, str | None]:
        def link(name: str, value: Any = job.pk) -> str:
            uri: str = self.context["request"].build_absolute_uri(reverse(name, args=[value]))
            return uri

        live = job.status in LIVE
        return {
            "self": link("training"),
            "cancel": link("training-cancel") if live else None,
            "events": link("training-events") if live else None,
            "retry": link("training-retry") if job.status in RETRYABLE and job.retryable else None,
            "model": link("model", job.model_id) if job.model_id else None,
        }


class TrainedModelSerializer(serializers.Serializer):
    """A model that you have trained."""

    id = serializers.CharField(source="model_id")
    name = serializers.CharField()
    engine = serializers.CharField()
    version = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField())
    voice_id = serializers.UUIDField(allow_null=True)
    training_id = serializers.UUIDField(allow_null=True)
    evaluation = serializers.ListField(child=serializers.DictField())
    created_at = serializers.DateTimeField()
    files = serializers.SerializerMethodField()

    @extend_schema_field(serializers.ListField(child=serializers.DictField()))
    def get_files(self, model: Any) -> list[dict[str, Any]]:
        build = self.context["request"].build_absolute_uri
        return [
            {
                "kind": file.kind,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "url": build(reverse("model-weights", args=[model.model_id, file.kind]))
                if settings.TRAINING_WEIGHTS_DOWNLOAD
                else None,
            }
            for file in model.files.order_by("kind")
        ]
