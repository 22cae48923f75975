"""Rows of the operations room: what operators were alerted to."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Alert(models.Model):
    """One thing that is wrong now, from when it was first seen until its all-clear was sent (operations.alerts)."""

    name = models.CharField(max_length=200, primary_key=True, help_text="What is looked at: workers, disk gpu-1")
    summary = models.CharField(max_length=300, help_text="What is wrong, in one sentence")
    since = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="When it was last found so")
    told_at = models.DateTimeField(null=True, help_text="When operators were told, by whoever set this first")
    cleared_at = models.DateTimeField(null=True, help_text="When they were told that it is over")

    def __str__(self) -> str:
        return self.name
