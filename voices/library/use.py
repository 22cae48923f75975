"""When voices were last used."""

from __future__ import annotations

import time
import uuid
from typing import Any

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voices.library.models import Voice

PRECISION_SECONDS = 60.0  # Of what people sort by; a row that is written with each job would be waited for.
MOST_KEPT = 10_000

_noted: dict[uuid.UUID, float] = {}  # voice: when this process wrote it last


def on_job_ended(sender: Any, job: Job, **kwargs: Any) -> None:
    """Receiver of jobs.signals.ended: something was made with the job's voices."""
    if job.status != JobStatus.SUCCEEDED:
        return
    now = time.monotonic()
    due = [pk for pk in job.voice_ids if now - _noted.get(pk, -PRECISION_SECONDS) >= PRECISION_SECONDS]
    if not due:
        return
    Voice.objects.filter(pk__in=due).update(used_at=job.finished_at)
    if len(_noted) > MOST_KEPT:
        _noted.clear()
    _noted.update(dict.fromkeys(due, now))
