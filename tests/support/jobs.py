"""Rows of jobs, and what is told of them while they run."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db.models.functions import Now
from model_bakery import baker

from covers.models import CoverJob
from voiceproject.tenants.models import Tenant


def read_events(body: Any) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for block in b"".join(body).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields.get("id", -1)), json.loads(fields["data"])))
    return found


def queued(username: str = "alice", count: int = 1, **fields: Any) -> list[CoverJob]:
    user, _ = User.objects.get_or_create(username=username)
    Tenant.objects.get_or_create(user=user)
    return [baker.make(CoverJob, tenant=user, stage="queued", **fields) for _ in range(count)]


def claim(worker: str = "w1", host: str = "h1", host_limit: int = 100, tenant_limit: int = 100) -> CoverJob | None:
    return CoverJob.claim(worker, host, host_limit, tenant_limit)


def silent_for(job: CoverJob, seconds: float) -> None:
    CoverJob.objects.filter(pk=job.pk).update(heartbeat_at=Now() - timedelta(seconds=seconds))
