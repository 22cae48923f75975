"""Rows of the leases: who may call which server of an engine, whose turn it is, and who waits."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class EngineLease(models.Model):
    """Who may call an engine's server now: one call at a time over all processes."""

    server = models.CharField(max_length=255, unique=True)
    owner = models.CharField(max_length=64, blank=True)
    expires_at = models.DateTimeField(null=True)
    needs_probe = models.BooleanField(default=False, help_text="A call timed out and may still be running there")
    set_aside_until = models.DateTimeField(null=True, help_text="A call failed there: not asked before this time")
    unreachable = models.BooleanField(default=False, help_text="At the last attempt nothing took the connection")
    loaded = models.TextField(blank=True, help_text="Weights that we loaded there; empty: none ever, ?: not known")
    loaded_at = models.DateTimeField(null=True, help_text="When we loaded them")
    usual_seconds = models.FloatField(null=True, help_text="How long a call takes there, smoothed; empty: not measured")
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.server


class EngineTurn(models.Model):
    """When a tenant was last served by an engine's servers: who was served longest ago goes first."""

    queue = models.CharField(max_length=64)
    tenant = models.CharField(max_length=64, blank=True)
    served_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["queue", "tenant"], name="one_turn_a_tenant")]

    def __str__(self) -> str:
        return f"{self.queue} {self.tenant}"


class EngineWaiter(models.Model):
    """One who waits for a server of an engine. Tenants take turns; within one the lowest id goes first."""

    queue = models.CharField(max_length=64)
    tenant = models.CharField(max_length=64, blank=True)
    servers = models.JSONField(default=list, help_text="Those that would do; empty: any")
    expires_at = models.DateTimeField(help_text="Who waits moves this on; who has died is passed over")

    class Meta:
        indexes: ClassVar = [models.Index(fields=["queue", "id"])]

    def __str__(self) -> str:
        return f"{self.queue} {self.pk}"
