"""Jobs: the abstract model, and every change of status as one guarded UPDATE whose row count says who won.

| from            | to                | by                                                                     |
|-----------------|-------------------|------------------------------------------------------------------------|
| (new)           | queued, running   | `accept`; `accept_running`, where whoever accepts it does the work     |
| queued          | running           | `claim`: attempt + 1, worker, heartbeat                                |
| queued, running | canceled          | `cancel`: the tenant or an operator                                    |
| running         | succeeded, failed | `succeed`, `fail`: the worker whose attempt number still matches       |
| running         | queued            | `hand_back` at shutdown, `put_back` after an outage, `recover` of a    |
|                 |                   | stale heartbeat, which fails it with `worker_lost` after the last      |
|                 |                   | attempt; `requeue`: an operator                                        |
| failed, canceled| queued            | `retry`                                                                |

Times that decide anything are the database's clock. Nothing but the verbs of `Job` writes `status`; the
statement of `succeed` and `fail` is `end_job` in statements.py.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.db import DatabaseError, connection, models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Greatest, Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from voiceproject.commands.telling import MAX_CAUSE, cause_of
from voiceproject.errors import PublicError
from voiceproject.jobs import signals
from voiceproject.jobs.files import JobFiles, delete_folder
from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.queue import QueuedJob
from voiceproject.jobs.statements import beat_job, end_job, insert_job
from voiceproject.jobs.status import ERROR_MESSAGES, LIVE, JobStatus, revoked
from voiceproject.media.storage import is_passing
from voiceproject.telemetry import metrics, tracing
from voiceproject.tenants import usage
from voiceproject.tenants.models import Tenant

log = logging.getLogger(__name__)

MAX_MARKS = 200  # of one job; the oldest go first


class JobQuerySet(models.QuerySet):
    def for_tenant(self, user: Any) -> Self:
        """What this tenant may see: its own."""
        return self.filter(tenant=user)


class Job(QueuedJob, JobFiles):
    """One piece of work of one tenant. Subclasses add their inputs, their outputs and their stages."""

    # What its webhooks are called: `<kind>.succeeded`, `<kind>.failed`, `<kind>.canceled`.
    webhook_kind: ClassVar[str] = "job"
    # Where the lists of the API look for words.
    searched_fields: ClassVar[tuple[str, ...]] = ()
    api_key = models.ForeignKey(
        "voices.ApiKey", verbose_name=_("api key"), null=True, on_delete=models.SET_NULL, related_name="+"
    )
    request_id = models.CharField(_("request id"), max_length=64, blank=True, db_index=True)
    trace_parent = models.CharField(
        _("trace parent"), max_length=64, blank=True, default=tracing.traceparent, db_default="", editable=False,
        help_text=_("The request's place in its OpenTelemetry trace"),
    )  # fmt: skip
    stage = models.CharField(_("stage"), max_length=16, default="queued")
    progress = models.PositiveSmallIntegerField(_("progress"), default=0, help_text=_("0 to 100"))
    attempt = models.PositiveIntegerField(_("attempt"), default=0)
    worker = models.CharField(_("worker"), max_length=128, blank=True)
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
    cause = models.CharField(
        _("cause"), max_length=MAX_CAUSE, blank=True, default="", db_default="",
        help_text=_("For operators: the line of it that says most, without its numbers; failures are grouped by it"),
    )  # fmt: skip
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
    files_expired = models.BooleanField(_("files expired"), default=False)
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
    first_attempt = models.PositiveIntegerField(
        _("first attempt"), default=0, help_text=_("Attempts before the last retry")
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
            # The console's groups of failures: all that they need, and the list of one group.
            models.Index(
                fields=["finished_at", "error", "cause", "host"],
                condition=~Q(error=""),
                name="%(app_label)s_%(class)s_failed",
            ),
            models.Index(fields=["cause", "-created_at"], condition=~Q(error=""), name="%(app_label)s_%(class)s_cause"),
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

    @property
    def voice_ids(self) -> list[uuid.UUID]:
        """The saved voices that it is made with."""
        return [self.voice_id] if self.voice_id else []

    @classmethod
    def made_with(cls, voice_ids: Collection[uuid.UUID]) -> Q:
        """The jobs that one of these voices has a part in."""
        return Q(voice_id__in=voice_ids)

    def accept(self) -> None:
        """Writes a new job's row, and what it reserves of its tenant's quotas. Raises PublicError quota_exceeded."""
        with transaction.atomic():
            usage.reserve(self)
            insert_job(type(self))(self)
            self.accept_parts()

    def accept_parts(self) -> None:
        """Writes what belongs to a new job beside its row, in the same transaction."""

    def accept_running(self, worker: str, host: str = "", stage: str = "queued") -> None:
        """As `accept`, for a new job that this process does itself, now: it is born running, in its first attempt."""
        self.status = JobStatus.RUNNING
        self.attempt = 1
        self.worker, self.host = worker, host
        self.heartbeat_at = self.started_at = Now()
        if stage != self.stage:
            self.stage = stage
            self.mark(stage)
        self.accept()

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
                job: Any = queued.filter(tenant__is_active=True).order_by("-priority", "created_at", "pk").first()
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
                    cause="",
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

    def mark(self, stage: str, **more: Any) -> None:
        """Notes in memory that this attempt enters a stage now, or how it ends; the next transition or beat writes it.

        Called by whoever holds the job, and by one thread of it.
        """
        mark = {"attempt": self.attempt, "stage": stage, "at": timezone.now().isoformat(timespec="milliseconds")}
        self.marks = [*self.marks[1 - MAX_MARKS :], mark | more]

    def beat(self, stage: str | None = None, progress: int | None = None, tail: str | None = None) -> bool:
        """Heartbeat and cancel check in one query. False: the job was canceled, or is another worker's by now.

        tail: what the running command has said to stderr, as far as it is kept; nobody but operators sees it.
        """
        changes: dict[str, Any] = {"heartbeat_at": Now()}
        if stage is not None and stage != self.stage:
            changes["stage"] = self.stage = stage
            changes["marks"] = self.marks
        if progress is not None and progress > self.progress:
            changes["progress"] = self.progress = min(progress, 100)
        if len(changes) > 1:
            changes |= {"updated_at": Now(), "revision": F("revision") + 1}
        if tail is not None and tail != self.error_detail:
            changes["error_detail"] = self.error_detail = tail.replace("\x00", "")
        if len(changes) == 1:
            return bool(beat_job(type(self))(_pk=self.pk, _attempt=self.attempt, _worker=self.worker))
        return bool(self._mine().update(**changes))

    def note(self, **fields: Any) -> bool:
        """Writes what the work has found out. False, and nothing written, when the job is no longer ours."""
        if not self._mine().update(**fields, updated_at=Now(), revision=F("revision") + 1):
            return False
        for name, value in fields.items():
            setattr(self, name, value)
        return True

    def succeed(self, ttl_hours: float, **fields: Any) -> bool:
        self.mark("succeeded")
        if self.error_detail:
            fields["error_detail"] = ""  # What the commands have said while they ran.
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
            cause=cause_of(detail),
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
                    self._announce_end()
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
        self.delete_all()
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
                **self._queued(), error="", error_message="", error_detail="", cause="", finished_at=None,
                expires_at=None, first_attempt=F("attempt"), engine_seconds=None,
                output_bytes=Greatest(F("output_bytes") - freed, 0),
                **dict.fromkeys(fields, ""),
            )  # fmt: skip
            self.refresh_from_db()
            if changed:
                usage.reserve(self)
        if changed and stored:
            signals.deleting_files.send(sender=type(self), folder=self.folder)
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

    def correct_usage(self, made_seconds: float, engine_seconds: float) -> None:
        """What this attempt has really made, where it was canceled from outside; nothing where it ended otherwise."""
        if type(self).objects.filter(pk=self.pk, attempt=self.attempt, status=JobStatus.CANCELED).exists():
            usage.correct(self, made_seconds, engine_seconds)

    def withdraw(self) -> None:
        """Deletes a job that turns out to be none, before anything was made; nothing is charged for it."""
        with transaction.atomic():
            usage.give_back(self)
            type(self).objects.filter(pk=self.pk).delete()

    def remove(self) -> None:
        """Deletes the job for good, its files too; a live one is canceled first."""
        self.cancel()
        type(self).objects.filter(pk=self.pk).delete()
        signals.removed.send(sender=type(self), job=self)
        delete_folder(self.folder)

    # --- what clients are told ---

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
        # Every kind of job has its own, and Django's metaclass knows no abstract methods.
        raise NotImplementedError(f"{type(self).__name__} does not say what it makes")

    def made_seconds(self) -> float:
        """Audio that was made, of a job that has succeeded, or was canceled after it had started."""
        # The same.
        raise NotImplementedError(f"{type(self).__name__} does not say what it has made")

    @property
    def started(self) -> bool:
        """Whether an attempt was begun, and not handed back, since the job was queued."""
        return self.attempt > self.first_attempt

    # --- internals ---

    def _mine(self) -> models.QuerySet:
        # The worker too: an attempt that was handed back is counted again by the next one.
        return type(self).objects.filter(pk=self.pk, status=JobStatus.RUNNING, attempt=self.attempt, worker=self.worker)

    def _finish(self, status: JobStatus, ttl_hours: float, only: Q | None = None, /, **fields: Any) -> bool:
        fields["marks"] = self.marks
        end = end_job(type(self), status, timedelta(hours=ttl_hours), tuple(fields), only)
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
                self._announce_end()
        if won:
            metrics.job_ended(self.webhook_kind, status.value, self.error)
        return won

    def _announce_end(self) -> None:
        """In the transaction that ends the job: closes its usage, and tells whoever else wants to know."""
        stopped = self.status == JobStatus.CANCELED and self.started
        usage.settle(self, counts=self.status == JobStatus.SUCCEEDED or stopped)
        signals.ended.send(sender=type(self), job=self)

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
