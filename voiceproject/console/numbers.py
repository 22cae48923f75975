"""The dashboard's numbers: what runs, what waits, what fails, who works, at a glance.

Every number comes by an index from few rows, or is found in the background and kept for a while, so that the page
costs the same with a million jobs.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.conf import settings
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.db.models import Case, Count, F, Min, When
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from voiceproject.commands.scratch import folder_bytes
from voiceproject.console.background import Background
from voiceproject.console.charts import OUTCOMES, day_chart, stage_chart
from voiceproject.console.pages import failures, hours
from voiceproject.console.panels import JobPanel, job_kinds, link
from voiceproject.console.timeline import stage_label
from voiceproject.jobs.models import HEARD_LATELY_SECONDS, WorkerHost
from voiceproject.jobs.status import LIVE, JobStatus
from voiceproject.leases.models import EngineLease, EngineWaiter
from voiceproject.media.storage import in_bucket
from voiceproject.registry import EngineHealth, registry

DAYS = 14
RECENT = 100  # jobs whose stages are averaged


def queues() -> list[dict[str, Any]]:
    """Of each kind of job: how many run and wait, and since when the oldest waits."""
    found = []
    for kind in job_kinds():
        model = kind.model
        jobs = model._default_manager.order_by()
        live = dict(jobs.filter(status__in=LIVE).values_list("status").annotate(n=Count("pk")))
        # One that was queued again waits since then; only what is queued is read.
        since = Case(When(attempt=0, then=F("created_at")), default=F("updated_at"))
        oldest = jobs.filter(status=JobStatus.QUEUED).aggregate(at=Min(since))["at"]
        found.append(
            {
                "label": kind.label,
                "model": model,
                "running": live.get(JobStatus.RUNNING, 0),
                "queued": live.get(JobStatus.QUEUED, 0),
                "oldest": oldest,
                "running_url": link(model, status__exact=JobStatus.RUNNING),
                "queued_url": link(model, status__exact=JobStatus.QUEUED),
                "failed_url": link(model, status__exact=JobStatus.FAILED, since="day"),
                "failed": jobs.filter(
                    status=JobStatus.FAILED, created_at__gt=timezone.now() - timedelta(hours=24)
                ).count(),
            }
        )
    return found


_days: dict[datetime, tuple[float, dict[str, int]]] = {}


def outcomes() -> list[dict[str, Any]]:
    """Of each of the last days (UTC): how many of its jobs ended how. The days are those of submission.

    With a million jobs this takes a second or two, so it is done in the background; a day that is over changes little,
    and is counted again after ten minutes only.
    """
    today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)

    def count(start: datetime) -> dict[str, int]:
        total: Counter[str] = Counter()
        for kind in job_kinds():
            for status in OUTCOMES:  # one range of an index each
                jobs = kind.model._default_manager.filter(
                    status=status, created_at__gte=start, created_at__lt=start + timedelta(days=1)
                )
                total[str(status)] += jobs.count()
        return dict(total)

    found = []
    for back in range(DAYS - 1, -1, -1):
        start = today - timedelta(days=back)
        known = _days.get(start)
        if back == 0 or known is None or time.monotonic() - known[0] > 600:
            known = _days[start] = time.monotonic(), count(start)
        counts = known[1]
        found.append({"day": start.date(), **counts})
    return found


def hour_chart(last: list[hours.Hour]) -> dict[str, Any]:
    """The bars of the last hours, the newest hours in words, and how it went in the last hour that has ended jobs."""
    days = [{"day": hour.start, "hour": hour, **hour.counts} for hour in last]
    chart = day_chart(days)
    for bar, hour in zip(chart["bars"], last, strict=True):
        bar["hour"] = hour
    known = [hour for hour in last if hour.wait_p95 is not None]
    ended = sum(hour.ended for hour in last)
    return {**chart, "table": list(reversed(last)), "lately": known[-1] if known else None, "ended": ended,
            "an_hour": ended / len(last)}  # fmt: skip


def stage_seconds(kind: JobPanel) -> list[tuple[str, float]]:
    """(stage, mean seconds) over the last jobs of this kind that succeeded, from their marks."""
    times: dict[str, list[float]] = {stage: [] for stage in kind.stages}
    recent = kind.model._default_manager.filter(status=JobStatus.SUCCEEDED).order_by("-created_at")
    for marks in recent.values_list("marks", flat=True)[:RECENT]:
        for mark, following in pairwise(marks):
            if mark["stage"] in times and mark["attempt"] == following["attempt"]:
                span = datetime.fromisoformat(following["at"]) - datetime.fromisoformat(mark["at"])
                times[mark["stage"]].append(span.total_seconds())
    return [(stage, sum(values) / len(values)) for stage, values in times.items() if values]


def stage_times() -> dict[type, list[tuple[str, float]]]:
    """`stage_seconds` of each model of jobs whose times are shown."""
    return {kind.model: stage_seconds(kind) for kind in job_kinds() if kind.stage_times}


def most_jobs() -> list[tuple[int, int]]:
    """(tenant, jobs in the last 24 hours) of those with the most."""
    since = timezone.now() - timedelta(hours=24)
    total: Counter[int] = Counter()
    for kind in job_kinds():
        recent = kind.model._default_manager.filter(created_at__gt=since).order_by()
        total.update(dict(recent.values_list("tenant").annotate(n=Count("pk")).order_by("-n")[:10]))
    return total.most_common(10)


def busiest(top: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Those tenants by name, each with what it has running and waiting, and a link to its jobs of the main kind."""
    live: dict[str, Counter[int]] = {str(status): Counter() for status in LIVE}
    for kind in job_kinds():
        rows = kind.model._default_manager.filter(status__in=LIVE).order_by().values_list("status", "tenant")
        for status, tenant, n in rows.annotate(n=Count("pk")):
            live[status][tenant] += n
    main = job_kinds()[0].model
    names = dict(User.objects.filter(pk__in=[tenant for tenant, _n in top]).values_list("pk", "username"))
    return [
        {
            "name": names[tenant],
            "jobs": n,
            "running": live[JobStatus.RUNNING][tenant],
            "queued": live[JobStatus.QUEUED][tenant],
            "url": link(main, q=names[tenant]),
        }
        for tenant, n in top
        if tenant in names
    ]


