"""The console's page for covers."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from covers.models import MADE_BY, CoverJob
from voiceproject.console.jobs import JobAdmin


@admin.register(CoverJob)
class CoverJobAdmin(JobAdmin):
    list_display = (
        "short_id", "tenant", "badge", "stage_name", "progress_bar", "error", "attempt", "length", "created", "host",
    )  # fmt: skip
    players = {
        "song": _("Song"),
        "own_instrumental": _("Own accompaniment"),
        "reference_voice": _("Reference"),
        "vocals": _("Vocals"),
        "instrumental": _("Accompaniment"),
        "converted": _("Converted vocals"),
        "result": _("Result"),
    }
    stages = tuple(MADE_BY)
