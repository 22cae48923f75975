"""Rows of webhooks: each tenant's signing secret, and the log of deliveries."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


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

    def before(self, delivery: WebhookDelivery) -> Self:
        """Earlier events of the same job."""
        return self.filter(job_id=delivery.job_id, sequence__lt=delivery.sequence)

    def after(self, delivery: WebhookDelivery) -> Self:
        """Later events of the same job."""
        return self.filter(job_id=delivery.job_id, sequence__gt=delivery.sequence)


class WebhookDelivery(models.Model):
    """One event for one receiver, and what came of telling it. Changed by voiceproject.webhooks.deliveries alone."""

    class Status(models.TextChoices):
        PENDING = "pending", _("Pending")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")
        SUPERSEDED = "superseded", _("Superseded")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.CASCADE, related_name="webhook_deliveries"
    )
    job_id = models.UUIDField(_("job id"), db_index=True, help_text=_("Not a foreign key: the job may be deleted"))
    type = models.CharField(_("type"), max_length=64, help_text=_("Such as cover.succeeded"))
    url = models.CharField(_("url"), max_length=2000)
    sequence = models.PositiveBigIntegerField(
        _("sequence"), default=0, db_default=0, help_text=_("Grows with each event of the job; 0: of an older release")
    )
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
