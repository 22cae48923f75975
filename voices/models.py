"""API keys, saved voices and syntheses."""

from __future__ import annotations

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
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q, Sum
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.prepared import Select, Slot
from voiceproject.tenants.ratelimit import Limit
from voiceproject.web.client_ip import parse_network, written
from voices.engines import Model
from voices.library.references import references
from voices.text.sentences import speaking_seconds

SCOPES = ("synthesize", "covers", "voices", "usage", "keys")
BOOTSTRAP_USERNAME = "api"
DEFAULT_MODEL = "default"
VOICES_FOLDER = "saved-voices"  # not the app's own, where the folders of syntheses stand
MODEL_LANGUAGES = ("zh", "en", "ja", "yue", "ko")


# What a key may limit beside its tenant's limits. Each only narrows; none: the tenant's alone.
KEY_LIMITS = ("requests_per_minute", "max_concurrent_jobs", "monthly_audio_seconds")
MAX_LIMIT = 2**31 - 1
MAX_NETWORKS = 100


def all_scopes() -> list[str]:
    return list(SCOPES)


def clean_networks(networks: Any) -> list[str]:
    """An allow-list as it is kept: without doubles, in one way of writing. Raises ValueError for what is none."""
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
        secret = f"{ApiKey.MARK}{secrets.token_urlsafe(32)}"
        return self.create(user=user, name=name, **ApiKey.identity(secret), **fields), secret

    def find(self, secret: str) -> ApiKey | None:
        """The valid key with this secret, its user and tenant: one indexed query. None: unknown, expired, revoked."""
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
        # The environment's key counts only while it stands there: changing it retires the old one.
        return None if key.from_environment and not environment else key


@cache
def _with_hash() -> Select:
    """Asked by every request."""
    return Select(ApiKey.objects.select_related("user__tenant").filter(key_hash=Slot("key_hash", ApiKey)))


class ApiKey(models.Model):
    """A credential of one user. Only a hash of the secret is kept; secrets are random, so a fast hash is enough."""

    MARK: ClassVar[str] = "vck_"  # Lets a secret scanner recognise a leaked key.

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
    from_environment = models.BooleanField(_("from environment"), default=False, editable=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

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
        """What a request with this key counts against; the key has to come with its user's tenant."""
        own, tenant = self.requests_per_minute, getattr(self.user, "tenant", None)
        shared = getattr(tenant, "requests_per_minute", None)
        if shared is None:
            shared = settings.RATE_LIMIT_PER_MINUTE
        limits = []
        if own and (not shared or own < shared):  # Otherwise the tenant's is reached first.
            limits.append(Limit(f"key:{self.pk}", own))
        if shared:
            limits.append(Limit(f"tenant:{self.user_id}", shared))
        return limits

    def revoke(self) -> bool:
        """Final: nothing brings a revoked key back. False when it was revoked before."""
        revoked = ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())
        self.refresh_from_db(fields=["revoked_at"])
        return bool(revoked)

    def touch(self) -> None:
        """Notes the use, at most once a minute and without a race."""
        if self.last_used_at is None or self.last_used_at < timezone.now() - timedelta(minutes=1):
            ApiKey.objects.filter(
                Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1)), pk=self.pk
            ).update(last_used_at=Now())


