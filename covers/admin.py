"""The console's page for covers."""

from __future__ import annotations

from django.contrib import admin

from covers.models import MADE_BY, STEMS, CoverJob
from voiceproject.console.jobs import JobAdmin


@admin.register(CoverJob)
class CoverJobAdmin(JobAdmin):
    list_display = (
        "short_id", "tenant", "badge", "stage_name", "progress_bar", "error", "attempt", "length", "created", "host",
    )  # fmt: skip
    players = ("song", "reference_voice", *STEMS, "result")
    stages = tuple(MADE_BY)
