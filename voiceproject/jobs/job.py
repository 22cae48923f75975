"""Jobs: the abstract model, and every change of status as one guarded UPDATE whose row count says who won.

| from            | to                | by                                                                     |
|-----------------|-------------------|------------------------------------------------------------------------|
| queued          | running           | `claim`: attempt + 1, worker, heartbeat                                |
| queued, running | canceled          | `cancel`: the tenant or an operator                                    |
| running         | succeeded, failed | `succeed`, `fail`: the worker whose attempt number still matches       |
| running         | queued            | `hand_back` at shutdown, `put_back` after an outage, `recover` of a    |
|                 |                   | stale heartbeat, which fails it with `worker_lost` after the last      |
|                 |                   | attempt; `requeue`: an operator                                        |
| failed, canceled| queued            | `retry`                                                                |

Times that decide anything are the database's clock. Nothing but this module writes `status`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage
from django.db import DatabaseError, connection, models, transaction
from django.db.models import Count, F, Q, Value
from django.db.models.functions import Coalesce, Greatest, Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from voiceproject.errors import PublicError
from voiceproject.media.storage import is_passing
from voiceproject.models import Tenant, WorkerHost
from voiceproject.prepared import Insert, Slot, Update
from voiceproject.provenance import records
from voiceproject.telemetry import metrics, tracing
from voiceproject.tenants import usage
from voiceproject.webhooks import deliveries

log = logging.getLogger(__name__)

# What a client reads in `error_message` of a failed job. The rest of the story (standard error) is the operator's.
ERROR_MESSAGES = {
    "preprocess_failed": gettext_noop("The song or the reference could not be prepared."),
    "separation_failed": gettext_noop("The vocals could not be separated from the song."),
    "inference_failed": gettext_noop("The vocals could not be converted to the reference's voice."),
    "mix_failed": gettext_noop("The converted vocals could not be mixed with the accompaniment."),
    "out_of_memory": gettext_noop("The work needed more memory than there is. Try a shorter song."),
    "timed_out": gettext_noop("The work took longer than it may."),
    "too_long": gettext_noop("The audio is too long."),
    "worker_lost": gettext_noop("The worker was lost each time that this job was tried."),
    "storage_full": gettext_noop("The server's storage is full. Try again later."),
    "engine_error": gettext_noop("The speech engine could not make this audio."),
}


class JobStatus(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELED = "canceled", _("Canceled")


LIVE = (JobStatus.QUEUED, JobStatus.RUNNING)
MAX_MARKS = 200  # of one job; the oldest go first
RECENT_JOBS = 20  # whose times foretell when the next one starts
TERMINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


class JobQuerySet(models.QuerySet):
    def for_tenant(self, user: Any) -> Self:
        """What this tenant may see: its own."""
        return self.filter(tenant=user)


def revoked() -> PublicError:
    return PublicError(
        "revoked", gettext_noop("The operator has taken this voice down; what was made with it is gone.")
    )


def delete_folder(folder: str) -> None:
    """Deletes all files of a storage's folder, and the folder itself where the storage knows folders."""
    try:
        _, files = default_storage.listdir(folder)
    except FileNotFoundError:
        return
    records.make_before_deletion(folder)
    for name in files:
        default_storage.delete(f"{folder}/{name}")
    try:
        default_storage.delete(folder)
    except OSError:
        pass  # Somebody has put a file there this moment; the sweep of orphans finds it.


@contextmanager
def place_of(key: Any) -> Iterator[None]:
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
    """How many jobs of the API key wait or run."""
    # With its tenant, since an index knows that one's live jobs, and the key's would be all that it ever made.
    own = {"tenant": key.user_id, "status__in": LIVE, "api_key": key}
    return sum(model._default_manager.filter(**own).count() for model in Job.__subclasses__())


