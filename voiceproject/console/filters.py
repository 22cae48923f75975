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


class OnlyAskedFilter(admin.SimpleListFilter):
    """Of failed jobs, by a field that has too many values to be offered: a link from the groups of failures sets it."""

    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        asked = request.GET.get(self.parameter_name)  # type: ignore[arg-type]
        return [] if asked is None else [(asked, asked or _("none told"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() is None or "\x00" in str(self.value()):
            return queryset if self.value() is None else queryset.none()
        return queryset.filter(**{self.field: self.value()}).exclude(error="")


class CauseFilter(OnlyAskedFilter):
    title = _("cause")
    parameter_name = field = "cause"


class FailedOnFilter(OnlyAskedFilter):
    title = _("failed on")
    parameter_name = "failed_on"
    field = "host"


class RunningOnFilter(admin.SimpleListFilter):
    title = _("running on")
    parameter_name = "running_on"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in WorkerHost.objects.order_by("name").values_list("name", flat=True)[:100]]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(status=JobStatus.RUNNING, host=self.value()) if self.value() else queryset


HOURS = {"hour": 1, "day": 24, "week": 168, "month": 720}
PERIODS = [
    ("hour", _("last hour")),
    ("day", _("last 24 hours")),
    ("week", _("last 7 days")),
    ("month", _("last 30 days")),
]


def since_filter(
    field: str, name: str = "since", label: Any = None, failed: bool = False
) -> type[admin.SimpleListFilter]:
    """The last hour, day, week, month, by an indexed time. failed: of jobs that have failed, whose index it is."""

    class Since(admin.SimpleListFilter):
        title = label or _("time")
        parameter_name = name

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
            return PERIODS

        def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
            hours = HOURS.get(self.value() or "")
            if hours is None:
                return queryset
            found = queryset.filter(**{f"{field}__gt": timezone.now() - timedelta(hours=hours)})
            return found.exclude(error="") if failed else found

    return Since