class EngineModel(models.Model):
    """A trained model that operators offer; `model_id` of a request names it. See voices.speech.registry."""

    class Engine(models.TextChoices):
        GPTSOVITS = "gptsovits", "GPT-SoVITS"
        RVC = "rvc", "RVC"
        OTHER = "other", _("other")

    class Version(models.TextChoices):
        V1 = "v1"
        V2 = "v2"
        V2_PRO = "v2Pro"
        V2_PRO_PLUS = "v2ProPlus"
        V3 = "v3"
        V4 = "v4"

    # It becomes an argument of commands and a name on GPU machines: no dots, no slashes, no dash in front.
    model_id = models.CharField(
        _("model id"),
        max_length=100,
        unique=True,
        validators=[RegexValidator(r"\A[A-Za-z0-9_][A-Za-z0-9_-]*\Z", _("Letters, digits, - and _ only."))],
        help_text=_("What clients send. `default` is what they get when they send nothing."),
    )
    name = models.CharField(_("name"), max_length=100, help_text=_("For people"))
    engine = models.CharField(_("engine"), max_length=16, choices=Engine, default=Engine.GPTSOVITS)
    gpt_weights = models.CharField(
        _("gpt weights"),
        max_length=500,
        blank=True,
        help_text=_("The .ckpt, as the GPT-SoVITS server sees it (relative to its own folder)"),
    )
    sovits_weights = models.CharField(
        _("sovits weights"), max_length=500, blank=True, help_text=_("The .pth that belongs to it")
    )
    voice_weights = models.CharField(
        _("voice weights"), max_length=500, blank=True, help_text=_("RVC's .pth, as the workers see it")
    )
    voice_index = models.CharField(
        _("voice index"), max_length=500, blank=True, help_text=_("RVC's .index, if there is one")
    )
    version = models.CharField(
        _("version"), max_length=16, choices=Version, blank=True, help_text=_("Of GPT-SoVITS; v1 lacks yue, ko")
    )
    languages = models.JSONField(
        _("languages"), default=list, blank=True, help_text=_("What it speaks; none: all of its version")
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now(), editable=False)

    class Meta:
        ordering = ("model_id",)
        verbose_name = _("model")
        verbose_name_plural = _("models")

    def __str__(self) -> str:
        return self.model_id

    def clean(self) -> None:
        if bool(self.gpt_weights) != bool(self.sovits_weights):
            raise ValidationError(_("GPT weights and SoVITS weights are given together."))
        if self.engine == self.Engine.RVC and not self.voice_weights:
            raise ValidationError({"voice_weights": _("RVC needs them.")})
        for field in ("gpt_weights", "sovits_weights", "voice_weights", "voice_index"):
            path = getattr(self, field)
            if path.startswith("-") or not path.isprintable():
                raise ValidationError(
                    {field: _("A path does not begin with a dash, and has printable characters only.")}
                )
        if not isinstance(self.languages, list) or set(self.languages) - set(MODEL_LANGUAGES):
            raise ValidationError({"languages": _("A list of some of: %s.") % ", ".join(MODEL_LANGUAGES)})
        lacking = sorted(set(self.languages) & {"yue", "ko"})
        if self.version == self.Version.V1 and lacking:
            raise ValidationError({"languages": _("v1 does not speak %s.") % ", ".join(lacking)})

    def spoken_languages(self) -> set[str]:
        """Without `auto`; empty where nothing is known."""
        if self.languages or self.engine != self.Engine.GPTSOVITS:
            return set(self.languages)
        return set(MODEL_LANGUAGES) - ({"yue", "ko"} if self.version == self.Version.V1 else set())

    def as_model(self) -> Model:
        return Model(
            id=self.model_id,
            gpt_weights=self.gpt_weights,
            sovits_weights=self.sovits_weights,
            voice_weights=self.voice_weights,
            voice_index=self.voice_index,
            version=self.version,
            languages=frozenset(self.languages),
        )


class TenantQuerySet(models.QuerySet):
    def for_tenant(self, user: Any) -> Self:
        """What this tenant may see: its own."""
        return self.filter(tenant=user)


