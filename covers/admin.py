"""The console's page for covers."""

from __future__ import annotations

from django.contrib import admin

from covers.models import STEMS, CoverJob
from voiceproject.console import JobAdmin


@admin.register(CoverJob)
class CoverJobAdmin(JobAdmin):
    list_display = (
        "short_id", "tenant", "status", "stage", "progress_bar", "error", "attempt", "length", "created_at", "worker",
    )  # fmt: skip
    list_filter = ("status", "stage", "error", "host", "created_at")
    players = ("song", "reference_voice", *STEMS, "result")
