"""The actor that runs trainings, in a queue of its own: one takes hours, and nothing else shall wait for it."""

from __future__ import annotations

import re
import time

import dramatiq
from django.conf import settings

from voiceproject.jobs.broker import broker, this_worker
from voiceproject.jobs.status import JobStatus
from voices.training import pipeline
from voices.training.models import Training

# After its GPU was lost a host takes no training for so long: another host may, or its driver comes back.
GPU_REST_SECONDS = 300.0
_rests_until = 0.0


@dramatiq.actor(broker=broker, queue_name="training")
def run_trainings() -> None:
    """Safe to run twice, late, or on many hosts at once: the claim decides."""
    global _rests_until
    while has_room() and not this_worker.stopping.is_set():
        job = Training.claim_if_reachable(
            this_worker.name, settings.WORKER_HOST, settings.TRAINING_CONCURRENCY, settings.TRAINING_MAX_RUNNING
        )
        if job is None:
            return
        if not pipeline.run(job, this_worker.stopping):
            _rests_until = time.monotonic() + GPU_REST_SECONDS


def has_room() -> bool:
    """Whether a claim on this host could succeed; never where it trains nothing, or has lost its GPU lately."""
    limit = settings.TRAINING_CONCURRENCY
    return limit > 0 and time.monotonic() >= _rests_until and Training.has_room(settings.WORKER_HOST, limit)


def scratch_in_use(name: str) -> bool:
    """Whether a scratch folder belongs to an attempt that is running now."""
    match = re.fullmatch(r"training-([0-9a-f-]{36})-(\d+)", name)
    return (
        match is not None and Training.objects.filter(pk=match[1], attempt=match[2], status=JobStatus.RUNNING).exists()
    )
