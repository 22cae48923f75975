"""Saved voices: their samples, what engines have computed of them, and the consents to them."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Sum
from django.db.models.functions import Lower, Now
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from voiceproject.web.names import tidy

MAX_VOICE_NAME = 100
VOICES_FOLDER = "saved-voices"  # not the app's own, where the folders of syntheses stand


class TenantQuerySet(models.QuerySet):
    def for_tenant(self, user: Any) -> Self:
        """The rows of one tenant."""
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
    lexicon = models.ForeignKey(
        "voices.Lexicon", verbose_name=_("lexicon"), on_delete=models.SET_NULL, null=True, related_name="voices"
    )
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
    # One on each line, with a line's end before the first one too: a whole one is found as text on every database.
    tag_lines = models.TextField(_("tags"), blank=True, default="", db_default="")
    speaking_style = models.JSONField(
        _("speaking style"), default=dict, blank=True, help_text=_("What ElevenLabs' clients have set for it")
    )
    taken_down_at = models.DateTimeField(
        _("taken down at"), null=True, help_text=_("By an operator: it cannot be used any more")
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now)
    used_at = models.DateTimeField(
        _("used at"),
        default=timezone.now,
        help_text=_("When something was last made with it; before that, its creation"),
    )

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        verbose_name = _("voice")
        verbose_name_plural = _("voices")
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-created_at", "-id"]),
            models.Index(fields=["tenant", "-used_at", "-id"]),
            models.Index("tenant", Lower("name"), "id", name="voices_voice_by_name"),
        ]

    def __str__(self) -> str:
        return f"{tidy(self.name)} ({self.pk})"

    @property
    def tags(self) -> list[str]:
        return self.tag_lines.split("\n")[1:-1]

    @staticmethod
    def lines_of(tags: list[str]) -> str:
        return "".join(f"\n{tag}" for tag in tags) + "\n" if tags else ""

    @property
    def folder(self) -> str:
        """Where its files stand in the storage."""
        return f"{VOICES_FOLDER}/{self.pk}"

    @classmethod
    def held_bytes(cls, tenant_id: int) -> int:
        """The bytes that a tenant's voices take: samples, references and engine data."""
        own = cls.objects.filter(tenant=tenant_id).order_by()
        sums = (
            own.aggregate(n=Sum(field))["n"]
            for field in ("reference_bytes", "samples__audio_bytes", "engine_data__bytes")
        )
        return sum(int(n or 0) for n in sums)


class VoiceAlias(models.Model):
    """A tenant's own name for one of its voices, or for a preset. See voices.library.speakers."""

    tenant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    alias = models.CharField(max_length=MAX_VOICE_NAME, help_text="In small letters")
    voice = models.ForeignKey(Voice, on_delete=models.CASCADE, null=True, related_name="aliases")
    preset = models.CharField(max_length=32, blank=True, help_text="Where no saved voice speaks")

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ("alias",)
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "alias"], name="one_alias_a_name")]

    def __str__(self) -> str:
        return self.alias


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
    """What an engine has computed of a voice, for one language. The engine itself recognises data that is stale."""

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
    """The statement that a speaker agreed, one row for each sample. It outlives the voice; see `without_names`."""

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
        """Removes names from the consents of an erased tenant: the only change ever. Its number and statements stay."""
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