def _check_jobs_of(key: Any) -> None:
    """Raises PublicError too_many_jobs. The tenant's row is locked while they are counted."""
    limit = key.max_concurrent_jobs if key is not None else None
    if limit is None:
        return
    live = live_jobs_of(key)
    if live >= limit:
        message = f"This key has {live} jobs that wait or run; it may have {limit} at a time."
        raise PublicError("too_many_jobs", message, {"limit": limit, "found": live, "limit_of": "key"}, retry_after=5)


class Job(models.Model):
    """One piece of work of one tenant. Subclasses add their inputs, their outputs and their stages."""

    # What its webhooks are called: `<kind>.succeeded`, `<kind>.failed`, `<kind>.canceled`.
    webhook_kind: ClassVar[str] = "job"
    # Where Tenant keeps when this kind of job was last taken: one kind does not cost a tenant its turn in another.
    turn_field: ClassVar[str] = "served_at"
    # Where it keeps a tenant's own limits on this kind, which win over the settings'; empty where it keeps none.
    running_limit_field: ClassVar[str] = ""
    queued_limit_field: ClassVar[str] = ""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.CASCADE, related_name="%(class)ss"
    )
    api_key = models.ForeignKey(
        "voices.ApiKey", verbose_name=_("api key"), null=True, on_delete=models.SET_NULL, related_name="+"
    )
    request_id = models.CharField(_("request id"), max_length=64, blank=True, db_index=True)
    trace_parent = models.CharField(
        _("trace parent"), max_length=64, blank=True, default=tracing.traceparent, db_default="", editable=False,
        help_text=_("The request's place in its OpenTelemetry trace"),
    )  # fmt: skip
    status = models.CharField(_("status"), max_length=16, choices=JobStatus, default=JobStatus.QUEUED)
    stage = models.CharField(_("stage"), max_length=16, default="queued")
    progress = models.PositiveSmallIntegerField(_("progress"), default=0, help_text=_("0 to 100"))
    priority = models.SmallIntegerField(_("priority"), default=0, help_text=_("Higher goes first, across all tenants"))
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    revision = models.PositiveIntegerField(_("revision"), default=0, help_text=_("Grows with every change"))
    worker = models.CharField(_("worker"), max_length=128, blank=True)
    host = models.CharField(_("host"), max_length=128, blank=True)
    heartbeat_at = models.DateTimeField(_("heartbeat at"), null=True)
    # Only told to people, so by the clock of whoever writes it. An entry lasts until the next one.
    marks = models.JSONField(
        _("marks"),
        default=list,
        blank=True,
        db_default=[],
        help_text=_("When each attempt entered which stage, and how it ended"),
    )
    error = models.CharField(_("error"), max_length=32, blank=True)
    error_message = models.CharField(_("error message"), max_length=500, blank=True)
    error_detail = models.TextField(
        _("error detail"), blank=True, help_text=_("For operators: the tail of the command's standard error")
    )
    # Python's clock: SQLite's has three decimals where Django writes six, and a list's pages are cut by comparing them.
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), db_default=Now())
    started_at = models.DateTimeField(_("started at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    expires_at = models.DateTimeField(_("expires at"), null=True)

    engine_seconds = models.FloatField(
        _("engine seconds"), null=True, help_text=_("How long the engine worked, since the last retry")
    )
    # What the tenant's storage is counted by; see voiceproject.tenants.usage.
    input_bytes = models.BigIntegerField(
        _("input bytes"), default=0, db_default=0, help_text=_("Of the files that were sent")
    )
    output_bytes = models.BigIntegerField(
        _("output bytes"), default=0, db_default=0, help_text=_("Of the files that were made")
    )
    # Not a foreign key: the job outlives its voice, and an operator may revoke it even then.
    voice_id = models.UUIDField(
        _("voice id"), null=True, db_index=True, help_text=_("The saved voice that it was made with")
    )
    revoked_at = models.DateTimeField(_("revoked at"), null=True, help_text=_("When an operator took that voice down"))

    callback_url = models.CharField(
        _("callback url"), max_length=2000, blank=True, help_text=_("Told when the job has ended")
    )
    callback_base = models.CharField(
        _("callback base"), max_length=300, blank=True, help_text=_("Where links in that message begin")
    )

    objects = JobQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ("-created_at", "-id")
        indexes = [
            models.Index(fields=["status", "priority", "tenant", "created_at"]),  # whose turn it is
            models.Index(fields=["tenant", "status", "-priority", "created_at"]),  # and that tenant's first job
            models.Index(fields=["tenant", "-created_at", "-id"]),  # lists
            models.Index(fields=["tenant", "status", "-created_at", "-id"]),  # lists of one status
            models.Index(fields=["status", "-created_at"]),  # how long the last jobs took
            models.Index(fields=["-created_at", "-id"]),  # the console's list of all tenants'
            models.Index(fields=["error", "-created_at"], condition=~Q(error=""), name="%(app_label)s_%(class)s_error"),
            # Without those whose files are gone, which are most rows in the end.
            models.Index(
                fields=["expires_at"], condition=Q(files_expired=False), name="%(app_label)s_%(class)s_expiry"
            ),
            models.Index(fields=["tenant"], condition=Q(files_expired=False), name="%(app_label)s_%(class)s_stored"),
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"

    def log_ids(self) -> dict[str, str]:
        """What every log line, span and command of this job is found by."""
        ids = {"request_id": self.request_id, "job": self.pk, "tenant": self.tenant_id, "key": self.api_key_id}
        return {name: str(value) for name, value in ids.items() if value not in ("", None)}

    @property
    def resumable(self) -> bool:
        """False for work that one process must do itself while its client waits: it fails when that process is lost."""
        return True

    @property
    def retryable(self) -> bool:
        """Whether a retry could come to anything, once the job has failed or was canceled."""
        return self.resumable and not self.files_expired and self.revoked_at is None

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

    def accept(self) -> None:
        """Writes a new job's row, and what it reserves of its tenant's quotas. Raises PublicError quota_exceeded."""
        with transaction.atomic():
            usage.reserve(self)
            _inserting(type(self))(self)

    @staticmethod
    def _limit(tenant: Tenant, field: str, default: int) -> int:
        own = getattr(tenant, field) if field else None
        return default if own is None else own

    @classmethod
    def waiting(cls, tenant: Any) -> int:
        """How many jobs of the tenant are queued."""
        return cls.objects.filter(tenant=tenant, status=JobStatus.QUEUED).count()

    # --- transitions: each returns whether it happened ---

    @classmethod
    def claim(cls, worker: str, host: str, host_limit: int, tenant_limit: int) -> Self | None:
        """The fairest queued job, now running as this worker's, or None.

        Of the tenants that have queued work and run less jobs than they may (`tenant_limit`, where they have no limit
        of their own), the one with the most urgent job, then the one that was served least recently. At most
        `host_limit` jobs run on `host`, whatever starts them, and none is started on one that is draining: the host's
        row is locked while its jobs are counted, the tenant's row while its own are.
        """
        with transaction.atomic():
            WorkerHost.objects.get_or_create(name=host)
            if WorkerHost.objects.select_for_update().get(name=host).draining:
                return None
            if cls.objects.filter(host=host, status=JobStatus.RUNNING).count() >= host_limit:
                return None
            while (tenant := cls._next_tenant(tenant_limit)) is not None:
                # Looked at again under the lock: the statement that took it may have seen an older state.
                running = cls.for_workers().filter(tenant=tenant.pk, status=JobStatus.RUNNING).count()
                if running >= cls._limit(tenant, cls.running_limit_field, tenant_limit):
                    continue
                queued = cls.objects.filter(tenant=tenant.pk, status=JobStatus.QUEUED)
                job = queued.filter(tenant__is_active=True).order_by("-priority", "created_at", "pk").first()
                if job is not None:
                    job.attempt += 1
                    job.mark("claimed", host=host)
                if job is None or not queued.filter(pk=job.pk).update(
                    status=JobStatus.RUNNING,
                    attempt=F("attempt") + 1,
                    worker=worker,
                    host=host,
                    heartbeat_at=Now(),
                    marks=job.marks,
                    started_at=Coalesce("started_at", Now()),
                    progress=0,
                    error="",
                    error_message="",
                    error_detail="",
                    updated_at=Now(),
                    revision=F("revision") + 1,
                ):
                    continue  # Canceled, or its tenant blocked, this moment.
                Tenant.objects.filter(pk=tenant.pk).update(**{cls.turn_field: Now()})
                job.refresh_from_db()
                return job
        return None

    @classmethod
    def claim_if_reachable(cls, worker: str, host: str, host_limit: int, tenant_limit: int) -> Self | None:
        """As `claim`; None also while the database is away, since the next look comes within seconds."""
        try:
            return cls.claim(worker, host, host_limit, tenant_limit)
        except DatabaseError as error:
            if not is_passing(error):
                raise
            log.warning("no claim, the database cannot be reached: %s", error)
            connection.close()
            return None

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
        queued = cls.objects.filter(status=JobStatus.QUEUED, tenant__is_active=True).exclude(tenant__in=full)
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
        waiting = type(self).objects.filter(pk=self.pk, status=JobStatus.QUEUED)
        return bool(waiting.update(priority=priority, updated_at=Now(), revision=F("revision") + 1))

    @classmethod
    def has_room(cls, host: str, host_limit: int) -> bool:
        """Whether a claim for this host could succeed."""
        if not cls.objects.filter(status=JobStatus.QUEUED, tenant__is_active=True).exists():
            return False
        if WorkerHost.objects.filter(name=host, draining=True).exists():
            return False
        return cls.objects.filter(host=host, status=JobStatus.RUNNING).count() < host_limit

    def mark(self, stage: str, **more: Any) -> None:
        """Notes in memory that this attempt enters a stage now, or how it ends; the next transition or beat writes it.

        Called by whoever holds the job, and by one thread of it.
        """
        mark = {"attempt": self.attempt, "stage": stage, "at": timezone.now().isoformat(timespec="milliseconds")}
        self.marks = [*self.marks[1 - MAX_MARKS :], mark | more]

    def beat(self, stage: str | None = None, progress: int | None = None) -> bool:
        """Heartbeat and cancel check in one query. False: the job was canceled, or is another worker's by now."""
        changes: dict[str, Any] = {"heartbeat_at": Now()}
        if stage is not None and stage != self.stage:
            changes["stage"] = self.stage = stage
            changes["marks"] = self.marks
        if progress is not None and progress > self.progress:
            changes["progress"] = self.progress = min(progress, 100)
        if len(changes) > 1:
            changes |= {"updated_at": Now(), "revision": F("revision") + 1}
        return bool(self._mine().update(**changes))

    def store(self, field: str, path: Path, name: str) -> bool:
        """Puts a finished file where every host finds it. False, and nothing kept, when the job is no longer ours."""
        stored = self.upload(field, path, name)
        if self.note(**self.with_output(path.stat().st_size, **{field: stored})):
            return True
        getattr(self, field).storage.delete(stored)
        return False

    def upload(self, field: str, path: Path, name: str) -> str:
        """The first half of `store`: the file under its name in the storage, which no row knows yet."""
        with path.open("rb") as file:
            return str(getattr(self, field).storage.save(f"{self.folder}/{self.attempt}-{name}", File(file)))

    def with_output(self, size: int, **fields: Any) -> dict[str, Any]:
        """`fields` for `note` or `succeed` that name one more file of `size` bytes."""
        return {**fields, "output_bytes": self.output_bytes + size}

    def note(self, **fields: Any) -> bool:
        """Writes what the work has found out. False, and nothing written, when the job is no longer ours."""
        if not self._mine().update(**fields, updated_at=Now(), revision=F("revision") + 1):
            return False
        for name, value in fields.items():
            setattr(self, name, value)
        return True

    def succeed(self, ttl_hours: float, **fields: Any) -> bool:
        self.mark("succeeded")
        return self._finish(JobStatus.SUCCEEDED, ttl_hours, progress=100, **fields)

    def fail(self, error: str, message: str = "", detail: str = "", ttl_hours: float = 24, **fields: Any) -> bool:
        """error: a key of ERROR_MESSAGES; message: for the client; detail: for operators only."""
        self.mark("failed")
        return self._finish(
            JobStatus.FAILED,
            ttl_hours,
            **fields,
            error=error,
            error_message=(message or ERROR_MESSAGES[error])[:500],
            error_detail=detail.replace("\x00", ""),
        )

    def cancel(self, ttl_hours: float = 24) -> bool:
        """Ends a queued job at once; the worker of a running one notices at its next beat and ends the command."""
        live = type(self).objects.filter(pk=self.pk, status__in=LIVE)
        try:
            with transaction.atomic():
                canceled = live.update(
                    status=JobStatus.CANCELED,
                    finished_at=Now(),
                    updated_at=Now(),
                    expires_at=Now() + timedelta(hours=ttl_hours),
                    revision=F("revision") + 1,
                )
                self.refresh_from_db()
                if canceled:
                    self.mark("canceled")
                    type(self).objects.filter(pk=self.pk).update(marks=self.marks)
                    usage.settle(self)
                    deliveries.announce(self)
        except type(self).DoesNotExist:
            return False
        if canceled:
            metrics.job_ended(self.webhook_kind, JobStatus.CANCELED.value)
            self.delete_files(self.output_fields(), status=JobStatus.CANCELED)
        return bool(canceled)

    def revoke(self, ttl_hours: float = 24) -> bool:
        """Cancels the job if it is alive, and takes away for good what it was made of and what it has made."""
        self.cancel(ttl_hours)
        revoked = (
            type(self)
            .objects.filter(pk=self.pk, revoked_at=None)
            .update(revoked_at=Now(), files_expired=True, updated_at=Now(), revision=F("revision") + 1)
        )
        try:
            self.refresh_from_db()
        except type(self).DoesNotExist:
            return False
        # Again where it was revoked before: what was in the way of the files then may be gone.
        self.delete_files(self.file_fields())
        delete_folder(self.folder)
        return bool(revoked)

    def hand_back(self) -> bool:
        """A worker that is told to stop: the job is queued again, and this attempt does not count."""
        self.mark("handed back")
        return bool(self._mine().update(**self._queued(), marks=self.marks, attempt=F("attempt") - 1))

    def put_back(self, max_attempts: int) -> bool:
        """A worker that cannot go on, through no fault of the job: it is queued again, and this attempt counts.

        False also when it was the last one.
        """
        if self.attempt - self.first_attempt >= max_attempts:
            return False
        self.mark("put back")
        return bool(self._mine().update(**self._queued(), marks=self.marks))

    def retry(self, stage: str = "") -> bool:
        """Queues a failed or canceled job again, with its attempts counted anew from here; not without its files.

        It goes on after the last stage that was finished; with `stage`, what that one and those after it have made is
        deleted, so that they are done again. Raises PublicError quota_exceeded.
        """
        over = type(self).objects.filter(pk=self.pk, status__in=(JobStatus.FAILED, JobStatus.CANCELED), revoked_at=None)
        fields = self.outputs_from(stage) if stage else []
        stored = [(getattr(self, name).storage, getattr(self, name).name) for name in fields if getattr(self, name)]
        freed = sum(storage.size(name) for storage, name in stored if storage.exists(name))
        with transaction.atomic():
            usage.lock(self)  # Before the job's row, as claims do it.
            changed = over.filter(files_expired=False).update(
                **self._queued(), error="", error_message="", error_detail="", finished_at=None, expires_at=None,
                first_attempt=F("attempt"), engine_seconds=None, output_bytes=Greatest(F("output_bytes") - freed, 0),
                **dict.fromkeys(fields, ""),
            )  # fmt: skip
            self.refresh_from_db()
            if changed:
                usage.reserve(self)
        if changed and stored:
            records.make_before_deletion(self.folder)
            self._delete_stored(stored)
        return bool(changed)

    def requeue(self) -> bool:
        """Takes a running job from its worker, which ends its command at its next beat; this attempt counts."""
        if not self.resumable:
            return False
        running = type(self).objects.filter(pk=self.pk, status=JobStatus.RUNNING)
        with transaction.atomic():
            changed = running.update(**self._queued())
            self.refresh_from_db()
            if changed:
                self.mark("requeued")
                type(self).objects.filter(pk=self.pk).update(marks=self.marks)
        return bool(changed)

    first_attempt = models.PositiveIntegerField(
        _("first attempt"), default=0, help_text=_("Attempts before the last retry")
    )

    @classmethod
    def recover(cls, timeout_seconds: float, max_attempts: int, ttl_hours: float = 24) -> int:
        """Takes over jobs whose worker has not been heard of for `timeout_seconds`; how many.

        ttl_hours: how long the files of those are kept that are not tried again.
        """
        stale = Q(status=JobStatus.RUNNING, heartbeat_at__lt=Now() - timedelta(seconds=timeout_seconds))
        count = 0
        for job in cls.objects.filter(stale):
            # `stale` again: between the two queries the worker may have come back.
            if not job.resumable or job.attempt - job.first_attempt >= max_attempts:
                job.mark("failed")
                won = job._finish(
                    JobStatus.FAILED,
                    ttl_hours,
                    stale,
                    error="worker_lost",
                    error_message=ERROR_MESSAGES["worker_lost"],
                )
            else:
                job.mark("taken over")
                won = bool(job._mine().filter(stale).update(**job._queued(), marks=job.marks))
            if won:
                count += 1
                log.warning("took over a job of a lost worker", extra={"job": job.pk, "worker": job.worker})
        return count

    def queue_position(self) -> int | None:
        """1 for the job that is taken next; None when it is not queued.

        As claims take turns between tenants: before the third job of one, at most three of each other one are taken,
        and more only where they are more urgent.
        """
        if self.status != JobStatus.QUEUED:
            return None
        queued = type(self).objects.filter(status=JobStatus.QUEUED).order_by()
        sooner = Q(priority__gt=self.priority) | Q(priority=self.priority, created_at__lt=self.created_at)
        own = queued.filter(sooner, tenant=self.tenant_id).count() + 1
        ahead = queued.filter(priority__gte=self.priority, tenant__is_active=True)
        others = ahead.exclude(tenant=self.tenant_id).values("tenant")
        counts = others.annotate(n=Count("pk"), urgent=Count("pk", filter=Q(priority__gt=self.priority)))
        return own + sum(max(row["urgent"], min(row["n"], own)) for row in counts)

    def expected_start(self, host_limit: int) -> datetime | None:
        """When a queued job may start, by its place and the time that the last jobs took; None where nothing is known.

        Counts `host_limit` jobs at a time on each host that was heard of lately.
        """
        position = self.queue_position()
        ended = self.for_workers().filter(status=JobStatus.SUCCEEDED, started_at__isnull=False).order_by("-created_at")
        spans = ended.values_list("started_at", "finished_at")[:RECENT_JOBS]
        times = [end - start for start, end in spans if start and end]
        lately = timezone.now() - timedelta(seconds=30)
        hosts = WorkerHost.objects.filter(seen_at__gt=lately, draining=False).count()
        places = hosts * host_limit
        if position is None or not times or not places:
            return None
        running = self.for_workers().filter(status=JobStatus.RUNNING).count()
        rounds = max(0, position - max(0, places - running)) / places
        return timezone.now() + rounds * sum(times, timedelta()) / len(times)

    def raise_unless_succeeded(self) -> None:
        """PublicError that says why there is no result (yet, any more, or ever)."""
        if self.revoked_at is not None:
            raise revoked()
        if self.status in LIVE:
            raise PublicError("job_not_ready", "The job has not ended yet.", {"status": self.status}, retry_after=2)
        if self.files_expired:
            raise PublicError("result_expired", "The files of this job were deleted after their time.")
        if self.status == JobStatus.CANCELED:
            raise PublicError("job_canceled", "The job was canceled; it has no result.")
        if self.status == JobStatus.FAILED:
            raise PublicError("job_failed", f"The job failed: {self.error_message}", {"error": self.error})

    def as_json(self, request: Any) -> dict[str, Any]:
        """The job as the API answers it. `request` makes links absolute with its `build_absolute_uri`."""
        # Each kind of job has a serializer of its own, and Django's metaclass knows no abstract methods.
        raise NotImplementedError(f"{type(self).__name__} does not say how it is shown")

    # --- usage: what voiceproject.tenants.usage asks of each kind ---

    # Set where the tenant or the key has a quota: milliseconds of audio that are left of it.
    quota_left_ms: int | None = None
    reserved_ms: int = 0

    @property
    def operation(self) -> str:
        return self.webhook_kind

    @property
    def characters(self) -> int:
        return 0

    def expected_seconds(self) -> float:
        """Audio that the job will make, as far as it is known when it is accepted."""
        # As with as_json: every kind of job has its own, and Django's metaclass knows no abstract methods.
        raise NotImplementedError(f"{type(self).__name__} does not say what it makes")

    def made_seconds(self) -> float:
        """Audio that was made, of a job that has succeeded, or was canceled after it had started."""
        # The same.
        raise NotImplementedError(f"{type(self).__name__} does not say what it has made")

    @property
    def started(self) -> bool:
        """Whether an attempt was begun, and not handed back, since the job was queued."""
        return self.attempt > self.first_attempt

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """What the tenant's files of this kind take."""
        rows = cls._default_manager.filter(tenant=tenant_id, files_expired=False).order_by()
        total = rows.aggregate(n=models.Sum(F("input_bytes") + F("output_bytes")))["n"]
        return int(total or 0)

    # --- files ---

    @classmethod
    def file_fields(cls) -> list[str]:
        return [field.name for field in cls._meta.get_fields() if isinstance(field, models.FileField)]

    @classmethod
    def output_fields(cls) -> list[str]:
        """The files that a canceled job does not keep. Subclasses leave their inputs out."""
        return cls.file_fields()

    @classmethod
    def outputs_from(cls, stage: str) -> list[str]:
        """The files that this stage and those after it make."""
        return cls.output_fields()

    @property
    def folder(self) -> str:
        """Where the job's files stand in the storage."""
        return f"{self._meta.app_label}/{self.pk}"

    def delete_files(self, fields: list[str], **condition: Any) -> None:
        """Empties these file fields in the row, then deletes what they named; nothing where `condition` is not so."""
        stored = [(getattr(self, name).storage, getattr(self, name).name) for name in fields if getattr(self, name)]
        if stored:
            records.make_before_deletion(self.folder)
        emptied: dict[str, Any] = dict.fromkeys(fields, "") | {"output_bytes": 0}
        if set(fields) >= set(self.file_fields()):
            emptied["input_bytes"] = 0
        if not type(self).objects.filter(pk=self.pk, **condition).update(**emptied):
            return
        for name, value in emptied.items():
            setattr(self, name, value)
        self._delete_stored(stored)

    @staticmethod
    def _delete_stored(stored: list[tuple[Any, str]]) -> None:
        for storage, name in stored:
            try:
                storage.delete(name)
            except Exception as error:
                if not is_passing(error):
                    raise
                # No row names it any more; it goes with the job's folder.
                log.warning("a file could not be deleted yet: %s", error, extra={"file": name})

    def withdraw(self) -> None:
        """Deletes a job that turns out to be none, before anything was made; nothing is charged for it."""
        with transaction.atomic():
            usage.give_back(self)
            type(self).objects.filter(pk=self.pk).delete()

    def remove(self) -> None:
        """Deletes the job for good, its files too; a live one is canceled first."""
        self.cancel()
        type(self).objects.filter(pk=self.pk).delete()
        deliveries.forget(self)
        delete_folder(self.folder)

    @classmethod
    def sweep_orphans(cls, older_than_seconds: float) -> int:
        """Deletes the folders of jobs that have no row, or whose files have expired, left by a process that was killed
        between the two, or by a bucket that was away; how many."""
        count = 0
        try:
            folders, _ = default_storage.listdir(cls._meta.app_label)
        except FileNotFoundError:
            return 0
        limit = timezone.now() - timedelta(seconds=older_than_seconds)
        for name in folders:
            if cls.objects.filter(pk=name, files_expired=False).exists():
                continue  # Asked first: a bucket takes a request for each file's age.
            folder = f"{cls._meta.app_label}/{name}"
            _, files = default_storage.listdir(folder)
            young = any(default_storage.get_modified_time(f"{folder}/{file}") > limit for file in files)
            if not young and not cls.objects.filter(pk=name, files_expired=False).exists():
                delete_folder(folder)
                count += 1
        return count

    @classmethod
    def expire(cls) -> int:
        """Deletes the files of jobs past their time; the rows stay and say so. How many."""
        past = cls.objects.filter(expires_at__lt=Now(), status__in=TERMINAL, files_expired=False)[:100]
        count = 0
        for job in past:
            if cls.objects.filter(pk=job.pk, files_expired=False, status__in=TERMINAL).update(files_expired=True):
                job.delete_files(cls.file_fields())
                delete_folder(job.folder)
                count += 1
        return count

    files_expired = models.BooleanField(_("files expired"), default=False)

    # --- internals ---

    def _mine(self) -> models.QuerySet:
        # The worker too: an attempt that was handed back is counted again by the next one.
        return type(self).objects.filter(pk=self.pk, status=JobStatus.RUNNING, attempt=self.attempt, worker=self.worker)

    def _finish(self, status: JobStatus, ttl_hours: float, only: Q | None = None, /, **fields: Any) -> bool:
        fields["marks"] = self.marks
        end = _ending(type(self), status, timedelta(hours=ttl_hours), tuple(fields), only)
        # Often within a caller's transaction: a savepoint there would be two statements for nothing.
        with transaction.atomic(savepoint=False):
            won = bool(end(_pk=self.pk, _attempt=self.attempt, _worker=self.worker, **fields))
            if won:
                # Not otherwise: who has lost must not learn the winner's attempt number, and act in its name.
                for name, value in {**fields, "status": status, "heartbeat_at": None}.items():
                    setattr(self, name, value)
                for name in ("finished_at", "updated_at", "expires_at", "revision"):
                    # What the database has computed is read when somebody asks for it, which is seldom.
                    self.__dict__.pop(name, None)
                usage.settle(self)
                if self.callback_url:
                    self.refresh_from_db()
                    deliveries.announce(self)
        if won:
            metrics.job_ended(self.webhook_kind, status.value, self.error)
        return won

    @staticmethod
    def _queued() -> dict[str, Any]:
        return {
            "status": JobStatus.QUEUED,
            "stage": "queued",
            "progress": 0,
            "worker": "",
            "host": "",
            "heartbeat_at": None,
            "updated_at": Now(),
            "revision": F("revision") + 1,
        }


_inserting = cache(Insert)


@cache
def _ending(model: type[Job], status: JobStatus, ttl: timedelta, fields: tuple[str, ...], only: Q | None) -> Update:
    """Ends the running job `_pk` of the attempt and worker `_attempt`, `_worker`, and writes these fields."""
    # The worker too: an attempt that was handed back is counted again by the next one.
    mine = model._default_manager.filter(
        pk=Slot("_pk", model, "id"),
        status=JobStatus.RUNNING,
        attempt=Slot("_attempt", model, "attempt"),
        worker=Slot("_worker", model, "worker"),
    )
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
