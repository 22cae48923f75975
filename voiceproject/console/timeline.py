"""What a job did when, and what the console calls the stages and ends of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from voiceproject.console import panels
from voiceproject.jobs.job import Job

# What is the same for all kinds of jobs; their own stages come from the apps.
LABELS = {
    "queued": _("queued"),
    "waiting": _("waiting"),
    "claimed": _("claimed"),
    "succeeded": _("succeeded"),
    "failed": _("failed"),
    "canceled": _("canceled"),
    "handed back": _("handed back at shutdown"),
    "put back": _("put back after an outage"),
    "taken over": _("taken over from a lost worker"),
    "requeued": _("queued again by an operator"),
}
ENDS = ("succeeded", "failed", "canceled", "handed back", "put back", "taken over", "requeued")


def stage_label(stage: str) -> Any:
    return LABELS.get(stage) or panels.stage_labels().get(stage, stage)


def spans(job: Job) -> list[dict[str, Any]]:
    """What the job did when, in order: each with its label, attempt, start, seconds and place on a scale of 0 to 100.

    How an attempt ended has no seconds; what still goes on lasts until now.
    """
    marks: list[dict[str, Any]] = [{"attempt": 0, "stage": "waiting", "at": job.created_at.isoformat()}]
    for mark in job.marks:
        marks.append(mark)
        if mark["stage"] in ("handed back", "put back", "taken over", "requeued"):
            marks.append({"attempt": mark["attempt"], "stage": "waiting", "at": mark["at"]})
    end = job.finished_at or timezone.now()
    times = [datetime.fromisoformat(mark["at"]) for mark in marks] + [end]
    total = max((times[-1] - times[0]).total_seconds(), 1e-3)
    found: list[dict[str, Any]] = []
    host = ""
    for mark, start, until in zip(marks, times, times[1:], strict=False):
        host = "" if mark["stage"] == "waiting" else mark.get("host", host)
        seconds = max(0.0, (until - start).total_seconds())
        if mark["stage"] in ENDS:
            seconds = 0.0
        elif mark["stage"] == "claimed" and seconds < 1:
            continue
        found.append(
            {
                "stage": mark["stage"],
                "label": stage_label(mark["stage"]),
                "attempt": mark["attempt"] or "",
                "host": host,
                "start": start,
                "seconds": None if mark["stage"] in ENDS else seconds,
                "x": f"{100 * (start - times[0]).total_seconds() / total:.2f}",
                "width": f"{max(0.4, 100 * seconds / total):.2f}",
                "kind": mark["stage"].split()[0],
            }
        )
    return found
