"""A tenant's lexicons, and the versions of their entries."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class LexiconQuerySet(models.QuerySet):
    def for_tenant(self, user: Any) -> Self:
        """The rows of one tenant."""
        return self.filter(tenant=user)


class Lexicon(models.Model):
    """How words are said. Its entries are those of its newest version."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.CASCADE, related_name="lexicons"
    )
    name = models.CharField(_("name"), max_length=100)
    description = models.CharField(_("description"), max_length=500, blank=True)
    language = models.CharField(
        _("language"), max_length=8, default="auto", help_text=_("Of entries that name none; auto: every one")
    )
    is_default = models.BooleanField(_("is default"), default=False, help_text=_("Counts in all of the tenant's texts"))
    version_id = models.UUIDField(_("version id"), help_text=_("The newest"))
    entries_count = models.PositiveIntegerField(_("entries"), default=0)
    archived_at = models.DateTimeField(_("archived at"), null=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)

    objects = LexiconQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("lexicon")
        verbose_name_plural = _("lexicons")
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at", "-id"])]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant"], condition=models.Q(is_default=True), name="one_default_lexicon")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """The bytes that a tenant's lexicons take, with the versions that are kept."""
        return int(LexiconVersion.objects.filter(lexicon__tenant=tenant_id).aggregate(n=Sum("bytes"))["n"] or 0)


class LexiconVersion(models.Model):
    """The entries as they were at a time; written once."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    lexicon = models.ForeignKey(Lexicon, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField(help_text="1 is the first")
    language = models.CharField(max_length=8, default="auto", help_text="Of the lexicon then")
    entries = models.JSONField(default=list, help_text="As voices.text.lexicon.Entry has them, without defaults")
    bytes = models.PositiveBigIntegerField(default=0, help_text="Of the entries")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-number",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["lexicon", "number"], name="one_version_of_a_number")]

    def __str__(self) -> str:
        return f"version {self.number} of {self.lexicon_id}"
