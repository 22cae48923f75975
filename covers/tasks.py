"""The actor that runs covers. A message to it means "look": it claims from the database until nothing is left."""

from __future__ import annotations

import re

import dramatiq
from django.conf import settings

from covers import pipeline
from covers.models import CoverJob
from voiceproject.commands.resident_child import folder_in_use
from voiceproject.jobs.broker import broker, this_worker
from voiceproject.jobs.status import JobStatus

stopping = this_worker.stopping


@dramatiq.actor(broker=broker, queue_name="covers")
def run_covers() -> None:
    """Safe to run twice, late, or on many hosts at once: the claim decides."""
    while not stopping.is_set():
        job = CoverJob.claim_if_reachable(
            this_worker.name, settings.WORKER_HOST, settings.COVER_CONCURRENCY, settings.COVER_MAX_RUNNING
        )
        if job is None:
            return
        pipeline.run(job, stopping)


def has_room() -> bool:
    """Whether a claim on this host could succeed."""
    return CoverJob.has_room(settings.WORKER_HOST, settings.COVER_CONCURRENCY)


def scratch_in_use(name: str) -> bool:
    """Whether a scratch folder belongs to an attempt that is running now, or to a command that stays."""
    if folder_in_use(settings.SCRATCH_DIR / name):
        return True
    match = re.fullmatch(r"cover-([0-9a-f-]{36})-(\d+)", name)
    return (
        match is not None and CoverJob.objects.filter(pk=match[1], attempt=match[2], status=JobStatus.RUNNING).exists()
    )
