"""The actor that runs covers. A message to it means "look": it claims from the database until nothing is left."""

from __future__ import annotations

import logging
import re
import threading

import dramatiq
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from covers import pipeline
from covers.models import CoverJob
from voiceproject.broker import UNREACHABLE, broker
from voiceproject.jobs import JobStatus
from voiceproject.models import WorkerHost
from voiceproject.resident import folder_in_use
from voiceproject.storage import is_passing

log = logging.getLogger(__name__)

# Of this worker process: its name in claims, and whether it was told to stop.
worker_name = "unnamed"
stopping = threading.Event()


@dramatiq.actor(broker=broker, queue_name="covers")
def run_covers() -> None:
    """Safe to run twice, late, or on many hosts at once: the claim decides."""
    while not stopping.is_set():
        try:
            job = CoverJob.claim(
                worker_name, settings.WORKER_HOST, settings.COVER_CONCURRENCY, settings.COVER_MAX_RUNNING
            )
        except DatabaseError as error:
            if not is_passing(error):
                raise
            log.warning("no claim, the database cannot be reached: %s", error)
            connection.close()
            return
        if job is None:
            return
        pipeline.run(job, stopping)


def wake_workers() -> None:
    """After the current transaction: tells the workers to look now, where there is a broker to tell them through."""
    if settings.REDIS_URL:
        transaction.on_commit(_send_look, robust=True)


def _send_look() -> None:
    try:
        run_covers.send()
    except UNREACHABLE as error:
        # The row is written; the workers' own look finds it within seconds.
        log.warning("the broker cannot be reached: %s", error)


def has_room() -> bool:
    """Whether a claim on this host could succeed."""
    queued = CoverJob.objects.filter(status=JobStatus.QUEUED)
    running = CoverJob.objects.filter(status=JobStatus.RUNNING, host=settings.WORKER_HOST)
    if WorkerHost.objects.filter(name=settings.WORKER_HOST, draining=True).exists():
        return False
    return queued.exists() and running.count() < settings.COVER_CONCURRENCY


def scratch_in_use(name: str) -> bool:
    """Whether a scratch folder belongs to an attempt that is running now, or to a command that stays."""
    if folder_in_use(settings.SCRATCH_DIR / name):
        return True
    match = re.fullmatch(r"cover-([0-9a-f-]{36})-(\d+)", name)
    return (
        match is not None and CoverJob.objects.filter(pk=match[1], attempt=match[2], status=JobStatus.RUNNING).exists()
    )
