"""Rows by which a file that was made here is found again, and the certificates that have signed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


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