class Voice(models.Model):
    """A speaker whose samples are kept, so that nobody has to upload them again. See voices.library.saved."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.CASCADE, related_name="voices"
    )
    name = models.CharField(_("name"), max_length=100)
    description = models.CharField(_("description"), max_length=500, blank=True)
    language = models.CharField(_("language"), max_length=8, default="auto", help_text=_("Of the samples"))
    # All samples, one after the other: what engines hear. Made anew when a sample comes or goes.
    reference = models.FileField(_("reference"), max_length=200, blank=True, editable=False)
    reference_hash = models.CharField(
        _("reference hash"), max_length=64, help_text=_("SHA-256 of the reference's file")
    )
    reference_transcript = models.TextField(
        _("reference transcript"), blank=True, help_text=_("What is said in the whole of it; empty: not known")
    )
    reference_frames = models.PositiveBigIntegerField(_("reference frames"), default=0)
    reference_rate = models.PositiveIntegerField(_("reference rate"), default=0, help_text=_("Hz"))
    reference_bytes = models.PositiveBigIntegerField(
        _("reference bytes"), default=0, db_default=0, help_text=_("Of its file")
    )
    taken_down_at = models.DateTimeField(
        _("taken down at"), null=True, help_text=_("By an operator: it cannot be used any more")
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("voice")
        verbose_name_plural = _("voices")
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at", "-id"])]

    def __str__(self) -> str:
        return f"{self.name} ({self.pk})"

    @property
    def folder(self) -> str:
        """Where its files stand in the storage."""
        return f"{VOICES_FOLDER}/{self.pk}"

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """What the tenant's voices take: samples, references, and what engines keep of them."""
        own = cls.objects.filter(tenant=tenant_id).order_by()
        sums = (
            own.aggregate(n=Sum(field))["n"]
            for field in ("reference_bytes", "samples__audio_bytes", "engine_data__bytes")
        )
        return sum(int(n or 0) for n in sums)


class VoiceSample(models.Model):
    """One recording of a voice: mono FLAC, silence cut off its ends, at a usual level."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    voice = models.ForeignKey(Voice, on_delete=models.CASCADE, related_name="samples")
    audio = models.FileField(max_length=200)
    audio_hash = models.CharField(max_length=64, help_text="SHA-256 of that file")
    uploaded_hash = models.CharField(max_length=64, help_text="SHA-256 of what was uploaded")
    transcript = models.TextField(blank=True)
    duration_seconds = models.FloatField()
    sample_rate = models.PositiveIntegerField(help_text="Hz")
    audio_bytes = models.PositiveBigIntegerField(default=0, db_default=0, help_text="Of its file")
    quality = models.JSONField(default=dict, help_text="As voices.quality measures it")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return f"sample {self.pk}"


class EngineData(models.Model):
    """What an engine has computed of a voice, for one language. Worthless once it is stale, which the engine sees."""

    voice = models.ForeignKey(Voice, on_delete=models.CASCADE, related_name="engine_data")
    engine = models.CharField(max_length=32)
    key = models.CharField(max_length=64, help_text="Names the reference and its transcript")
    language = models.CharField(max_length=8)
    file = models.FileField(max_length=200)
    bytes = models.PositiveBigIntegerField(default=0, db_default=0, help_text="Of its file")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["voice", "engine", "key", "language"], name="one_engine_data")
        ]

    def __str__(self) -> str:
        return f"{self.engine} {self.language} of {self.voice_id}"


class ConsentQuerySet(TenantQuerySet):
    def update(self, **fields: Any) -> int:
        raise TypeError("A consent is written once.")

    def delete(self) -> Any:
        raise TypeError("A consent is kept.")


class Consent(models.Model):
    """That somebody stated that a speaker agreed, once for each sample. Outlives the voice; see `without_names`."""

    tenant = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("tenant"), on_delete=models.SET_NULL, null=True, related_name="+"
    )
    tenant_name = models.CharField(_("tenant name"), max_length=150)
    key_prefix = models.CharField(
        _("key prefix"), max_length=16, blank=True, help_text=_("Of the API key that was used")
    )
    address = models.CharField(_("address"), max_length=64, blank=True, help_text=_("Of the client"))
    request_id = models.CharField(_("request id"), max_length=64, blank=True)
    statement = models.TextField(_("statement"))
    voice_id = models.UUIDField(
        _("voice id"), db_index=True, help_text=_("Not a foreign key: the voice may be deleted")
    )
    voice_name = models.CharField(_("voice name"), max_length=100)
    sample_id = models.UUIDField(_("sample id"))
    sample_hash = models.CharField(
        _("sample hash"), max_length=64, help_text=_("SHA-256 of the uploaded sample"), db_index=True
    )
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    objects = ConsentQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        verbose_name = _("consent")
        verbose_name_plural = _("consents")

    def __str__(self) -> str:
        return gettext("consent for %(voice)s") % {"voice": self.voice_name}

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("A consent is written once.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("A consent is kept.")

    @classmethod
    def without_names(cls, user: Any) -> None:
        """All that ever changes: of an erased tenant stay its number and its statements, not what it called things."""
        own: models.QuerySet[Consent] = models.QuerySet(cls).filter(tenant=user)
        own.update(tenant_name=f"user {user.pk}", voice_name="", address="")


class StandingConsent(models.Model):
    """A tenant's statement for all voices that it adds by clients which cannot send one with each (ElevenLabs')."""

    tenant = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True)
    statement = models.TextField()
    key_prefix = models.CharField(max_length=16, blank=True)
    address = models.CharField(max_length=64, blank=True)
    given_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"standing consent of {self.tenant}"


class RecordedConsent(models.Model):
    """A speaker's spoken consent, as OpenAI's clients send it before a voice. Of its recording the hash is kept."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=100)
    language = models.CharField(max_length=35, help_text="As it was sent, such as en-US")
    recording_hash = models.CharField(max_length=64, help_text="SHA-256 of the uploaded recording")
    created_at = models.DateTimeField(default=timezone.now)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")

    def __str__(self) -> str:
        return f"cons_{self.pk.hex}"

    @property
    def statement(self) -> str:
        return f"{self.name} consented in a recording ({self.language}, {self}, SHA-256 {self.recording_hash})."