def host_state(host: WorkerHost, now: datetime) -> tuple[str, Any]:
    """alive, draining or silent, and what the console calls that."""
    if host.seen_at is None or (now - host.seen_at).total_seconds() > HEARD_LATELY_SECONDS:
        return "silent", _("silent")
    return ("draining", _("draining")) if host.draining else ("alive", _("works"))


def hosts() -> list[dict[str, Any]]:
    """The hosts that were ever heard of, those alive first, each with what it does now."""
    running: dict[str, list[dict[str, Any]]] = {}
    for panel in job_kinds():
        model = panel.model
        jobs = model._default_manager.filter(status=JobStatus.RUNNING).exclude(host="").select_related("tenant")
        for job in jobs.order_by("worker")[:200]:
            url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[job.pk])
            doing = {"label": panel.label, "id": str(job.pk)[:8], "url": url, "tenant": job.tenant.username,
                     "stage": stage_label(job.stage), "progress": job.progress}  # fmt: skip
            running.setdefault(job.host, []).append(doing)
    now = timezone.now()
    found = []
    for host in WorkerHost.objects.order_by(F("seen_at").desc(nulls_last=True))[:50]:
        kind, state = host_state(host, now)
        url = reverse("admin:voiceproject_workerhost_change", args=[quote(host.name)])
        found.append({"name": host.name, "state": state, "kind": kind, "seen_at": host.seen_at, "url": url,
                      "jobs": running.get(host.name, [])})  # fmt: skip
    return found


def idle_trouble(found: list[dict[str, Any]], waiting: int) -> str:
    """Why nobody takes jobs: all `silent`, all that are not are `draining`, or `none` was ever heard of.

    "" where somebody does, and where there was never a worker and nothing waits.
    """
    kinds = {host["kind"] for host in found}
    if "alive" in kinds or not (kinds or waiting):
        return ""
    return "draining" if "draining" in kinds else "silent" if kinds else "none"


# Each process has its own.
ENGINE_HEALTH = Background(lambda: registry.engine.health(), 10.0)
MEDIA_BYTES = Background(lambda: folder_bytes(settings.MEDIA_ROOT), 300.0)
HISTORY = Background(
    lambda: {
        "days": outcomes(),
        "top": most_jobs(),
        "stages": stage_times(),
        "hours": {kind.model: hours.last_hours(kind.model) for kind in job_kinds()},
    },
    15.0,
)
PATIENCE_SECONDS = 0.15


def storage_state() -> dict[str, Any]:
    disk = shutil.disk_usage(settings.DATA_DIR)
    bucket = in_bucket(default_storage)
    return {
        "media": None if bucket else MEDIA_BYTES.value(),
        "bucket": bucket,
        "free": disk.free,
        "total": disk.total,
        "percent": round(100 * (disk.total - disk.free) / disk.total),
    }


def engine_detail(health: EngineHealth) -> str:
    """What the engine says of itself, in the page's language."""
    servers = health.extra.get("servers", ())
    if len(servers) > 1:
        available = sum(server["available"] for server in servers)
        return gettext("%(available)d of %(all)d servers available") % {"available": available, "all": len(servers)}
    children = health.extra.get("children")
    if children is not None:
        return ngettext("%d process runs", "%d processes run", children) % children
    return gettext(health.detail)


def engine_state() -> dict[str, Any]:
    now = timezone.now()
    health = ENGINE_HEALTH.value()
    servers = [
        {
            "name": lease.server,
            "busy": bool(lease.owner and lease.expires_at and lease.expires_at > now),
            "away": lease.unreachable or bool(lease.set_aside_until and lease.set_aside_until > now),
            "loaded": lease.loaded,
            "seconds": lease.usual_seconds,
        }
        for lease in EngineLease.objects.order_by("server")[:50]
    ]
    return {
        "name": settings.VOICE_ENGINE,
        "health": health,
        "detail": engine_detail(health) if health else "",
        "servers": servers,
        "waiting": EngineWaiter.objects.filter(expires_at__gt=now).count(),
    }


def all_numbers() -> dict[str, Any]:
    """All that the dashboard shows; without what is still being counted."""
    history = HISTORY.value(PATIENCE_SECONDS)
    waiting, heard_of, failing = queues(), hosts(), failures.lately()
    for host in heard_of:
        host["failed"] = failing["hosts"][host["name"]] if failing else 0
    for queue in waiting:
        last = history["hours"].get(queue["model"]) if history else None
        queue["hours"] = hour_chart(last) if last else None
    return {
        "pending": history is None,
        "queues": waiting,
        "trouble": idle_trouble(heard_of, sum(queue["queued"] for queue in waiting)),
        "failing": failing,
        "waiting": sum(queue["queued"] for queue in waiting),
        "days": day_chart(history["days"]) if history else None,
        "stages": [
            {
                "note": kind.stage_times.note,
                "none": kind.stage_times.none,
                "bars": stage_chart(history["stages"][kind.model]) if history else None,
            }
            for kind in job_kinds()
            if kind.stage_times
        ],
        "busiest": busiest(history["top"]) if history else None,
        "hosts": heard_of,
        "engine": engine_state(),
        "storage": storage_state(),
        "now": timezone.now(),
    }
