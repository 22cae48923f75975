"""The console's page for covers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
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

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*super().get_fields(request, obj), "separation"]

    @admin.display(description=_("separation"))
    def separation(self, job: CoverJob) -> str:
        found = job.details.get("separation") or {}
        return ", ".join(f"{name} {value}" for name, value in found.items())
