"""Rows about tenants: their limits and turns, accepted requests, usage, wrong passwords, the audit log."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
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
    training_served_at = models.DateTimeField(
        _("training served at"), null=True, help_text=_("When a worker last took a training of it")
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


class RateLog(models.Model):
    """When the last requests of a tenant or a key were accepted. Written by voiceproject.tenants.ratelimit alone."""

    name = models.CharField(max_length=64, primary_key=True)
    times = models.TextField(help_text="The newest first")

    def __str__(self) -> str:
        return self.name


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
    lineage = models.UUIDField(null=True, help_text="The API key's: keys that share their limits have the same one")
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
        indexes: ClassVar = [models.Index(fields=["tenant_id", "day", "lineage", "audio_ms"])]
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
