"""What the frame has to know of covers (see voiceproject.registry)."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from covers import checks, commands, tasks  # noqa: F401 - checks registers the system checks
from covers.models import CoverJob
from covers.serializers import CoverJobSerializer
from voiceproject.console.panels import JOBS, JobPanel, Link, StageTimes, register_jobs, register_links
from voiceproject.registry import JobKind, registry

STAGE_LABELS = {
    "preprocess": _("preprocess"),
    "separate": _("separate"),
    "infer": _("infer"),
    "mix": _("mix"),
    "finalize": _("finalize"),
}


def register() -> None:
    registry.job_kinds.append(
        JobKind(
            model=CoverJob,
            queue="covers",
            actor=tasks.run_covers,
            has_room=tasks.has_room,
            recover=_recover,
            scratch_in_use=tasks.scratch_in_use,
            serialize=_serialize,
        )
    )
    registry.held_bytes.append(CoverJob.held_bytes)
    registry.at_look.append(_tidy_residents)
    registry.at_worker_stop.append(_close_residents)
    times = StageTimes(
        note=_("Mean of the last hundred covers that succeeded"),
        none=_("No cover has succeeded yet."),
    )
    register_jobs(JobPanel(CoverJob, _("Covers"), place=10, stages=STAGE_LABELS, stage_times=times))
    register_links(Link(JOBS, 10, "covers.coverjob", _("Covers"), "music_note"))


def _recover(silent_seconds: float) -> int:
    return CoverJob.recover(silent_seconds, settings.COVER_MAX_ATTEMPTS, settings.COVER_RESULT_TTL_HOURS)


def _serialize(job: CoverJob, request: Any) -> dict[str, Any]:
    return CoverJobSerializer(job, context={"request": request}).data


def _tidy_residents() -> None:
    if settings.COVER_RESIDENT:
        commands.residents().tidy()


def _close_residents() -> None:
    if settings.COVER_RESIDENT:
        commands.residents().close()
