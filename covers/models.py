"""A cover: a song sung again in the voice of a reference."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.web.names import MAX_TITLE

STAGES = ("preprocess", "separate", "infer", "mix", "finalize")
STEMS = ("vocals", "instrumental", "converted")
# The files that each stage stores; stages that are missing here store nothing.
MADE_BY = {
    "separate": ("vocals", "instrumental"),
    "infer": ("converted",),
    "finalize": ("result", "result_flac", "result_mp3"),
}


class CoverJob(Job):
    webhook_kind: ClassVar[str] = "cover"
    searched_fields: ClassVar[tuple[str, ...]] = ("title",)

    reference_voice = models.FileField(_("reference voice"), max_length=200)
    song = models.FileField(_("song"), max_length=200)
    title = models.CharField(
        _("title"),
        max_length=MAX_TITLE,
        blank=True,
        help_text=_("The song's name and the voice's, or what it was renamed"),
    )
    own_instrumental = models.FileField(
        _("own accompaniment"), max_length=200, blank=True, help_text=_("Sent with a bare voice, to be mixed with it")
    )
    song_hash = models.CharField(_("song hash"), max_length=64, help_text=_("SHA-256 of the uploaded song"))
    model_id = models.CharField(_("model id"), max_length=100, blank=True)
    pitch_shift = models.SmallIntegerField(
        _("pitch shift"), null=True, default=0, help_text=_("Semitones; none while auto is undecided")
    )
    pitch_auto = models.BooleanField(
        _("pitch auto"), default=False, help_text=_("The shift is found by listening to song and reference")
    )
    preview_seconds = models.PositiveSmallIntegerField(
        _("preview seconds"), null=True, help_text=_("Only the most vocal stretch, so long")
    )
    preview_start_seconds = models.FloatField(
        _("preview start seconds"), null=True, help_text=_("Where in the song that stretch begins")
    )
    stems_key = models.CharField(
        _("stems key"), max_length=64, blank=True, help_text=_("Names the song and how it is separated")
    )
    remix_of = models.ForeignKey(
        "self", verbose_name=_("remix of"), null=True, on_delete=models.SET_NULL, related_name="remixes"
    )
    input_kind = models.CharField(
        _("input kind"), max_length=8, default="mix", help_text=_("mix, or vocals (no separation, no mixing)")
    )
    on_no_vocals = models.CharField(
        _("on no vocals"), max_length=8, default="fail", help_text=_("fail, keep (the song as it is), or convert")
    )
    shift_instrumental = models.BooleanField(
        _("shift instrumental"), default=False, help_text=_("The accompaniment follows the melody into its key")
    )
    response_format = models.CharField(_("response format"), max_length=8, default="wav")
    reference_text = models.TextField(_("reference text"), blank=True)
    lyrics = models.TextField(_("lyrics"), blank=True)
    vocal_gain_db = models.FloatField(_("vocal gain db"), default=0)
    instrumental_gain_db = models.FloatField(_("instrumental gain db"), default=0)
    duration_seconds = models.FloatField(_("duration seconds"), null=True, help_text=_("Of the song"))
    warning = models.CharField(
        _("warning"), max_length=500, blank=True, help_text=_("What the commands said of their input")
    )

    warnings = models.JSONField(
        _("warnings"), default=list, blank=True, db_default=[], help_text=_("Each with its code and message")
    )
    details = models.JSONField(
        _("details"), default=dict, blank=True, db_default={}, help_text=_("What was found out about the song")
    )

    # Each stage's output is kept as soon as it is finished: another attempt goes on after it.
    vocals = models.FileField(_("vocals"), max_length=200, blank=True)
    instrumental = models.FileField(_("instrumental"), max_length=200, blank=True)
    converted = models.FileField(_("converted"), max_length=200, blank=True)
    result = models.FileField(_("result"), max_length=200, blank=True)
    result_flac = models.FileField(_("result flac"), max_length=200, blank=True)
    result_mp3 = models.FileField(_("result mp3"), max_length=200, blank=True)

    class Meta(Job.Meta):
        verbose_name = _("cover")
        verbose_name_plural = _("covers")
        abstract = False
        indexes = [
            *(index.clone() for index in Job.Meta.indexes),
            models.Index(fields=["tenant", "stems_key", "-created_at"]),
        ]

    running_limit_field: ClassVar[str] = "max_running"
    queued_limit_field: ClassVar[str] = "max_queued"

    @property
    def operation(self) -> str:
        return "cover" if self.song or not self.remix_of_id else "remix"

    @property
    def retryable(self) -> bool:
        """A remix has no song of its own: without the stems of its source every attempt fails alike."""
        return super().retryable and (bool(self.song) or self.source_has_stems)

    def alike(self) -> models.Q:
        return models.Q(input_kind=self.input_kind, remix_of__isnull=self.remix_of_id is None)

    @property
    def made(self) -> bool:
        """Whether its result was made here: not where nobody sings, and the song was given back as it was."""
        return not any(told["code"] == "kept" for told in self.warnings)

    def heard(self) -> tuple[Any, str]:
        # Of the formats that there are, the smallest.
        formats = {"result_mp3": "mp3", "result_flac": "flac", "result": "wav"}
        field = next(name for name in formats if getattr(self, name) or name == "result")
        return getattr(self, field), formats[field]

    @property
    def has_accompaniment(self) -> bool:
        return self.input_kind == "mix" or bool(self.own_instrumental)

    @property
    def has_stems(self) -> bool:
        return all(getattr(self, stem) for stem in STEMS)

    @property
    def source_has_stems(self) -> bool:
        """Whether what a remix mixes is still there; it is not once the source was deleted or has expired."""
        return self.remix_of is not None and self.remix_of.has_stems

    @property
    def remixable(self) -> bool:
        """Whether it has stems, or is mixed of some, that can be mixed again; a bare vocal is not."""
        return self.status == JobStatus.SUCCEEDED and bool(self.result) and (self.has_stems or self.source_has_stems)

    def expected_seconds(self) -> float:
        length = self.duration_seconds or 0.0
        return min(length, self.preview_seconds) if self.preview_seconds else length

    def made_seconds(self) -> float:
        """Of a canceled job too what it was to make, once it had stems that could be downloaded."""
        kept = self.status == JobStatus.SUCCEEDED or any(getattr(self, stem) for stem in STEMS)
        return self.expected_seconds() if kept else 0.0

    @classmethod
    def output_fields(cls) -> list[str]:
        return [*STEMS, "result", "result_flac", "result_mp3"]

    @classmethod
    def outputs_from(cls, stage: str) -> list[str]:
        return [name for later in STAGES[STAGES.index(stage) :] for name in MADE_BY.get(later, ())]
