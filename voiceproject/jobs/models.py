"""Rows that all kinds of jobs share: hosts of workers and idempotency keys."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

HEARD_LATELY_SECONDS = 30  # a worker looks for work every two


class WorkerHostQuerySet(models.QuerySet):
    def alive(self) -> WorkerHostQuerySet:
        """Those that were heard of lately."""
        return self.filter(seen_at__gt=Now() - timedelta(seconds=HEARD_LATELY_SECONDS))

    def taking(self) -> WorkerHostQuerySet:
        """Those of them that take new jobs."""
        return self.alive().filter(draining=False)


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
    objects = WorkerHostQuerySet.as_manager()

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
