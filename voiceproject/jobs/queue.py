"""Whose turn it is: limits on what a tenant may queue and run, turns between tenants, places in the queue.

Nothing here writes `status`: only the verbs of `Job` do (job.py).
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Count, F, Q, Value
from django.db.models.functions import Coalesce, Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from voiceproject.errors import PublicError
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import LIVE, JobStatus
from voiceproject.registry import registry
from voiceproject.tenants.models import Tenant

RECENT_JOBS = 20  # whose times foretell when the next one starts
NEAREST_JOBS = 5  # of these, whose length is nearest to a job's, and foretells how long it takes
LEARNT_SECONDS = 30.0
OVERDUE = 0.1  # of a stage's time is left as long as it lasts longer than foretold


@dataclass(frozen=True)
class Times:
    """How long a job that has succeeded took. length: seconds of audio; stages: seconds of each of its last attempt."""

    length: float
    stages: dict[str, float]


# Kind of job and what is alike -> when it was looked up (time.monotonic()), and what was found.
_learnt: dict[tuple[str, str], tuple[float, list[Times]]] = {}


class QueuedJob(models.Model):
    """The part of a job that decides when it runs."""

    # Where Tenant keeps when this kind of job was last taken: one kind does not cost a tenant its turn in another.
    turn_field: ClassVar[str] = "served_at"
    # Where it keeps a tenant's own limits on this kind, which win over the settings'; empty where it keeps none.
    running_limit_field: ClassVar[str] = ""
    queued_limit_field: ClassVar[str] = ""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.CASCADE, related_name="%(class)ss"
    )
    # Only the verbs of Job write it.
    status = models.CharField(_("status"), max_length=16, choices=JobStatus, default=JobStatus.QUEUED)
    priority = models.SmallIntegerField(_("priority"), default=0, help_text=_("Higher goes first, across all tenants"))
    host = models.CharField(_("host"), max_length=128, blank=True)
    revision = models.PositiveIntegerField(_("revision"), default=0, help_text=_("Grows with every change"))
    # Python's clock: SQLite's has three decimals where Django writes six, and a list's pages are cut by comparing them.
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), db_default=Now())
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)

    class Meta:
        abstract = True

    @classmethod
    def for_workers(cls) -> models.QuerySet:
        """The rows that workers do, or did; all but those that some other process does itself."""
        return cls._default_manager.all()

    @classmethod
    @contextmanager
    def admission(cls, tenant: Any, max_queued: int, key: Any = None) -> Iterator[None]:
        """A transaction in which one more job of the tenant may be queued. Raises PublicError too_many_jobs.

        max_queued: for tenants that have no limit of their own; key: the API key whose job it is, which may be limited
        too. The tenant's row is locked, so that those who submit at the same time count each other.
        """
        Tenant.objects.get_or_create(user=tenant)
        with transaction.atomic():
            limit = cls._limit(Tenant.objects.select_for_update().get(user=tenant), cls.queued_limit_field, max_queued)
            queued = cls.waiting(tenant)
            if queued >= limit:
                raise PublicError(
                    "too_many_jobs",
                    f"You have {queued} jobs waiting; wait for some to end, or cancel some.",
                    {"limit": limit, "found": queued},
                    retry_after=30,
                )
            _check_jobs_of(key)
            yield

    @staticmethod
    def _limit(tenant: Tenant, field: str, default: int) -> int:
        own = getattr(tenant, field) if field else None
        return default if own is None else own

    @classmethod
    def waiting(cls, tenant: Any) -> int:
        """How many jobs of the tenant are queued."""
        return cls._default_manager.filter(tenant=tenant, status=JobStatus.QUEUED).count()

    @classmethod
    def _next_tenant(cls, tenant_limit: int) -> Tenant | None:
        """Whose turn it is, with the row locked, inside a transaction.

        Costs as much as there are queued jobs, each an entry of one index, and no more for tenants that have none:
        first who runs all that they may, then the highest priority among the others' jobs, then its tenants.
        """
        running = cls.for_workers().filter(status=JobStatus.RUNNING).order_by().values("tenant")
        own = cls.running_limit_field
        limit = Coalesce(f"tenant__tenant__{own}", Value(tenant_limit)) if own else Value(tenant_limit)
        counted = running.annotate(n=Count("pk"), limit=limit)
        full = [row["tenant"] for row in counted if row["n"] >= row["limit"]]
        if own:
            full += Tenant.objects.filter(**{own: 0}).values_list("pk", flat=True)
        # Those of a blocked tenant wait.
        queued = cls._default_manager.filter(status=JobStatus.QUEUED, tenant__is_active=True).exclude(tenant__in=full)
        urgency = queued.order_by("-priority").values_list("priority", flat=True).first()
        if urgency is None:
            return None
        tenants = Tenant.objects.filter(pk__in=queued.filter(priority=urgency).order_by().values("tenant"))
        turns = tenants.order_by(F(cls.turn_field).asc(nulls_first=True), "pk")
        # One whose row is locked is passed over; it is waited for only where there is no other.
        return (
            turns.select_for_update(skip_locked=True, of=("self",)).first()
            or turns.select_for_update(of=("self",)).first()
        )

    def prioritize(self, priority: int) -> bool:
        """Higher goes first, before all jobs of all tenants that have less; only what still waits can be moved."""
        waiting = type(self)._default_manager.filter(pk=self.pk, status=JobStatus.QUEUED)
        return bool(waiting.update(priority=priority, updated_at=Now(), revision=F("revision") + 1))

    @classmethod
    def has_room(cls, host: str, host_limit: int) -> bool:
        """Whether a claim for this host could succeed."""
        if not cls._default_manager.filter(status=JobStatus.QUEUED, tenant__is_active=True).exists():
            return False
        if WorkerHost.objects.filter(name=host, draining=True).exists():
            return False
        return cls._default_manager.filter(host=host, status=JobStatus.RUNNING).count() < host_limit

    def queue_position(self) -> int | None:
        """1 for the job that is taken next; None when it is not queued.

        As claims take turns between tenants: before the third job of one, at most three of each other one are taken,
        and more only where they are more urgent.
        """
        if self.status != JobStatus.QUEUED:
            return None
        queued = type(self)._default_manager.filter(status=JobStatus.QUEUED).order_by()
        sooner = Q(priority__gt=self.priority) | Q(priority=self.priority, created_at__lt=self.created_at)
        own = queued.filter(sooner, tenant=self.tenant_id).count() + 1
        ahead = queued.filter(priority__gte=self.priority, tenant__is_active=True)
        others = ahead.exclude(tenant=self.tenant_id).values("tenant")
        counts = others.annotate(n=Count("pk"), urgent=Count("pk", filter=Q(priority__gt=self.priority)))
        return own + sum(max(row["urgent"], min(row["n"], own)) for row in counts)

    def alike(self) -> Q:
        """Which jobs of this kind go through the same stages."""
        return Q()

    @property
    def elapsed_seconds(self) -> float | None:
        """Since the work was begun; None before."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or timezone.now()) - self.started_at).total_seconds())

    def expected_remaining(self) -> float | None:
        """Seconds until a running job ends, as long as the last jobs of its length took; None where nothing is known.

        Each stage's seconds are those that it took for a second of audio, of the jobs whose length is nearest.
        """
        this: Any = self  # Job has what is asked of it here.
        length = this.expected_seconds()
        if self.status != JobStatus.RUNNING or length <= 0 or not (times := self._learnt_times()):
            return None
        nearest = sorted(times, key=lambda one: abs(math.log(one.length / length)))[:NEAREST_JOBS]
        stages = list(dict.fromkeys(stage for one in nearest for stage in one.stages))
        foretold = {
            stage: median(one.stages.get(stage, 0.0) * length / one.length for one in nearest) for stage in stages
        }
        if this.stage not in foretold:
            return None
        own = [mark for mark in this.marks if mark["attempt"] == this.attempt and mark["stage"] == this.stage]
        since = datetime.fromisoformat(own[-1]["at"]) if own else self.started_at
        passed = (timezone.now() - since).total_seconds() if since else 0.0
        now = foretold[this.stage]
        later = sum(foretold[stage] for stage in stages[stages.index(this.stage) + 1 :])
        return max(now - passed, OVERDUE * now) + later

    def _learnt_times(self) -> list[Times]:
        """Of the last jobs like this one. Remembered for a while: each event of each job is foretold anew."""
        like = self.alike()
        key = (self._meta.label, str(like))
        at, found = _learnt.get(key, (-math.inf, []))
        if time.monotonic() - at > LEARNT_SECONDS:
            ended = type(self)._default_manager.filter(like, status=JobStatus.SUCCEEDED, started_at__isnull=False)
            found = [one for job in ended.order_by("-created_at")[:RECENT_JOBS] if (one := _times(job)) is not None]
            _learnt[key] = time.monotonic(), found
        return found

    def expected_start(self, host_limit: int) -> datetime | None:
        """When a queued job may start, by its place and the time that the last jobs took; None where nothing is known.

        Counts `host_limit` jobs at a time on each host that was heard of lately.
        """
        position = self.queue_position()
        ended = self.for_workers().filter(status=JobStatus.SUCCEEDED, started_at__isnull=False).order_by("-created_at")
        spans = ended.values_list("started_at", "finished_at")[:RECENT_JOBS]
        times = [end - start for start, end in spans if start and end]
        hosts = WorkerHost.objects.taking().count()
        places = hosts * host_limit
        if position is None or not times or not places:
            return None
        running = self.for_workers().filter(status=JobStatus.RUNNING).count()
        rounds = max(0, position - max(0, places - running)) / places
        return timezone.now() + rounds * sum(times, timedelta()) / len(times)


