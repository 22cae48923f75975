"""The statements that every synthesis runs, compiled once for each kind of job."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from voiceproject.jobs.status import JobStatus
from voiceproject.prepared import Insert, Slot, Update

insert_job = cache(Insert)  # of one kind of job


def _mine(model: type[models.Model]) -> models.QuerySet:
    """The running job `_pk` of the attempt and worker `_attempt`, `_worker`."""
    # The worker too: an attempt that was handed back is counted again by the next one.
    return model._default_manager.filter(
        pk=Slot("_pk", model, "id"),
        status=JobStatus.RUNNING,
        attempt=Slot("_attempt", model, "attempt"),
        worker=Slot("_worker", model, "worker"),
    )


@cache
def beat_job(model: type[models.Model]) -> Update:
    """A heartbeat of a job, as `_mine` finds it, with nothing to tell."""
    return Update(_mine(model), heartbeat_at=Now())


@cache
def end_job(
    model: type[models.Model], status: JobStatus, ttl: timedelta, fields: tuple[str, ...], only: Q | None
) -> Update:
    """Ends the job that `_mine` finds, and writes these fields."""
    mine = _mine(model)
    return Update(
        mine if only is None else mine.filter(only),
        status=status,
        finished_at=Now(),
        updated_at=Now(),
        expires_at=Now() + ttl,
        heartbeat_at=None,
        revision=F("revision") + 1,
        **{name: Slot(name, model) for name in fields},
    )
