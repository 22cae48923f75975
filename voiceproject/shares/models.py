"""Links to what was made, and the tokens that name them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.core import signing
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

MAX_DAYS = 30
DEFAULT_DAYS = 7
MAX_LINKS = 20  # of one job that can be followed at a time


class ShareQuerySet(models.QuerySet["Share"]):
    def for_tenant(self, user: Any) -> Self:
        return self.filter(tenant=user)

    def of(self, job: Any) -> Self:
        """The links of one job."""
        return self.filter(kind=job.webhook_kind, job_id=job.pk)

    def open(self) -> Self:
        """Those that can be followed."""
        return self.filter(revoked_at=None, expires_at__gt=Now(), tenant__is_active=True)


class Share(models.Model):
    """One link to one job's result. The row has no secret: a token is its id with a signature by SECRET_KEY."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="shares")
    kind = models.CharField(_("kind"), max_length=16, help_text=_("Of job"))
    # Not a foreign key: there are several kinds of jobs.
    job_id = models.UUIDField(_("job id"), db_index=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires at"))
    revoked_at = models.DateTimeField(_("revoked at"), null=True)

    objects = ShareQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("link")
        verbose_name_plural = _("links")
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at", "-id"])]

    def __str__(self) -> str:
        return f"link to {self.kind} {self.job_id}"

    @staticmethod
    def _signer() -> signing.Signer:
        return signing.Signer(salt="voiceproject.shares", sep=".")

    @property
    def token(self) -> str:
        return self._signer().sign(self.id.hex)

    @classmethod
    def id_of(cls, token: str) -> uuid.UUID | None:
        """None where it was not signed here."""
        try:
            return uuid.UUID(cls._signer().unsign(token))
        except (signing.BadSignature, ValueError):
            return None

    @classmethod
    def make(cls, job: Any, days: int) -> Share:
        return cls.objects.create(
            tenant_id=job.tenant_id, kind=job.webhook_kind, job_id=job.pk,
            expires_at=timezone.now() + timedelta(days=days),
        )  # fmt: skip

    def revoke(self) -> None:
        """Nobody can follow it any more; again is no error."""
        type(self).objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())


def on_job_removed(sender: Any, job: Any, **kwargs: Any) -> None:
    """Receiver of jobs.signals.removed: the links of a job go with it."""
    Share.objects.of(job).delete()
