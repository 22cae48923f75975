"""Filters of the console's lists. Each narrows a list by an index."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from voiceproject.jobs.models import WorkerHost
from voiceproject.jobs.status import ERROR_MESSAGES, JobStatus


class ErrorFilter(admin.SimpleListFilter):
    title = _("error")
    parameter_name = "error"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code, code) for code in sorted(ERROR_MESSAGES)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if not self.value():
            return queryset
        # The second is what the index is limited to: SQLite uses it only where that is said.
        return queryset.filter(error=self.value()).exclude(error="")


class RunningOnFilter(admin.SimpleListFilter):
    title = _("running on")
    parameter_name = "running_on"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in WorkerHost.objects.order_by("name").values_list("name", flat=True)[:100]]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(status=JobStatus.RUNNING, host=self.value()) if self.value() else queryset


def since_filter(field: str) -> type[admin.SimpleListFilter]:
    """The last hour, day, week, month, by an indexed time."""

    class Since(admin.SimpleListFilter):
        title = _("time")
        parameter_name = "since"
        hours = {"hour": 1, "day": 24, "week": 168, "month": 720}

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
            return [
                ("hour", _("last hour")),
                ("day", _("last 24 hours")),
                ("week", _("last 7 days")),
                ("month", _("last 30 days")),
            ]

        def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
            hours = self.hours.get(self.value() or "")
            if hours is None:
                return queryset
            return queryset.filter(**{f"{field}__gt": timezone.now() - timedelta(hours=hours)})

    return Since