def forget_times() -> None:
    """Looks the times of the last jobs up anew."""
    _learnt.clear()


def _times(job: Any) -> Times | None:
    """None where its row does not tell."""
    length = job.expected_seconds()
    marks = [mark for mark in job.marks if mark["attempt"] == job.attempt]
    if length <= 0 or job.finished_at is None:
        return None
    ends = [datetime.fromisoformat(mark["at"]) for mark in marks[1:]]
    stages: dict[str, float] = {}
    for mark, end in zip(marks, ends, strict=False):
        seconds = (end - datetime.fromisoformat(mark["at"])).total_seconds()
        stages[mark["stage"]] = stages.get(mark["stage"], 0.0) + max(0.0, seconds)
    if not stages:  # Made where its client waits: all of it is one stage.
        stages = {job.stage: (job.finished_at - job.started_at).total_seconds()}
    stages.pop("claimed", None)
    return Times(length, stages)


@contextmanager
def key_admission(key: Any) -> Iterator[None]:
    """Where the API key may have so many jobs only: a transaction in which it may have one more, as `Job.admission`."""
    if key.max_concurrent_jobs is None:
        yield
        return
    Tenant.objects.get_or_create(user=key.user)
    with transaction.atomic():
        Tenant.objects.select_for_update().get(user=key.user)
        _check_jobs_of(key)
        yield


def live_jobs_of(key: Any) -> int:
    """How many jobs of the API key, and of those that share its limits, wait or run."""
    # With its tenant, since an index knows that one's live jobs, and the key's would be all that it ever made.
    own = {"tenant": key.user_id, "status__in": LIVE, "api_key__lineage": key.lineage}
    return sum(model._default_manager.filter(**own).count() for model in registry.job_models())


def _check_jobs_of(key: Any) -> None:
    """Raises PublicError too_many_jobs. The tenant's row is locked while they are counted."""
    limit = key.max_concurrent_jobs if key is not None else None
    if limit is None:
        return
    live = live_jobs_of(key)
    if live >= limit:
        message = f"This key has {live} jobs that wait or run; it may have {limit} at a time."
        raise PublicError("too_many_jobs", message, {"limit": limit, "found": live, "limit_of": "key"}, retry_after=5)


def live_keys() -> list[models.QuerySet]:
    """Of each kind of job, the primary keys of those that wait or run."""
    return [model._default_manager.filter(status__in=LIVE).order_by().values("pk") for model in registry.job_models()]
