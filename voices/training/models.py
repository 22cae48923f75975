"""A training: recordings of one speaker become a model of their tenant."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import TERMINAL
from voices.speech.models import EngineModel

# What the job passes through; RVC transcribes nothing and has no GPT.
STAGES = ("check", "slice", "transcribe", "features", "train_sovits", "train_gpt", "evaluate", "publish")
RVC_STAGES = ("check", "slice", "features", "train", "index", "evaluate", "publish")
# The checkpoint that is stored when a stage has ended; another attempt goes on from the last one there is.
MADE_BY = {"features": ("prepared",), "train_gpt": ("trained",), "index": ("trained",), "evaluate": ("evaluated",)}
CHECKPOINTS = ("prepared", "trained", "evaluated")


class Training(Job):
    webhook_kind: ClassVar[str] = "training"
    searched_fields: ClassVar[tuple[str, ...]] = ("name",)
    turn_field: ClassVar[str] = "training_served_at"

    name = models.CharField(_("name"), max_length=100, help_text=_("Of the voice"))
    language = models.CharField(_("language"), max_length=8, default="auto", help_text=_("Of the recordings"))
    engine = models.CharField(_("engine"), max_length=16, choices=[("gptsovits", "GPT-SoVITS"), ("rvc", "RVC")])
    base = models.CharField(_("base"), max_length=16, blank=True, help_text=_("The version whose weights it begins at"))
    options = models.JSONField(_("options"), default=dict, help_text=_("Epochs, batch and seed, as they were sent"))
    makes_voice = models.BooleanField(
        _("makes voice"), default=False, help_text=_("The voice is saved in the end; else it was there before")
    )
    duration_seconds = models.FloatField(_("duration seconds"), null=True, help_text=_("Of speech that can be used"))
    warnings = models.JSONField(_("warnings"), default=list, blank=True, help_text=_("Each with its code and message"))
    report = models.JSONField(_("report"), default=dict, blank=True, help_text=_("What the recordings are like"))
    evaluation = models.JSONField(
        _("evaluation"), default=list, blank=True, help_text=_("What each kept checkpoint scored")
    )
    model_id = models.CharField(_("model id"), max_length=100, blank=True, help_text=_("Of the model that was made"))

    prepared = models.FileField(_("prepared"), max_length=200, blank=True)
    trained = models.FileField(_("trained"), max_length=200, blank=True)
    evaluated = models.FileField(_("evaluated"), max_length=200, blank=True)

    class Meta(Job.Meta):
        verbose_name = _("training")
        verbose_name_plural = _("trainings")
        abstract = False

    @classmethod
    def storage_folder(cls) -> str:
        return "trainings"  # not the app's own, where the folders of syntheses stand

    @classmethod
    def output_fields(cls) -> list[str]:
        return list(CHECKPOINTS)

    @classmethod
    def outputs_from(cls, stage: str) -> list[str]:
        order = {"check": 0, "slice": 0, "transcribe": 0, "features": 0, "evaluate": 2, "publish": 3}
        return list(CHECKPOINTS[order.get(stage, 1) :])

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """Recordings, and the checkpoints of trainings that have ended without success. Those of one that waits or runs
        are its working space: they must not keep its own model from being published."""
        held = cls.objects.filter(tenant=tenant_id, files_expired=False).order_by()
        ended = models.Q(status__in=TERMINAL)
        found = held.aggregate(sent=models.Sum("input_bytes"), made=models.Sum("output_bytes", filter=ended))
        return int(found["sent"] or 0) + int(found["made"] or 0)

    @property
    def shown_title(self) -> str:
        return self.name

    @property
    def stages(self) -> tuple[str, ...]:
        return STAGES if self.engine == "gptsovits" else RVC_STAGES

    @property
    def after_features(self) -> str:
        """The stage that begins to train."""
        return self.stages[self.stages.index("features") + 1]

    @property
    def new_model_id(self) -> str:
        """Of the model that it makes, in all attempts."""
        return f"tuned-{self.pk.hex[:20]}"

    @property
    def checkpoint(self) -> str:
        """The field of the last checkpoint that is stored, empty where there is none."""
        return next((name for name in reversed(CHECKPOINTS) if getattr(self, name)), "")

    def expected_seconds(self) -> float:
        return 0.0  # It makes no audio: what it costs are the engine's seconds.

    def made_seconds(self) -> float:
        return 0.0

    def delete_all(self) -> None:
        super().delete_all()
        self.recordings.all().delete()  # Their files go with the job's folder.

    def revoke(self, ttl_hours: float = 24) -> bool:
        revoked = super().revoke(ttl_hours)
        for model in EngineModel.objects.filter(training_id=self.pk):
            model.remove()
        return revoked


class TrainingRecording(models.Model):
    """One recording of a training, as it was sent, and what is said in it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    training = models.ForeignKey(Training, on_delete=models.CASCADE, related_name="recordings")
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=200, blank=True, help_text="Of the uploaded file, cleaned")
    audio = models.FileField(max_length=200)
    audio_bytes = models.PositiveBigIntegerField(help_text="Of its file")
    uploaded_hash = models.CharField(max_length=64, help_text="SHA-256 of that file")
    transcript = models.TextField(blank=True)

    class Meta:
        ordering = ("number",)

    def __str__(self) -> str:
        return f"recording {self.number} of {self.training_id}"

    @property
    def label(self) -> str:
        """What people know it by."""
        return self.name or f"recording {self.number + 1}"