class Synthesis(Job):
    """One text spoken in one voice."""

    webhook_kind: ClassVar[str] = "synthesis"
    turn_field: ClassVar[str] = "synthesis_served_at"

    background = models.BooleanField(
        _("background"), default=False, help_text=_("Made by a worker; otherwise by the process where its client waits")
    )
    text = models.TextField(_("text"))
    language = models.CharField(_("language"), max_length=8, default="auto")
    reference_hash = models.CharField(
        _("reference hash"), max_length=64, help_text=_("SHA-256 of the uploaded reference")
    )
    reference_audio = models.FileField(
        _("reference audio"), max_length=200, blank=True, help_text=_("Kept where a worker needs it")
    )
    reference_text = models.TextField(_("reference text"), blank=True)
    reference_language = models.CharField(_("reference language"), max_length=8, default="auto")
    speed = models.FloatField(_("speed"), default=1.0)
    temperature = models.FloatField(_("temperature"), default=0.7)
    seed = models.BigIntegerField(_("seed"), null=True)
    model_id = models.CharField(_("model id"), max_length=100, blank=True)
    response_format = models.CharField(_("response format"), max_length=8, default="wav")
    engine = models.CharField(_("engine"), max_length=32, blank=True)
    audio = models.FileField(_("audio"), max_length=200, blank=True)
    duration_seconds = models.FloatField(_("duration seconds"), null=True)
    sample_rate = models.PositiveIntegerField(_("sample rate"), null=True, help_text=_("Hz"))

    class Meta(Job.Meta):
        verbose_name = _("synthesis")
        verbose_name_plural = _("syntheses")
        abstract = False

    @property
    def resumable(self) -> bool:
        return self.background

    @property
    def characters(self) -> int:
        return len(self.text)

    def expected_seconds(self) -> float:
        return speaking_seconds(self.text) / self.speed

    def made_seconds(self) -> float:
        if self.status == JobStatus.SUCCEEDED:
            return self.duration_seconds or 0.0
        # Canceled on its way: who was making it knows better, and says so (usage.correct).
        return self.expected_seconds() * self.progress / 100

    def revoke(self, ttl_hours: float = 24) -> bool:
        references.forget(self.reference_hash)
        return super().revoke(ttl_hours)

    def remove(self) -> None:
        super().remove()
        references.forget(self.reference_hash)

    @classmethod
    def for_workers(cls) -> models.QuerySet:
        return cls.objects.filter(background=True)

    @classmethod
    def output_fields(cls) -> list[str]:
        return ["audio"]
