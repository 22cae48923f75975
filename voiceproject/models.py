"""Rows of the frame: a tenant's turn in the queues, hosts of workers, leases of engines, webhooks, marks."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Tenant(models.Model):
    """What the queues know of a user. Made with the user's first job; locked while one of its jobs is claimed."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, primary_key=True
    )
    served_at = models.DateTimeField(
        _("served at"), null=True, help_text=_("When a worker last took a cover of this tenant")
    )
    synthesis_served_at = models.DateTimeField(
        _("synthesis served at"), null=True, help_text=_("When a worker last took a synthesis of it")
    )
    # None: the default of all tenants, COVER_MAX_RUNNING and COVER_MAX_QUEUED.
    max_running = models.PositiveIntegerField(
        _("max running"), null=True, blank=True, help_text=_("Covers that may run at a time")
    )
    max_queued = models.PositiveIntegerField(
        _("max queued"), null=True, blank=True, help_text=_("Covers that may wait")
    )
    # They bound all keys of the tenant together. None: the default of all tenants.
    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), null=True, blank=True)
    monthly_audio_seconds = models.PositiveIntegerField(
        _("monthly audio seconds"),
        null=True,
        blank=True,
        help_text=_("Seconds of audio that it may make in a calendar month (UTC)"),
    )
    max_storage_bytes = models.PositiveBigIntegerField(
        _("max storage bytes"), null=True, blank=True, help_text=_("What its files may take together")
    )
    erase_requested_at = models.DateTimeField(
        _("erase requested at"),
        null=True,
        editable=False,
        db_index=True,
        help_text=_("Everything of it is being deleted since then"),
    )

    class Meta:
        verbose_name = _("tenant")
        verbose_name_plural = _("tenants")

    def __str__(self) -> str:
        return str(self.user)


class WorkerHost(models.Model):
    """A machine that runs jobs. Its row is locked while a job is claimed for it, so that its limit holds."""

    name = models.CharField(_("name"), max_length=128, primary_key=True)
    seen_at = models.DateTimeField(
        _("seen at"), null=True, help_text=_("When a worker of this host last looked for work")
    )
    draining = models.BooleanField(
        _("draining"),
        default=False,
        db_default=False,
        help_text=_("Takes no new jobs; those that run there are finished"),
    )

    class Meta:
        verbose_name = _("worker host")
        verbose_name_plural = _("worker hosts")

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """What a tenant's Idempotency-Key has stood for (voiceproject.jobs.idempotency). Holds nothing of what was sent."""

    tenant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64, help_text="SHA-256 over the operation, the fields and the files")
    job_id = models.UUIDField(help_text="What the request made")
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "key"], name="one_request_a_key")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.key}"


class RateLog(models.Model):
    """When the last requests of a tenant or a key were accepted. Written by voiceproject.tenants.ratelimit alone."""

    name = models.CharField(max_length=64, primary_key=True)
    times = models.TextField(help_text="The newest first")

    def __str__(self) -> str:
        return self.name


class EngineLease(models.Model):
    """Who may call an engine's server now: one call at a time over all processes."""

    server = models.CharField(max_length=255, unique=True)
    owner = models.CharField(max_length=64, blank=True)
    expires_at = models.DateTimeField(null=True)
    needs_probe = models.BooleanField(default=False, help_text="A call timed out and may still be running there")
    set_aside_until = models.DateTimeField(null=True, help_text="A call failed there: not asked before this time")
    unreachable = models.BooleanField(default=False, help_text="At the last attempt nothing took the connection")
    loaded = models.TextField(blank=True, help_text="Weights that we loaded there; empty: none ever, ?: not known")
    usual_seconds = models.FloatField(default=5.0, help_text="How long a call takes there, smoothed")
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.server


class EngineTurn(models.Model):
    """When a tenant was last served by an engine's servers: who was served longest ago goes first."""

    queue = models.CharField(max_length=64)
    tenant = models.CharField(max_length=64, blank=True)
    served_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["queue", "tenant"], name="one_turn_a_tenant")]

    def __str__(self) -> str:
        return f"{self.queue} {self.tenant}"


class EngineWaiter(models.Model):
    """One who waits for a server of an engine. Tenants take turns; within one the lowest id goes first."""

    queue = models.CharField(max_length=64)
    tenant = models.CharField(max_length=64, blank=True)
    servers = models.JSONField(default=list, help_text="Those that would do; empty: any")
    expires_at = models.DateTimeField(help_text="Who waits moves this on; who has died is passed over")

    class Meta:
        indexes: ClassVar = [models.Index(fields=["queue", "id"])]

    def __str__(self) -> str:
        return f"{self.queue} {self.pk}"


