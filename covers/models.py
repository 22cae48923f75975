"""A cover: a song sung again in the voice of a reference."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone

from voiceproject.jobs import Job, JobStatus
from voiceproject.models import WorkerHost

STAGES = ("preprocess", "separate", "infer", "mix", "finalize")
STEMS = ("vocals", "instrumental", "converted")
RECENT_JOBS = 20


class CoverJob(Job):
    reference_voice = models.FileField(max_length=200)
    song = models.FileField(max_length=200)
    song_hash = models.CharField(max_length=64, help_text="SHA-256 of the uploaded song")
    model_id = models.CharField(max_length=100, blank=True)
    pitch_shift = models.SmallIntegerField(null=True, default=0, help_text="Semitones; none while auto is undecided")
    pitch_auto = models.BooleanField(default=False, help_text="The shift is found by listening to song and reference")
    preview_seconds = models.PositiveSmallIntegerField(null=True, help_text="Only the most vocal stretch, so long")
    preview_start_seconds = models.FloatField(null=True, help_text="Where in the song that stretch begins")
    stems_key = models.CharField(max_length=64, blank=True, help_text="Names the song and how it is separated")
    remix_of = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="remixes")
    input_kind = models.CharField(max_length=8, default="mix", help_text="mix, or vocals (no separation, no mixing)")
    response_format = models.CharField(max_length=8, default="wav")
    reference_text = models.TextField(blank=True)
    lyrics = models.TextField(blank=True)
    vocal_gain_db = models.FloatField(default=0)
    instrumental_gain_db = models.FloatField(default=0)
    duration_seconds = models.FloatField(null=True, help_text="Of the song")
    warning = models.CharField(max_length=500, blank=True, help_text="What the commands said of their input")

    # Each stage's output is kept as soon as it is finished: another attempt goes on after it.
    vocals = models.FileField(max_length=200, blank=True)
    instrumental = models.FileField(max_length=200, blank=True)
    converted = models.FileField(max_length=200, blank=True)
    result = models.FileField(max_length=200, blank=True)
    result_flac = models.FileField(max_length=200, blank=True)
    result_mp3 = models.FileField(max_length=200, blank=True)

    class Meta(Job.Meta):
        verbose_name = "cover"
        abstract = False
        indexes = [
            *(index.clone() for index in Job.Meta.indexes),
            models.Index(fields=["tenant", "stems_key", "-created_at"]),
        ]

    def expected_start(self) -> datetime | None:
        """When a queued job may start, by its place and the time that the last jobs took; None where nothing is known.

        Counts COVER_CONCURRENCY jobs at a time on each host that was heard of lately.
        """
        position = self.queue_position()
        ended = CoverJob.objects.filter(status=JobStatus.SUCCEEDED, started_at__isnull=False).order_by("-created_at")
        spans = ended.values_list("started_at", "finished_at")[:RECENT_JOBS]
        times = [end - start for start, end in spans if start and end]
        lately = timezone.now() - timedelta(seconds=30)
        hosts = WorkerHost.objects.filter(seen_at__gt=lately, draining=False).count()
        if position is None or not times or not hosts:
            return None
        running = CoverJob.objects.filter(status=JobStatus.RUNNING).count()
        free = max(0, hosts * settings.COVER_CONCURRENCY - running)
        rounds = max(0, position - free) / (hosts * settings.COVER_CONCURRENCY)
        return timezone.now() + rounds * sum(times, timedelta()) / len(times)

    @classmethod
    def output_fields(cls) -> list[str]:
        return [*STEMS, "result", "result_flac", "result_mp3"]
