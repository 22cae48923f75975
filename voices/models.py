"""API keys and syntheses."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from voiceproject.jobs import Job

SCOPES = ("synthesize", "covers", "voices", "usage", "keys")
BOOTSTRAP_USERNAME = "api"


def all_scopes() -> list[str]:
    return list(SCOPES)


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def for_tenant(self, user: Any) -> Self:
        return self.filter(user=user)

    def issue(self, user: User, name: str, **fields: Any) -> tuple[ApiKey, str]:
        """Makes a key; returns the row and the secret, which is not kept anywhere."""
        secret = f"{ApiKey.MARK}{secrets.token_urlsafe(32)}"
        return self.create(user=user, name=name, **ApiKey.identity(secret), **fields), secret

    def find(self, secret: str) -> ApiKey | None:
        """The valid key with this secret, with its user: one indexed query. None for unknown, expired, revoked."""
        identity = ApiKey.identity(secret)
        key: ApiKey | None = self.select_related("user").filter(key_hash=identity["key_hash"]).first()
        environment = settings.API_KEY and hmac.compare_digest(secret.encode(), settings.API_KEY.encode())
        if key is None and environment:
            user, _ = User.objects.get_or_create(username=BOOTSTRAP_USERNAME)
            key, _ = ApiKey.objects.get_or_create(
                key_hash=identity["key_hash"],
                defaults={"user": user, "name": "API_KEY of the environment", "prefix": identity["prefix"],
                          "from_environment": True},
            )  # fmt: skip
        if key is None or not hmac.compare_digest(key.key_hash, identity["key_hash"]) or not key.is_valid():
            return None
        # The environment's key counts only while it stands there: changing it retires the old one.
        return None if key.from_environment and not environment else key


class ApiKey(models.Model):
    """A credential of one user. Only a hash of the secret is kept; secrets are random, so a fast hash is enough."""

    MARK: ClassVar[str] = "vck_"  # Lets a secret scanner recognise a leaked key.

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, help_text="The first characters of the secret, to recognise it by")
    key_hash = models.CharField(max_length=64, unique=True, editable=False, help_text="SHA-256 of the secret")
    scopes = models.JSONField(default=all_scopes, help_text=f"Some of: {', '.join(SCOPES)}")
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    from_environment = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def identity(secret: str) -> dict[str, str]:
        # A short secret (API_KEY may have 16 characters) shows less of itself.
        shown = secret[: min(12, len(secret) // 4)]
        return {"prefix": shown, "key_hash": hashlib.sha256(secret.encode()).hexdigest()}

    def is_valid(self, now: datetime | None = None) -> bool:
        from django.utils import timezone

        return self.revoked_at is None and (self.expires_at is None or self.expires_at > (now or timezone.now()))

    def revoke(self) -> bool:
        """Final: nothing brings a revoked key back. False when it was revoked before."""
        revoked = ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())
        self.refresh_from_db(fields=["revoked_at"])
        return bool(revoked)

    def touch(self) -> None:
        """Notes the use, at most once a minute and without a race."""
        from django.utils import timezone

        if self.last_used_at is None or self.last_used_at < timezone.now() - timedelta(minutes=1):
            ApiKey.objects.filter(
                Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1)), pk=self.pk
            ).update(last_used_at=Now())


class Synthesis(Job):
    """One text spoken in one voice."""

    # The client waits for the answer in the process that makes it.
    resumable: ClassVar[bool] = False

    text = models.TextField()
    language = models.CharField(max_length=8, default="auto")
    reference_hash = models.CharField(max_length=64, help_text="SHA-256 of the uploaded reference")
    reference_text = models.TextField(blank=True)
    reference_language = models.CharField(max_length=8, default="auto")
    speed = models.FloatField(default=1.0)
    temperature = models.FloatField(default=0.7)
    seed = models.BigIntegerField(null=True)
    model_id = models.CharField(max_length=100, blank=True)
    response_format = models.CharField(max_length=8, default="wav")
    engine = models.CharField(max_length=32, blank=True)
    audio = models.FileField(max_length=200, blank=True)
    duration_seconds = models.FloatField(null=True)
    sample_rate = models.PositiveIntegerField(null=True, help_text="Hz")
    engine_seconds = models.FloatField(null=True, help_text="How long the engine worked")

    class Meta(Job.Meta):
        verbose_name = "synthesis"
        verbose_name_plural = "syntheses"
        abstract = False