class WebhookSecret(models.Model):
    """What signs a tenant's webhooks. Kept as it is, since it signs; no log and no page of the console shows it."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True)
    secret = models.CharField(max_length=100)
    previous = models.CharField(max_length=100, blank=True)
    previous_until = models.DateTimeField(null=True, help_text="Until when the previous one signs too")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"webhook secret of {self.user}"


class WebhookDeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    def for_tenant(self, user: Any) -> Self:
        return self.filter(tenant=user)

    def under_way(self) -> Self:
        return self.filter(status=WebhookDelivery.Status.PENDING, claimed_until__gt=Now())

    def claimable(self) -> Self:
        """Due now, and not under way."""
        free = Q(claimed_until=None) | Q(claimed_until__lte=Now())
        return self.filter(free, status=WebhookDelivery.Status.PENDING, next_attempt_at__lte=Now())


class WebhookDelivery(models.Model):
    """One event for one receiver, and what came of telling it. Changed by voiceproject.webhooks.deliveries alone."""

    class Status(models.TextChoices):
        PENDING = "pending", _("Pending")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.CASCADE, related_name="webhook_deliveries"
    )
    job_id = models.UUIDField(_("job id"), db_index=True, help_text=_("Not a foreign key: the job may be deleted"))
    type = models.CharField(_("type"), max_length=64, help_text=_("Such as cover.succeeded"))
    url = models.CharField(_("url"), max_length=2000)
    payload = models.TextField(_("payload"), help_text=_("The body, as it is signed and sent in every attempt"))
    status = models.CharField(_("status"), max_length=16, choices=Status, default=Status.PENDING)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    first_attempt = models.PositiveIntegerField(
        _("first attempt"), default=0, help_text=_("Attempts before the last redelivery")
    )
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True, db_default=Now())
    claimed_until = models.DateTimeField(
        _("claimed until"), null=True, help_text=_("An attempt is under way, at most until then")
    )
    last_status = models.PositiveSmallIntegerField(
        _("last status"), null=True, help_text=_("What the receiver last answered")
    )
    last_error = models.CharField(_("last error"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), db_default=Now())
    delivered_at = models.DateTimeField(_("delivered at"), null=True)

    objects = WebhookDeliveryQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        indexes: ClassVar = [
            models.Index(fields=["status", "next_attempt_at"]),
            models.Index(fields=["tenant", "-created_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.pk}"

    @property
    def webhook_id(self) -> str:
        return f"msg_{self.pk.hex}"


class UsageEntry(models.Model):
    """One accepted piece of work, and what it has cost. Written by voiceproject.tenants.usage alone.

    It outlives the job, the key and the tenant: numbers and names instead of foreign keys. Times are whole
    milliseconds, whose sums are exact.
    """

    class State(models.TextChoices):
        RESERVED = "reserved"
        SETTLED = "settled"
        REFUNDED = "refunded"

    tenant_id = models.BigIntegerField(help_text="The user")
    key_id = models.UUIDField(null=True, help_text="The API key's public id")
    key_prefix = models.CharField(max_length=16, blank=True)
    key_name = models.CharField(max_length=100, blank=True, help_text="As it was when the work was accepted")
    operation = models.CharField(max_length=32, help_text="synthesis, cover, remix")
    job_id = models.UUIDField(help_text="Not a foreign key: the job may be deleted")
    attempt = models.PositiveIntegerField(default=0, help_text="The job's, when this was settled")
    state = models.CharField(max_length=16, choices=State, default=State.RESERVED)
    reserved_ms = models.BigIntegerField(help_text="Audio that was expected")
    audio_ms = models.BigIntegerField(help_text="What counts: first as expected, then as made; 0 when given back")
    characters = models.PositiveIntegerField(default=0)
    engine_ms = models.BigIntegerField(default=0, help_text="How long the engine worked")
    day = models.DateField(help_text="UTC; on which this counts, and in whose month")
    accepted_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "usage entry"
        verbose_name_plural = "usage"
        # The first covers the sums of quotas; the other has an entry for each live job only.
        indexes: ClassVar = [models.Index(fields=["tenant_id", "day", "key_id", "audio_ms"])]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job_id"], condition=Q(ended_at__isnull=True), name="one_reservation_a_job")
        ]

    def __str__(self) -> str:
        return f"{self.operation} {self.job_id}"


class SigninFailures(models.Model):
    """Passwords that were wrong lately, of one account or from one address (voiceproject.tenants.signin)."""

    name = models.CharField(max_length=80, primary_key=True, help_text="A hash: of what, the log does not repeat")
    count = models.PositiveIntegerField(default=0)
    since = models.DateTimeField(db_default=Now(), db_index=True)

    def __str__(self) -> str:
        return self.name


class AuditEntry(models.Model):
    """Who did what, when and from where: every action of an operator and on a key. Written once, never changed."""

    at = models.DateTimeField(_("at"), db_default=Now(), db_index=True)
    # The names stay when the rows that they belong to go.
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("actor"), on_delete=models.SET_NULL, null=True, related_name="+"
    )
    actor_name = models.CharField(_("actor name"), max_length=150, blank=True, help_text=_("Empty: the system itself"))
    key_prefix = models.CharField(
        _("key prefix"), max_length=16, blank=True, help_text=_("Of the API key, where one was used")
    )
    tenant_id = models.BigIntegerField(
        _("tenant id"), null=True, db_index=True, help_text=_("The user whose things were touched")
    )
    action = models.CharField(
        _("action"), max_length=64, db_index=True, help_text=_("Such as key.revoke, job.cancel, voice.takedown")
    )
    target_type = models.CharField(_("target type"), max_length=64, blank=True)
    target_id = models.CharField(_("target id"), max_length=64, blank=True, db_index=True)
    target_name = models.CharField(_("target name"), max_length=200, blank=True)
    address = models.CharField(_("address"), max_length=64, blank=True, db_index=True, help_text=_("Of the client"))
    request_id = models.CharField(_("request id"), max_length=64, blank=True)
    details = models.JSONField(_("details"), default=dict, blank=True, help_text=_("What was changed; never a secret"))

    class Meta:
        ordering = ("-id",)
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")

    def __str__(self) -> str:
        return f"{self.action} {self.target}"

    @property
    def target(self) -> str:
        """The name of what was acted on, or its id where the name is no more than that after an English word."""
        nameless = not self.target_name or (self.target_id and self.target_name.endswith(f" {self.target_id}"))
        return self.target_id if nameless else self.target_name

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("An audit entry is written once.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("An audit entry is kept.")


class SigningCertificate(models.Model):
    """A certificate that has signed what was made here, on any host, at any time: manifests signed with it are ours."""

    sha256 = models.CharField(max_length=64, unique=True, help_text="Of the certificate")
    serial_number = models.CharField(max_length=64, help_text="In decimal digits")
    chain = models.TextField(help_text="PEM: the certificate, then its issuers'")
    first_used_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.sha256[:16]

    @property
    def issuers(self) -> list[str]:
        end = "-----END CERTIFICATE-----\n"
        return [part + end for part in self.chain.split(end)[1:-1]]


class Mark(models.Model):
    """A synthetic file that was made here: what it is found by again when the file is long gone. It names no tenant."""

    class Kind(models.TextChoices):
        SYNTHESIS = "synthesis"
        COVER = "cover"

    kind = models.CharField(max_length=16, choices=Kind)
    job_id = models.UUIDField(db_index=True, help_text="For operators; the job may be deleted")
    made_at = models.DateTimeField(db_default=Now())
    sha256 = models.CharField(max_length=64, help_text="Of the file")
    stream_sha256 = models.CharField(max_length=64, blank=True, help_text="Of what was streamed of it")
    file = models.CharField(max_length=200, blank=True, help_text="Its name in the storage, while there is one")
    sample_rate = models.PositiveIntegerField(null=True, help_text="Hz, of bare PCM")
    landmarks_due_at = models.DateTimeField(null=True, help_text="When they are made, or tried again; none: they are")

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["sha256"], name="mark_sha256"),
            models.Index(fields=["stream_sha256"], name="mark_stream_sha256"),
            models.Index(
                fields=["landmarks_due_at"], condition=Q(landmarks_due_at__isnull=False), name="mark_landmarks_due"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:16]}"


class Landmark(models.Model):
    """A place in the sound of a marked file (see voiceproject.provenance.fingerprint)."""

    pk = models.CompositePrimaryKey("hash", "mark", "frame")
    hash = models.BigIntegerField()
    mark = models.ForeignKey(Mark, on_delete=models.CASCADE, db_index=False)
    frame = models.PositiveIntegerField(help_text="Of 124 ms")
