"""The console's page for covers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from covers.models import MADE_BY, CoverJob
from voiceproject.console.jobs import Fact, JobAdmin
from voiceproject.console.tags import duration
from voices.admin import voice_fact

PLACES = {
    "centre": _("centre"),
    "left": _("left"),
    "right": _("right"),
    "inverted": _("sides inverted"),
    "wide": _("wide"),
}

INPUTS = {"mix": _("a song"), "vocals": _("a bare voice")}


@admin.register(CoverJob)
class CoverJobAdmin(JobAdmin):
    list_display = (
        "short_id", "short_title", "tenant", "badge", "stage_name", "error", "length", "created", "host",
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

    def facts(self, job: CoverJob) -> list[Fact]:
        if job.pitch_shift is None:
            pitch: Any = _("found by listening")
        else:
            pitch = (f"{job.pitch_shift:+d}" if job.pitch_shift else "0") + (
                f" ({gettext('found by listening')})" if job.pitch_auto else ""
            )
        return [
            Fact(_("Voice"), *voice_fact(job)),
            Fact(_("Length"), duration(job.duration_seconds)),
            Fact(_("Pitch, semitones"), pitch),
            Fact(_("Model"), job.model_id),
            Fact(_("Input"), INPUTS.get(job.input_kind, job.input_kind)),
            Fact(_("Format"), job.response_format),
            Fact(_("Lyrics"), job.lyrics, wide=True),
        ]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*super().get_fields(request, obj), "separation"]

    @admin.display(description=_("separation"))
    def separation(self, job: CoverJob) -> str:
        found = job.details.get("separation")
        if not found:
            return ""
        left = "–" if found["leftover_db"] is None else f"{found['leftover_db']:.1f}\N{NO-BREAK SPACE}dB"
        share, sung = f"{found['lead_share']:.1%}", f"{found['sung_seconds']:.1f}\N{NO-BREAK SPACE}s"
        return gettext("lead %(share)s of the song, left %(left)s, sung %(sung)s, place: %(place)s") % {
            "share": share, "left": left, "sung": sung, "place": PLACES.get(found["place"], found["place"])
        }  # fmt: skip
