"""API keys: a secret's hash, what it may do, from where, and how much."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from voiceproject.prepared import Select, Slot
from voiceproject.tenants.ratelimit import Limit
from voiceproject.web.client_ip import is_within, parse_network, written

SCOPES = ("synthesize", "covers", "voices", "usage", "keys")
BOOTSTRAP_USERNAME = "api"

# The limits that a key may have besides its tenant's. They only narrow; None: only the tenant's limit counts. What is
# compared with them is what all keys of one `lineage` have used, so that a limit is not had anew by making another key.
KEY_LIMITS = ("requests_per_minute", "max_concurrent_jobs", "monthly_audio_seconds")
MAX_LIMIT = 2**31 - 1
MAX_NETWORKS = 100


def all_scopes() -> list[str]:
    return list(SCOPES)


def clean_networks(networks: Any) -> list[str]:
    """An allow-list in normal form, without duplicates. Raises ValueError if it is not one."""
    if not isinstance(networks, list) or not all(isinstance(network, str) for network in networks):
        raise ValueError("A list of addresses or networks, such as 192.0.2.7 or 2001:db8::/32.")
    if len(networks) > MAX_NETWORKS:
        raise ValueError(f"At most {MAX_NETWORKS} addresses or networks.")
    return list(dict.fromkeys(written(parse_network(network)) for network in networks))


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def for_tenant(self, user: Any) -> Self:
        return self.filter(user=user)

    def issue(self, user: User, name: str, **fields: Any) -> tuple[ApiKey, str]:
        """Makes a key; returns the row and the secret, which is not kept anywhere."""
        if fields.get("kind", ApiKey.Kind.HEADER) == ApiKey.Kind.HEADER:
            secret = f"{ApiKey.MARK}{secrets.token_urlsafe(32)}"
        else:
            # In letters of one case: there are clients that write their URLs small.
            secret = f"{ApiKey.PATH_MARK}{base64.b32encode(secrets.token_bytes(30)).decode().lower()}"
        return self.create(user=user, name=name, **ApiKey.identity(secret), **fields), secret

    def scopes_of(self, pks: set[Any]) -> dict[Any, set[str]]:
        """The scopes of those keys that may be used now: one query."""
        valid = self.filter(pk__in=pks, revoked_at=None, user__is_active=True)
        valid = valid.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
        return {pk: set(scopes) for pk, scopes in valid.values_list("pk", "scopes")}

    def find(self, secret: str, kind: str = "header") -> ApiKey | None:
        """The valid key with this secret, its user and tenant: one indexed query. None: unknown, expired, revoked, or
        of another kind."""
        identity = ApiKey.identity(secret)
        key: ApiKey | None = next(iter(_with_hash()(key_hash=identity["key_hash"])), None)
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
        if key.kind != kind:
            return None
        # The environment's key counts only while it stands there: changing it retires the old one.
        return None if key.from_environment and not environment else key

    def find_by_address(self, address: str) -> ApiKey | None:
        """The valid key that stands for whoever asks from this address, with its user and tenant."""
        for key in self.filter(kind=ApiKey.Kind.ADDRESS, revoked_at=None).select_related("user__tenant").order_by("pk"):
            if key.is_valid() and is_within(address, key.allowed_networks):
                return key
        return None


@cache
def _with_hash() -> Select:
    """Asked by every request."""
    return Select(ApiKey.objects.select_related("user__tenant").filter(key_hash=Slot("key_hash", ApiKey)))


class ApiKey(models.Model):
    """A credential of one user. Only a hash of the secret is kept; secrets are random, so a fast hash is enough."""

    MARK: ClassVar[str] = "vck_"  # Lets a secret scanner recognise a leaked key.
    PATH_MARK: ClassVar[str] = "vcp_"  # The same of one that stands in a URL.

    class Kind(models.TextChoices):
        """How a client shows that it has the key. All but the first are for clients that can send no header: they open
        the routes of GPT-SoVITS alone, and only to speak."""

        HEADER = "header", _("sent in a header")
        PATH = "path", _("stands in the URL")
        ADDRESS = "address", _("none is sent: the client's address")

    public_id = models.UUIDField(
        _("public id"), unique=True, default=uuid.uuid4, editable=False, help_text=_("What the API calls it")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), on_delete=models.CASCADE, related_name="api_keys"
    )
    name = models.CharField(_("name"), max_length=100)
    prefix = models.CharField(
        _("prefix"), max_length=16, help_text=_("The first characters of the secret, to recognise it by")
    )
    key_hash = models.CharField(
        _("key hash"), max_length=64, unique=True, editable=False, help_text=_("SHA-256 of the secret")
    )
    scopes = models.JSONField(_("scopes"), default=all_scopes, help_text=f"Some of: {', '.join(SCOPES)}")
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    # A key's own limits only narrow its tenant's. None: the tenant's alone.
    allowed_networks = models.JSONField(
        _("allowed networks"),
        default=list,
        blank=True,
        db_default=[],
        help_text=_("Addresses or networks it may be used from; none: all"),
    )
    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), null=True, blank=True)
    max_concurrent_jobs = models.PositiveIntegerField(
        _("max concurrent jobs"),
        null=True,
        blank=True,
        help_text=_("Jobs of this key that may be queued or running at a time"),
    )
    monthly_audio_seconds = models.PositiveIntegerField(
        _("monthly audio seconds"),
        null=True,
        blank=True,
        help_text=_("Seconds of audio that it may make in a calendar month (UTC)"),
    )
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True, editable=False)
    replaced_by = models.ForeignKey(
        "self", verbose_name=_("replaced by"), null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    kind = models.CharField(
        _("kind"), max_length=8, choices=Kind, default=Kind.HEADER, db_default=Kind.HEADER,
        help_text=_("How clients use it. All but the first kind open the routes of GPT-SoVITS alone"),
    )  # fmt: skip
    # What a client of GPT-SoVITS has chosen for its next requests.
    chosen_model = models.CharField(
        _("chosen model"), max_length=100, blank=True, default="", db_default="", editable=False
    )
    chosen_voice = models.UUIDField(_("chosen voice"), null=True, editable=False)
    # Shown on no page.
    lineage = models.UUIDField(
        db_index=True,
        editable=False,
        help_text="Keys with the same one share their limits: those that were replaced, and those that they made",
    )
    from_environment = models.BooleanField(_("from environment"), default=False, editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.lineage is None:
            self.lineage = self.public_id  # The first of its line.
        super().save(*args, **kwargs)

    @property
    def is_limited(self) -> bool:
        return any(getattr(self, name) is not None for name in KEY_LIMITS)

    @staticmethod
    def identity(secret: str) -> dict[str, str]:
        # A short secret (API_KEY may have 16 characters) shows less of itself.
        shown = secret[: min(12, len(secret) // 4)]
        return {"prefix": shown, "key_hash": hashlib.sha256(secret.encode()).hexdigest()}

    def is_valid(self, now: datetime | None = None) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > (now or timezone.now()))

    @property
    def state(self) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.is_valid() else "expired"

    def clean(self) -> None:
        errors = {}
        if not isinstance(self.scopes, list) or not self.scopes or set(self.scopes) - set(SCOPES):
            errors["scopes"] = _("A list of one or more of: %s.") % ", ".join(SCOPES)
        try:
            self.allowed_networks = clean_networks(self.allowed_networks)
        except ValueError as error:
            errors["allowed_networks"] = str(error)
        for name in KEY_LIMITS:
            limit = getattr(self, name)
            if limit is not None and not 1 <= limit <= MAX_LIMIT:
                errors[name] = _("From 1 to %d; nothing: no limit of the key's own.") % MAX_LIMIT
        if errors:
            raise ValidationError(errors)

    def rate_limits(self) -> list[Limit]:
        """The rate limits that a request with this key counts against. The tenant must be selected with the key."""
        own, tenant = self.requests_per_minute, getattr(self.user, "tenant", None)
        shared = getattr(tenant, "requests_per_minute", None)
        if shared is None:
            shared = settings.RATE_LIMIT_PER_MINUTE
        limits = []
        if own and (not shared or own < shared):  # Otherwise the tenant's is reached first.
            limits.append(Limit(f"key:{self.lineage}", own))
        if shared:
            limits.append(Limit(f"tenant:{self.user_id}", shared))
        return limits

    def revoke(self) -> bool:
        """Final: nothing brings a revoked key back. False when it was revoked before."""
        revoked = ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())
        self.refresh_from_db(fields=["revoked_at"])
        return bool(revoked)

    def touch(self) -> None:
        """Writes the time of use, at most once a minute and without a race."""
        if self.last_used_at is None or self.last_used_at < timezone.now() - timedelta(minutes=1):
            ApiKey.objects.filter(
                Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1)), pk=self.pk
            ).update(last_used_at=Now())
